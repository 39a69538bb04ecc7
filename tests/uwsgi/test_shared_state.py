"""The notes of a server's workers: who may have them, who leads, and what is left of the dead."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from edits import PACKAGE_ROOT

from wsgi_reload_hooks.control.runtime_dir import homes
from wsgi_reload_hooks.uwsgi.shared_state import SharedState

pytestmark = pytest.mark.unit

MINE = os.getpid()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private folder of this user's, as a session has it."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def folder_of(runtime: Path) -> Path:
    """The only server's."""
    (found,) = (runtime / "wsgi-reload-hooks").glob("uwsgi-*")
    return found


def test_a_note_is_read_as_it_was_written(runtime: Path) -> None:
    """Written by one, read by another; none is None; the stamp tells a new one from an old one."""
    ledger, other = SharedState(MINE), SharedState(MINE)
    assert other.read("note") is None and other.stamp("note") is None
    ledger.write("note", {"pid": 1})
    first = other.stamp("note")
    assert other.read("note") == {"pid": 1}
    ledger.write("note", {"pid": 1})
    assert first is not None and other.stamp("note") != first
    ledger.remove("note")
    ledger.remove("note")
    assert other.read("note") is None
    assert list(folder_of(runtime).iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", "\0\xff"])
def test_a_spoiled_note_is_none(text: str, runtime: Path) -> None:
    """Half a note, or another thing than a note, is no note."""
    ledger = SharedState(MINE)
    (folder_of(runtime) / "note").write_text(text)
    assert ledger.read("note") is None


def test_only_this_user_can_look_into_it(runtime: Path) -> None:
    """Folders and notes are private whatever the umask is."""
    before = os.umask(0)
    try:
        ledger = SharedState(MINE)
        ledger.write("note", {})
        assert ledger.acquire_lock()
    finally:
        os.umask(before)
    folder = folder_of(runtime)
    assert [path.stat().st_mode & 0o777 for path in (folder.parent, folder)] == [0o700, 0o700]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    ledger.clear()


def test_without_a_session_the_folder_for_temporary_files_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No XDG_RUNTIME_DIR, or one that others can write to: a private folder among the temporary ones."""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o700)
    shared.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for runtime in ("", "not/absolute", str(shared), str(tmp_path / "missing")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        ledger = SharedState(MINE)
        ledger.write("note", {})
        base = tmp_path / f"wsgi-reload-hooks-{os.geteuid()}"
        assert base.stat().st_mode & 0o777 == 0o700
        assert list(shared.iterdir()) == []
        ledger.clear()
        assert not base.exists()


@pytest.mark.parametrize("trap", ["open to others", "a link", "a file"])
def test_a_folder_that_is_not_ours_alone_is_refused(trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody was there before: refused, and the text says where."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    base = tmp_path / f"wsgi-reload-hooks-{os.geteuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if trap == "a link":
        base.symlink_to(elsewhere)
    elif trap == "a file":
        base.write_text("")
    else:
        base.mkdir()
        base.chmod(0o755)
    with pytest.raises(OSError, match="wsgi-reload-hooks"):
        SharedState(MINE)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even root does not use what another one owns: he could change it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    base = tmp_path / f"wsgi-reload-hooks-{os.geteuid()}"
    base.mkdir(mode=0o700)
    os.chown(base, 12345, -1)
    with pytest.raises(OSError, match="belongs to this user alone"):
        SharedState(MINE)


def test_a_link_in_the_place_of_the_lock_is_not_followed(runtime: Path, tmp_path: Path) -> None:
    """Nobody has us create a file elsewhere."""
    ledger = SharedState(MINE)
    (folder_of(runtime) / "leader.lock").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=r"leader\.lock"):
        ledger.acquire_lock()
    assert not (tmp_path / "target").exists()


def test_what_dead_servers_left_is_swept(runtime: Path) -> None:
    """A killed server's folder goes at the next start, a living one's stays, as does what is not ours."""
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    SharedState(MINE).write("note", {"kept": 1})
    living = folder_of(runtime)
    base = living.parent
    for name in (f"uwsgi-{dead.stdout.strip()}-123", f"uwsgi-{MINE}-123"):
        (base / name).mkdir(mode=0o700)
        (base / name / "note").write_text("{}")
    (base / "another").mkdir()
    assert SharedState(MINE).read("note") == {"kept": 1}
    assert {path.name for path in base.iterdir()} == {living.name, "another"}


def test_clear_takes_the_folders_along(runtime: Path) -> None:
    """The last server leaves nothing, a second call is harmless."""
    ledger = SharedState(MINE)
    ledger.write("note", {})
    assert ledger.acquire_lock()
    ledger.clear()
    ledger.clear()
    assert list(runtime.iterdir()) == []


def test_a_note_after_somebody_cleaned_up(runtime: Path) -> None:
    """Temporary folders are cleaned now and then: the next note is there all the same."""
    ledger = SharedState(MINE)
    ledger.clear()
    ledger.write("note", {"pid": 2})
    assert ledger.read("note") == {"pid": 2}


LEAD = """
import os, sys
from wsgi_reload_hooks.uwsgi.shared_state import SharedState
from wsgi_reload_hooks.control.runtime_dir import homes
ledger = SharedState({pid})
print(ledger.acquire_lock(), flush=True)
sys.stdin.read()
"""


def test_one_process_leads_until_it_ends(runtime: Path) -> None:
    """The lock is between processes, is given away by resigning and by death, and a fork does not take it along."""
    ledger = SharedState(MINE)
    assert ledger.acquire_lock() and ledger.acquire_lock()

    def other() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", LEAD.format(pid=MINE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
        )

    def answer(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    with other() as first:
        assert answer(first) == "False"
        first.communicate()
    ledger.release_lock()
    ledger.release_lock()
    with other() as second:
        assert answer(second) == "True"
        assert not ledger.acquire_lock()
        second.kill()
        second.communicate()
    assert ledger.acquire_lock()
    ledger.release_lock()


def test_cleaned_temporary_folders(runtime: Path) -> None:
    """What is written anew is private on all its way; notes that are gone come back, others stay."""
    before = os.umask(0o022)
    try:
        ledger = SharedState(MINE)
        ledger.write("note", {"pid": 1})
        shutil.rmtree(runtime / "wsgi-reload-hooks")
        ledger.restore("note", {"pid": 1})
        ledger.restore("note", {"pid": 2})
    finally:
        os.umask(before)
    assert ledger.read("note") == {"pid": 1}
    assert stat.S_IMODE((runtime / "wsgi-reload-hooks").stat().st_mode) == 0o700
    assert [home.pid for home in homes() if home.path.startswith(str(runtime))] == [MINE]


def test_a_lock_that_was_removed(runtime: Path) -> None:
    """Who locks the next one leads, and the one before leads no more."""
    ledger = SharedState(MINE)
    assert ledger.acquire_lock()
    (folder_of(runtime) / "leader.lock").unlink()
    program = (
        "import sys; from wsgi_reload_hooks.uwsgi.shared_state import SharedState; "
        f"print(SharedState({MINE}).acquire_lock(), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=PACKAGE_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        assert not ledger.acquire_lock()
        other.communicate()
    assert ledger.acquire_lock()
