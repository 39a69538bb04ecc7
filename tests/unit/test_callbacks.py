"""Functions and commands that are told what happened: what they get, what is told of them, and that nobody waits."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from edits import PACKAGE_ROOT, python, save
from harness import processes, wait_until

from wsgi_reload_hooks import Settings
from wsgi_reload_hooks.core.log import ReloadLog
from wsgi_reload_hooks.report import callbacks
from wsgi_reload_hooks.report.callbacks import Callbacks, Error, Event, Rights

pytestmark = pytest.mark.unit

EVENT = Event(
    kind="refused",
    server="gunicorn",
    pid=7,
    root="/srv/shop",
    paths=("/srv/shop/a\udcff.py", "/srv/shop/b.py"),
    seconds=1.5,
    workers=4,
    error=Error("NameError: x", "/srv/shop/b.py", 3, "Traceback\n  x"),
    at=1700000000.5,
)


class Log:
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, *arguments: object) -> None:
        self.lines.append((text % arguments).removeprefix("reload: "))


class Told(Callbacks):
    """Callbacks of a project in *folder* whose complaints are kept."""

    def __init__(self, folder: Path, on_refused: str, on_change: str = "", **more: Any) -> None:
        self.log = Log()
        settings = Settings.load(str(folder), {}, on_refused=on_refused, on_change=on_change)
        super().__init__(settings, ReloadLog(self.log, str(folder)), str(folder), **more)

    def over(self) -> bool:
        """Look; whether all have ended."""
        self.look()
        return not self.busy

    def done(self, limit: float = 20.0) -> list[str]:
        """Wait for the end of all that runs; the complaints."""
        wait_until(self.over, "it has ended", limit)
        return self.log.lines

    def fired(self, event: Event = EVENT) -> list[str]:
        """Tell *event* and wait for the end; the complaints."""
        self.fire(event)
        return self.done()


def command(code: str) -> str:
    """A command that runs *code*."""
    return shlex.join([sys.executable, "-S", "-c", textwrap.dedent(code)])


def text_of(path: Path) -> str:
    """What somebody will have written to *path*."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"{path.name} is written")
    return path.read_text().strip()


# -- what is told ----------------------------------------------------------------------------------------------------


def test_a_function_is_called_with_the_event(tmp_path: Path) -> None:
    """In an interpreter of its own, in the project's folder, with the search path of the server after that folder."""
    save(
        tmp_path / "shop" / "hooks.py",
        """
        import os, sys
        from wsgi_reload_hooks.report.callbacks import Event
        class ImportReporter:
            def told(event):
                assert type(event) is Event and sys.stdin.read() == ""
                with open("note", "w") as note:
                    print([event.as_json(), sys.path[:2], sys.argv, os.getpid(), "files" in sys.modules], file=note)
        """.replace("\n        ", "\n"),
    )
    save(tmp_path / "files.py", "")
    assert Told(tmp_path, "shop.hooks:ImportReporter.told", path=["/elsewhere", str(PACKAGE_ROOT)]).fired() == []
    said, path, argv, pid, clash = eval((tmp_path / "note").read_text())
    assert Event.from_json(said) == EVENT
    assert path == [str(tmp_path), "/elsewhere"] and argv == ["shop.hooks:ImportReporter.told"]
    assert pid != os.getpid() and not clash


def test_a_command_reads_the_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON on its standard input, in the project's folder; its words are split, and no shell sees them."""
    for name in list(os.environ):
        if name.startswith("WSGI_RELOAD_"):
            monkeypatch.delenv(name)
    code = """
    import json, os, sys
    with open("note", "w") as note:
        print(json.dumps([json.load(sys.stdin), sys.argv[1:], sorted(os.environ)]), file=note)
    """
    assert Told(tmp_path, command(code) + " '$HOME; x' \"a b\" *").fired() == []
    said, words, names = json.loads((tmp_path / "note").read_text())
    assert words == ["$HOME; x", "a b", "*"]
    assert said == json.loads(EVENT.as_json())
    assert said["paths"] == list(EVENT.paths) and said["error"]["line"] == 3
    assert not [name for name in names if name.startswith("WSGI_RELOAD_")]


def test_who_is_told_of_what(tmp_path: Path) -> None:
    """Each kind has its setting; where that is not set nothing is started."""
    fired = Told(tmp_path, "", on_change="sh -c 'cat > change; echo >> change'")
    for kind in ("refused", "reloaded"):
        fired.fire(Event(kind, "run", 1, str(tmp_path)))
        assert not fired.busy
    fired.fire(Event("change", "run", 1, str(tmp_path)))
    assert fired.busy
    note = json.loads(text_of(tmp_path / "change"))
    assert note["kind"] == "change" and note["error"] is None and note["paths"] == []
    assert fired.done() == []


# -- what is told of it ----------------------------------------------------------------------------------------------

HOOKS = """\
import json, os, signal, sys, threading
def raises(event):
    raise ValueError("no\\ngood\\x1b")
def raises_elsewhere(event):
    json.loads("{")
def exits(event):
    sys.exit()
def exits_with_3(event):
    sys.exit(3)
def exits_with_words(event):
    sys.exit("these words")
def leaves(event):
    os._exit(4)
def is_killed(event):
    os.kill(os.getpid(), signal.SIGSEGV)
def says_nothing_of_threads(event):
    threading.Thread(target=lambda: None).start()
number = 5
"""


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("hooks:raises", r"on_refused: hooks:raises raised ValueError: no (hooks.py, line 3)"),
        ("hooks:raises_elsewhere", "on_refused: hooks:raises_elsewhere raised JSONDecodeError: Expecting *"),
        ("hooks:exits", ""),
        ("hooks:says_nothing_of_threads", ""),
        ("hooks:exits_with_3", "on_refused: hooks:exits_with_3 ended with exit code 3"),
        ("hooks:exits_with_words", "on_refused: hooks:exits_with_words ended with exit code 1"),
        ("hooks:leaves", "on_refused: hooks:leaves ended with exit code 4"),
        ("hooks:is_killed", "on_refused: hooks:is_killed was killed by SIGSEGV"),
        ("hooks:number", "on_refused: hooks:number raised TypeError: 'int' object is not callable"),
        ("hooks:gone", "on_refused: hooks:gone raised AttributeError: module 'hooks' has no attribute 'gone'"),
        ("no_hooks:x", "on_refused: no_hooks:x raised ModuleNotFoundError: No module named 'no_hooks'"),
        ("broken:x", "on_refused: broken:x raised SyntaxError: * (broken.py, line 1)"),
        ("sh -c 'exit 3'", "on_refused: sh ended with exit code 3"),
        ("sh -c 'kill -9 $$'", "on_refused: sh was killed by SIGKILL"),
        ("true x", ""),
        ("no-such-command x", "on_refused: no such command: no-such-command"),
        ("./no-such-command", "on_refused: no such command: ./no-such-command"),
        ("./hooks.py", "on_refused: ./hooks.py cannot be started: [[]Errno 13] Permission denied: './hooks.py'"),
    ],
)
def test_what_went_wrong_is_one_line(told: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Setting, who, what, and where in the project; of what went well there is no line. No traceback is printed."""
    save(tmp_path / "hooks.py", HOOKS)
    save(tmp_path / "broken.py", "def")
    lines = Told(tmp_path, told).fired()
    assert len(lines) == bool(said) and all(fnmatchcase(line, said) for line in lines), lines
    printed = capfd.readouterr().err
    assert "Traceback" not in printed and ("these words" in printed) == (told == "hooks:exits_with_words")


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    """The line names it, not the command."""
    folder = tmp_path / "release"
    folder.mkdir()
    told = Told(folder, "true")
    folder.rmdir()
    assert told.fired() == [f"on_refused: no such folder: {folder}"]


@pytest.mark.parametrize("how", ["command", "function"])
def test_what_does_not_end_is_killed(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time is over, with what it has started; meanwhile nobody waits."""
    monkeypatch.setattr(callbacks, "ENDS_WITHIN", 4.0)
    code = "import os, signal, subprocess, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code += "child = subprocess.Popen(['sleep', '1000'])\nopen('note', 'w').write(f'{os.getpid()} {child.pid}\\n')\n"
    save(tmp_path / "hooks.py", f"def hangs(event):\n{textwrap.indent(code, '    ')}    time.sleep(1000)\n")
    told = Told(tmp_path, "hooks:hangs" if how == "function" else command(code + "time.sleep(1000)"))
    began = time.monotonic()
    told.fire(EVENT)
    told.look()
    assert time.monotonic() - began < 3.5 and told.busy
    pids = [int(word) for word in text_of(tmp_path / "note").split()]
    who = "hooks:hangs" if how == "function" else sys.executable
    assert told.done() == [f"on_refused: {who} did not end within 4 s, and was killed"]
    wait_until(lambda: not any(map(processes.alive, pids)), "it is gone, and its child")


def test_what_it_prints_goes_to_the_servers_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A megabyte on each of its outputs, unread by the server, and all of it arrives."""
    code = "import sys\nfor file in (sys.stdout, sys.stderr):\n    print('x' * 1_000_000, file=file)\n"
    assert Told(tmp_path, command(code)).fired() == []
    said = capfd.readouterr()
    assert said.err.count("x") == 2_000_000 and said.out == ""


# -- the server ------------------------------------------------------------------------------------------------------


def test_only_so_many_run_at_a_time(tmp_path: Path) -> None:
    """What is beyond that is not told, which is told once, until there is room again."""
    save(tmp_path / "wait.sh", "echo >> began; until [ -e go ]; do sleep 0.05; done; echo >> told")
    told = Told(tmp_path, "sh wait.sh")
    began = tmp_path / "began"
    for _ in range(2):
        for _ in range(callbacks.RUNNING_AT_MOST + 3):
            told.fire(EVENT)
        wait_until(lambda: began.exists() and began.read_text() == "\n" * callbacks.RUNNING_AT_MOST, "all run")
        (tmp_path / "go").touch()
        told.done()
        for name in ("go", "began"):
            (tmp_path / name).unlink()
    assert told.log.lines == ["on_refused: not told, 8 are still running"] * 2
    assert (tmp_path / "told").read_text() == "\n" * 2 * callbacks.RUNNING_AT_MOST


def test_nothing_is_left(tmp_path: Path) -> None:
    """Neither a file descriptor nor a dead child."""
    # Other tests of this process may have left some.
    before, children = len(os.listdir("/dev/fd")), processes.offspring(os.getpid())
    told = Told(tmp_path, "false")
    for _ in range(3):
        assert told.fired()
    assert len(os.listdir("/dev/fd")) == before
    assert processes.offspring(os.getpid()) <= children


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    """One line, and no file stays open."""
    before = len(os.listdir("/dev/fd"))
    told = Told(tmp_path, "true", command=["/no/such/python"])
    told.fire(EVENT)
    assert not told.busy and len(os.listdir("/dev/fd")) == before
    (line,) = told.log.lines
    assert line.startswith("on_refused: no process can be started for it: [Errno 2] No such file or directory")


SERVER = """
from wsgi_reload_hooks.report.callbacks import Callbacks, Event
from wsgi_reload_hooks.core.streams import Console
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.core.log import ReloadLog
settings = Settings.load(".", on_change={told!r})
told = Callbacks(settings, ReloadLog(Console(), "."), os.getcwd())
told.fire(Event("change", "run", os.getpid(), "."))
"""
LOOK = "while told.busy:\n    told.look()\n    time.sleep(0.01)\n"


@pytest.mark.parametrize("forked", [False, True])
def test_the_server_has_gone(forked: bool, tmp_path: Path) -> None:
    """What is running ends by itself, and what is wrong with it is still told; also where a fork of the server lives on."""
    told = "sh -c 'while kill -0 $(cat server); do sleep 0.05; done 2>/dev/null; exit 5'"
    fork = (
        "if os.fork() == 0:\n    open('fork', 'w').write(f'{os.getpid()}\\\\n')\n    time.sleep(1000)\n"
        if forked
        else ""
    )
    end = "while not os.path.exists('fork'): time.sleep(0.01)\n" if forked else ""
    code = "open('server', 'w').write(str(os.getpid()))\n" + SERVER.format(told=told) + fork.replace("\\\\", "\\") + end
    preamble = "import os, time\nfrom wsgi_reload_hooks import Settings\n"
    with open(tmp_path / "log", "wb") as log:
        subprocess.run(
            [sys.executable, "-c", preamble + code],
            cwd=tmp_path,
            # The little server closes no file.
            env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "PYTHONDEVMODE": ""},
            stderr=log,
            check=True,
            timeout=60,
        )
    try:
        wait_until(lambda: (tmp_path / "log").read_text().endswith("\n"), "the line")
        line = "[WARNING] reload: on_change: sh ended with exit code 5\n"
        assert (tmp_path / "log").read_text() == line
    finally:
        if forked:
            os.kill(int(text_of(tmp_path / "fork")), signal.SIGKILL)


@pytest.mark.parametrize(
    "before", ["import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n", "os.close(0); os.close(2)\n"]
)
def test_servers_of_another_kind(before: str, tmp_path: Path) -> None:
    """One whose children somebody else reaps, and one without standard files."""
    code = before + SERVER.format(told="sh -c 'cat > note; exit 3'") + LOOK
    python(code, tmp_path)
    assert json.loads((tmp_path / "note").read_text())["kind"] == "change"


def test_a_process_that_was_forked_off_leaves(tmp_path: Path) -> None:
    """It closes what it has inherited, and the server hears all the same."""
    code = """
    pid = os.fork()
    if pid == 0:
        before = len(os.listdir("/dev/fd"))
        told.leave()
        os._exit(0 if len(os.listdir("/dev/fd")) < before and not told.busy else 1)
    assert os.waitpid(pid, 0)[1] == 0
    """
    python(SERVER.format(told="true") + textwrap.dedent(code) + LOOK, tmp_path)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may write to."""
    folder = Path(tempfile.mkdtemp(prefix="wrh-public-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def python_for(user: str) -> str:
    """An interpreter that *user* may run, and who can read our files; empty where there is none."""
    for program in (sys.executable, "/usr/bin/python3"):
        try:
            words = [program, "-c", f"open({callbacks.CALLBACK_MAIN!r})"]
            if (
                subprocess.run(
                    words, user=user, extra_groups=[], cwd="/", stderr=subprocess.DEVNULL, check=False
                ).returncode
                == 0
            ):
                return program
        except OSError:
            # It lives in root's home.
            continue
    return ""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give rights away")
@pytest.mark.parametrize("how", ["command", "function"])
def test_with_the_rights_of_the_workers(how: str, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a project names never runs as root where its workers do not; nor does what its environment could run."""
    nobody, program = pwd.getpwnam("nobody"), python_for("nobody")
    if not program:
        pytest.skip("interpreter and package live where others may not go")
    note = "import os\nopen('note', 'a').write(f'{os.getresuid()} {os.getresgid()} {os.getgroups()}\\n')\n"
    save(public / "hooks.py", f"def told(event):\n{textwrap.indent(note, '    ')}")
    # Whoever ran this would do so in the folder of this test's server.
    monkeypatch.chdir(public)
    save(public / "usercustomize.py", note)
    save(public / "sitecustomize.py", note)
    monkeypatch.setenv("PYTHONPATH", str(public))
    rights = Rights(nobody.pw_uid, nobody.pw_gid, (nobody.pw_gid,))
    words = "hooks:told" if how == "function" else shlex.join([program, "-I", "-S", "-c", note])
    assert Told(public, words, rights=rights, command=[program]).fired() == []
    expected = f"{(nobody.pw_uid,) * 3} {(nobody.pw_gid,) * 3} {[nobody.pw_gid]}"
    assert set((public / "note").read_text().splitlines()) == {expected}
