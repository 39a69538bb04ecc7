"""uWSGI: the private folder of a server, what remains of it, and what happens to it; starts that are broken."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import ABSENT, HAVE_UWSGI, Project, Uwsgi, holds, patterns, wait_until
from harness.steering import commanded, status
from harness.uwsgi import ADAPTER

pytestmark = [pytest.mark.field, pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")]

LIMIT = 8.0
WAITING = r"waiting for its repair"
OWN_ERROR = r"hooks themselves|File \".*/wsgi_reload_hooks/"

# -- a first start that is broken ------------------------------------------------------------------------------------


folder_stays = pytest.mark.xfail(strict=True, reason="who waits for the repair of its first start leaves its folder")
goes_on = pytest.mark.xfail(
    strict=True, raises=subprocess.TimeoutExpired, reason="a master that waits for the repair does not end at SIGINT"
)


@pytest.mark.parametrize(
    ("lazy", "cause"),
    [
        pytest.param(True, "undefined_name", marks=folder_stays),
        pytest.param(True, "import sys; sys.exit(3)", marks=folder_stays),
        pytest.param(False, "undefined_name", marks=goes_on),
    ],
)
def test_broken_start_that_is_interrupted_leaves_nothing(lazy: bool, cause: str, project: Project) -> None:
    """SIGINT while the server waits for the repair of its first start: no file and no process remains."""
    project.broken(top=cause)
    with Uwsgi(project, workers=2, lazy=lazy, wait=False) as server:
        server.wait_for_log(WAITING)
        server.stop(LIMIT)


SAY = """\
import uwsgi
if os.getppid() != uwsgi.masterpid():
    with open("trials", "a") as file:
        file.write(".")
raise RuntimeError({varying})
"""


@pytest.mark.xfail(strict=True, reason="a refusal is told anew when only its message differs")
@pytest.mark.parametrize("varying", ["object()", "os.getpid()", "time.monotonic_ns()"])
def test_broken_start_with_a_varying_message_is_told_once(varying: str, project: Project) -> None:
    """The message of the exception differs each time that the code is tried: it is the same refusal."""
    project.broken(top=SAY.format(varying=varying))
    with Uwsgi(project, workers=2, wait=False) as server:
        server.wait_for_log(WAITING)
        trials = project.root / "trials"
        wait_until(lambda: trials.exists() and len(trials.read_text()) > 1, "the code was tried again")
        assert server.count(WAITING) == 1


# -- a master that was killed ----------------------------------------------------------------------------------------

SLOW = "import os, time\nwhile os.path.exists('hold'):\n    time.sleep(0.01)\n"


@pytest.mark.xfail(strict=True, reason="a folder that was made after the death of its master counts as a living server")
def test_folder_that_a_worker_makes_for_a_killed_master_is_removed(project: Project) -> None:
    """The master is killed before a worker makes the folder, the worker after: `status` names neither."""
    project.save("slow.py", SLOW)
    hold = project.root / "hold"
    hold.touch()
    with Uwsgi(project, "--import", "slow", "--import", ADAPTER, workers=1, hooks=False, wait=False) as server:
        server.wait_for_log(patterns.UWSGI_WORKER)
        (worker,) = server.workers()
        server.send(signal.SIGKILL)
        server.exit_status()
        hold.unlink()
        wait_until(
            lambda: any(map(Path.is_socket, server.runtime.rglob("*"))) or worker not in server.processes(),
            "the worker makes the folder",
        )
        server.kill()
        assert str(server.pid) not in commanded(server, "status")[1]
        assert list(server.runtime.rglob("*")) == []
        server.forget()


# -- notes that are not well-formed ----------------------------------------------------------------------------------

Note = dict[str, object]
CONTENTS: dict[str, Callable[[Note], str]] = {
    "empty": lambda note: "",
    "other names": lambda note: json.dumps({f"other_{name}": value for name, value in note.items()}),
    "no values": lambda note: json.dumps(dict.fromkeys(note)),
}


def spoil(server: Uwsgi, content: Callable[[Note], str]) -> None:
    """Replace each note in the folder of *server*."""
    spoiled = []
    for path in filter(Path.is_file, server.runtime.rglob("*")):
        try:
            note = json.loads(path.read_text())
        except ValueError:
            continue
        sibling = server.runtime.parent / "note"
        sibling.write_text(content(note))
        sibling.replace(path)
        spoiled.append(path.name)
    assert spoiled, "there are notes"


ends_reloading = pytest.mark.xfail(strict=True, reason="a note that is not well-formed ends reloading")


@ends_reloading
@pytest.mark.parametrize("content", CONTENTS)
def test_save_after_notes_were_spoiled_is_served(content: str, project: Project) -> None:
    """What workers have noted is not well-formed any more: it counts as missing, and the next save goes in."""
    with Uwsgi(project, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        spoil(server, CONTENTS[content])
        project.release()
        server.wait_for_version(project.version, limit=LIMIT)
        assert server.count(OWN_ERROR) == 0


@pytest.mark.parametrize(
    "content",
    [
        "empty",
        pytest.param("other names", marks=ends_reloading),
        pytest.param("no values", marks=ends_reloading),
    ],
)
def test_uwsgi_that_is_executed_anew_with_notes_of_another_version_serves_saves(content: str, project: Project) -> None:
    """The folder has notes that these hooks do not understand when all workers start: they count as missing."""
    with Uwsgi(project, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        spoil(server, CONTENTS[content])
        server.hup()
        for _ in range(2):
            project.release()
            server.wait_for_version(project.version, limit=LIMIT)
        assert server.count(OWN_ERROR) == 0


# -- the folder around it --------------------------------------------------------------------------------------------


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder as /tmp is: everybody may write there. Its path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="wrh-") as folder:
        os.chmod(folder, 0o1777)
        yield Path(folder)


@pytest.mark.xfail(
    strict=True, reason="a folder of another user in TMPDIR that has the name of ours switches the hooks off"
)
@pytest.mark.parametrize("whose", ["another user's", "open to others"])
def test_folder_of_another_user_does_not_switch_the_hooks_off(whose: str, project: Project, shared: Path) -> None:
    """Without XDG_RUNTIME_DIR another user has made what the hooks make in TMPDIR: they take another name."""
    if whose == "another user's" and os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    environment = {"TMPDIR": str(shared), "XDG_RUNTIME_DIR": ABSENT}
    with Uwsgi(project, workers=2, environment=environment) as server:
        server.wait_for_log(patterns.WATCHING)
        names = [path.name for path in shared.iterdir()]
    for name in names:
        (shared / name).mkdir(mode=0o755, exist_ok=True)
        if whose == "another user's":
            shutil.chown(shared / name, "nobody")
    with Uwsgi(project, workers=2, environment=environment) as server:
        server.wait_for_everyone(project.version)
        project.release()
        server.wait_for_version(project.version, limit=LIMIT)
        assert status(server)["pid"] == server.pid


class InSmallFolder(Uwsgi):
    """A uWSGI whose runtime directory is a file system of 256 kB."""

    def __init__(self, project: Project) -> None:
        super().__init__(project, workers=2)
        mount = 'mount -t tmpfs -o size=256k,mode=700 none "$XDG_RUNTIME_DIR" && exec "$@"'
        self._command = ["unshare", "-U", "-r", "-m", "sh", "-c", mount, "sh", *self._command]

    @property
    def filler(self) -> Path:
        """A file in that directory, as it is seen from outside."""
        return Path(f"/proc/{self.pid}/root{self.runtime}/filler")

    def fill(self) -> None:
        """Write a file until there is no space left."""
        with contextlib.suppress(OSError), self.filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 512):
                pass


def can_mount() -> bool:
    """Whether this user may mount a file system in a namespace."""
    command = ["unshare", "-U", "-r", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.xfail(strict=True, reason="a full folder is told as an error in the hooks themselves, every 5 s")
def test_full_folder_is_told_once_as_what_it_is(project: Project) -> None:
    """No space for notes at the moment of a save: one line says so, and with space the save is served."""
    if not can_mount():
        pytest.skip("no file system can be mounted")
    with InSmallFolder(project) as server:
        server.wait_for_log(patterns.WATCHING)
        server.fill()
        project.release()
        server.wait_for_log("No space left")
        assert server.count(OWN_ERROR) == 0
        holds(lambda: server.count("No space left") == 1, "it is told once", 6.0)
        server.filler.unlink()
        server.wait_for_version(project.version)
