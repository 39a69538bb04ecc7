"""`run_with_reloader(main)`: a program that is its own supervisor."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from edits import PACKAGE_ROOT, save
from harness import Script, processes, wait_until
from harness.script import REFUSED, RESTARTED, REVERTED, WATCHING

PROGRAM = """\
import os, sys, time
from wsgi_reload_hooks import run_with_reloader
import part
def main():
    print({{"version": part.VERSION, "flags": str(sys.flags), "warn": sys.warnoptions, "x": sorted(sys._xoptions),
           "argv": sys.argv, "name": __name__, "main": bool(__spec__)}}, flush=True)
    {work}
    return "answer"
if __name__ == "__main__":
    print("parent" if "WSGI_SUPERVISED" not in os.environ else "child", sys.argv, flush=True)
    print("main said", run_with_reloader(main{more}), flush=True)
"""
STAY = "time.sleep(600)"


def program(tmp_path: Path, name: str = "app.py", work: str = STAY, more: str = "") -> Path:
    """The program, and its module `part`; what that is."""
    save(tmp_path / name, PROGRAM.format(work=work, more=more))
    return save(tmp_path / "part.py", "VERSION = 'v1'\n")


@pytest.mark.parametrize(
    "words",
    [
        ["app.py", "a b", "", "--port=1"],
        ["-W", "error", "-X", "dev", "-O", "app.py"],
        ["-m", "shop"],
        ["-O", "-m", "shop.app", "x"],
        [
            "-Wignore",
            "-c",
            "import shop.app\nfrom wsgi_reload_hooks import run_with_reloader\nrun_with_reloader(shop.app.main)",
            "y",
        ],
    ],
    ids=["script", "options", "package", "module", "code"],
)
def test_the_child_is_started_like_its_parent(tmp_path: Path, words: Sequence[str]) -> None:
    """The same interpreter with the same options and arguments, started by a file, by ``-m`` or by ``-c``; and again for
    a save."""
    part = program(tmp_path)
    save(tmp_path / "shop" / "__init__.py", "")
    program(tmp_path, "shop/app.py")
    program(tmp_path, "shop/__main__.py")
    with Script(tmp_path, command=[sys.executable, *words]) as script:
        found = ast.literal_eval(script.said(r"(\{.*\})\n"))
        assert found["version"] == "v1"
        assert found["x"] == (["dev"] if "dev" in words else [])
        assert ("error" in found["warn"], "ignore" in found["warn"]) == ("error" in words, "-Wignore" in words)
        assert f"optimize={int('-O' in words)}" in found["flags"]
        assert found["argv"][1:] == [word for word in words if word in ("a b", "", "--port=1", "x", "y")]
        if "-c" not in words:
            parent = script.said(r"parent (\[.*\])\n")
            assert script.said(r"child (\[.*\])\n") == parent
        script.said(WATCHING)
        save(part, "VERSION = 'v2'\n")
        assert ast.literal_eval(script.said(r"(\{.*\})\n", 2))["version"] == "v2"
        assert script.said(RESTARTED) == "part.py"


@pytest.mark.adapters
def test_the_result_of_main(tmp_path: Path) -> None:
    """In the child it returns what `main` returns; in the parent it does not return."""
    program(tmp_path, work="pass")
    with Script(tmp_path, command=[sys.executable, "app.py"]) as script:
        assert script.ends() == 0
        assert script.count("main said answer") == 1


def test_the_exit_code_is_passed_on(tmp_path: Path) -> None:
    """The parent ends as the child did, after what is registered for its own end."""
    program(tmp_path, work="sys.exit(143)")
    with Script(tmp_path, command=[sys.executable, "app.py"]) as script:
        assert script.ends() == 143


@pytest.mark.adapters
def test_broken_saves_are_refused(tmp_path: Path) -> None:
    """A broken save leaves the running one; nobody calls `main` to find that out."""
    part = program(tmp_path)
    with Script(tmp_path, command=[sys.executable, "app.py"]) as script:
        script.said("v1")
        script.quiet()
        save(part, "VERSION = nosuch\n")
        assert "NameError" in script.said(REFUSED)
        assert script.count("'version'") == 1
        save(part, "VERSION = 'v2'\n")
        script.said("'v2'")


def test_settings_and_app(tmp_path: Path) -> None:
    """Settings are those of `Settings.load`, and *app* names what must be importable."""
    part = program(tmp_path, more=", app='part:serve', extra_files=['*.yaml'], kill_after=0.2")
    good = save(part, "VERSION = 'v1'\ndef serve(): pass\n").read_text()
    listed = save(tmp_path / "a.yaml", "1\n")
    with Script(tmp_path, command=[sys.executable, "app.py"]) as script:
        script.said("'version'")
        script.said(WATCHING)
        save(part, "VERSION = 'v1'\n")
        assert script.said(REFUSED) == "part.py: part.py has no callable 'serve'"
        save(part, good)
        script.said(REVERTED)
        save(listed, "2\n")
        assert script.said(RESTARTED) == "a.yaml"


@pytest.mark.parametrize("more", [", enabled=False", ", enabled=False, listen='0'"])
def test_disabled(tmp_path: Path, more: str) -> None:
    """With enabled = false `main` is simply called, in this process."""
    text = PROGRAM.format(work="pass", more=more).replace(
        "def main():", "def main(*given):\n    print(given, flush=True)"
    )
    save(tmp_path / "app.py", text)
    save(tmp_path / "part.py", "VERSION = 'v1'\n")
    with Script(tmp_path, command=[sys.executable, "-W", "ignore", "app.py"]) as script:
        assert script.ends() == 0
        assert script.count("parent") == 1 and script.count("main said answer") == 1 and "child" not in script.log
        assert ("socket.socket" in script.log) == ("listen" in more)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("run_with_reloader(main, nosuch=1)", "SettingsError: unknown setting 'nosuch'"),
        ("run_with_reloader(main, app='a b')", "Failure: 'a b' names no application"),
        ("run_with_reloader(main, listen='nonsense')", "Failure: 'nonsense' is no address"),
        (
            "threading.Thread(target=run_with_reloader, args=(main,)).start()",
            "RuntimeError: run_with_reloader belongs ",
        ),
    ],
)
def test_wrong_use(tmp_path: Path, call: str, error: str) -> None:
    """What cannot be done is an error at once, and nothing is started; in another thread than the main one, for instance."""
    text = f"import threading\nfrom wsgi_reload_hooks import run_with_reloader\ndef main(): print('ran')\n{call}\n"
    save(tmp_path / "app.py", text)
    with Script(tmp_path, command=[sys.executable, "app.py"]) as script:
        script.ends()
        assert error in script.log and "ran" not in script.log


SERVER = """\
import os, socket
from wsgi_reload_hooks import run_with_reloader
VERSION = "v1"
def main(listening):
    print("listens", listening.getsockname()[1], listening.getblocking() and not blocks_not(listening), flush=True)
    while True:
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            continue
        connection.sendall(VERSION.encode())
        connection.close()
def blocks_not(listening):
    found = not os.get_blocking(listening.fileno())
    # What one program makes of the socket is no business of the next one's.
    listening.setblocking(False)
    return found
if __name__ == "__main__":
    run_with_reloader(main, listen="127.0.0.1:0")
"""


def ask(port: int) -> str:
    """What a visitor gets."""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        return connection.recv(10).decode()


def wait_for_answer(port: int, version: str) -> None:
    """Ask, without being refused, until that version answers."""
    wait_until(lambda: ask(port) == version, f"{version} answers")


@pytest.mark.adapters
def test_listen(tmp_path: Path) -> None:
    """With *listen* `main` is given a socket; over restarts no connection is refused, and none hangs."""
    path = save(tmp_path / "app.py", SERVER)
    with Script(tmp_path, command=[sys.executable, "app.py"]) as script:
        port = int(script.said(r"listens (\d+) True"))
        for number in range(2, 5):
            save(path, SERVER.replace("v1", f"v{number}"))
            wait_for_answer(port, f"v{number}")
        script.said(r"listens (\d+) True", 4)
        assert "False" not in script.log


def test_closed_output(tmp_path: Path) -> None:
    """A parent without standard output ends like any other."""
    program(tmp_path, work="sys.exit(0)")
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
    command = ["/bin/sh", "-c", 'exec "$0" app.py >&-', sys.executable]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0 and "rror" not in done.stderr


@pytest.mark.adapters
def test_no_orphans(tmp_path: Path) -> None:
    """The parent killed, the child is gone."""
    program(tmp_path)
    with Script(tmp_path, command=[sys.executable, "app.py"]) as script:
        script.said("v1")
        assert processes.alive(script.program())
        script.end(signal.SIGKILL)
        wait_until(lambda: not script.left(), "nothing is left")


def test_what_the_program_has_set_is_as_before(tmp_path: Path) -> None:
    """Handlers of the parent are as before in its own end, and a child starts with none of them."""
    text = "import atexit, signal, os\nfrom wsgi_reload_hooks import run_with_reloader\n"
    text += "def main():\n    print('child', signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL, flush=True)\n"
    text += "def mine(*_): pass\n"
    text += "if __name__ == '__main__':\n    inside = 'WSGI_SUPERVISED' in os.environ\n"
    text += "    inside or signal.signal(signal.SIGUSR1, mine)\n"
    text += "    inside or signal.signal(signal.SIGTERM, mine)\n"
    text += (
        "    inside or atexit.register(lambda: print('parent', signal.getsignal(signal.SIGTERM) is mine, flush=True))\n"
    )
    text += "    run_with_reloader(main)\n"
    save(tmp_path / "app.py", text)
    with Script(tmp_path, command=[sys.executable, "app.py"]) as script:
        assert script.ends() == 0
        assert "child True\n" in script.log and "parent True\n" in script.log


def test_processes_of_the_program_do_not_supervise(tmp_path: Path) -> None:
    """A process that multiprocessing spawns runs the program's file again: it starts no supervisor of its own."""
    work = (
        "import multiprocessing; multiprocessing.get_context('spawn').Process(target=print, args=('spawned',)).start()"
    )
    program(tmp_path, work=work + "; time.sleep(600)")
    with Script(tmp_path, command=[sys.executable, "app.py"]) as script:
        script.said("spawned")
        # The supervisor, the program, and two of multiprocessing's at most.
        script.quiet()
        assert len(script.processes()) <= 4
