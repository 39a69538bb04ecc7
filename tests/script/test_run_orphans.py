"""No orphans: however the supervisor of `run` ends, and whenever, nothing of what it has started is left a second later."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from edits import PACKAGE_ROOT, save
from harness import Script, processes, wait_until
from harness.script import WATCHING

# A second is what is promised. A machine that is shared may stand still for two more, and has eight lives to look at.
LEFT_AT_MOST = 4.0
LIVES = 20
AT_ONCE = 8

# Deaf, and not alone: the child that it forks is deaf, too.
PROGRAM = """\
import os, signal, time
if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.fork()
import part
def main():
    # In one piece: there are two who say so.
    os.write(1, f"serving {part.VERSION}\\n".encode())
    while True:
        time.sleep(1)
if __name__ == "__main__":
    main()
"""
# Where it is tried, it waits to be seen.
PART = """\
import os, time
VERSION = {version!r}
while "WSGI_TRIAL" in os.environ and not os.path.exists("go"):
    time.sleep(0.01)
time.sleep({seconds})
"""


def at_start(script: Script) -> None:
    """Any time from the first instruction on."""


def while_it_boots(script: Script) -> None:
    """The program is there, and imports for a while."""
    wait_until(lambda: len(script.programs()) > 1, "the program begins")


def in_a_restart(script: Script) -> None:
    """A save is on its way, from its being seen to the next program."""
    save(script.project.root / "go", "")
    script.said("serving v1")
    save(script.project.root / "part.py", PART.format(version="v2", seconds=0))


def while_it_tries(script: Script) -> None:
    """An import is tried beside the program, and takes long."""
    script.said("serving v1")
    wait_until(script.stages, "something is tried")
    save(script.project.root / "go", "")


MOMENTS: dict[str, tuple[Callable[[Script], None], float, float]] = {
    # The moment; how long the import takes; within which time after the moment.
    "start": (at_start, 0.0, 0.7),
    "boot": (while_it_boots, 600, 0.3),
    "restart": (in_a_restart, 0.0, 1.0),
    "trial": (while_it_tries, 0.3, 0.3),
}


def live_and_die(folder: Path, sig: signal.Signals, moment: str, seed: int) -> None:
    """One life, ended by *sig* at about that *moment*: how much of it was left, and for how long, is asserted."""
    chance = random.Random(seed)
    reach, seconds, within = MOMENTS[moment]
    save(folder / "app.py", PROGRAM)
    save(folder / "part.py", PART.format(version="v1", seconds=seconds))
    with Script(folder, "app.py", environment={"WSGI_RELOAD_KILL_AFTER": "0.2"}) as script:
        reach(script)
        time.sleep(chance.uniform(0, within))
        script.end(sig)
        ended = time.monotonic()
        left = wait_until(lambda: not script.left() or time.monotonic() - ended > LEFT_AT_MOST, "the end")
        assert left and not script.left(), processes.told(script.left())
        assert list(script.temporary.iterdir()) == []


@pytest.mark.adapters
@pytest.mark.parametrize(
    "sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL], ids=lambda sig: sig.name
)
def test_nothing_outlives_the_supervisor(tmp_path: Path, sig: signal.Signals) -> None:
    """At its start, while the program boots, in a restart and while an import is tried: a second after the end of the
    supervisor no process of it is left, however deaf."""
    moments = [*MOMENTS] * (LIVES // len(MOMENTS))
    with ThreadPoolExecutor(AT_ONCE) as several:
        lives = [
            several.submit(live_and_die, tmp_path / f"{number} {moment}", sig, moment, number * 31 + sig)
            for number, moment in enumerate(moments)
        ]
    for life in lives:
        life.result()


def test_the_private_folder_is_there_only_while_signals_are_caught() -> None:
    """Else a signal in the first moment, or in the last, would leave it behind."""
    code = """
        import signal, sys
        from wsgi_reload_hooks.cli import main as cli; from wsgi_reload_hooks.control import channel as control, runtime_dir as private
        caught = []
        def note(name):
            real = getattr(control, name)
            def noting(*given):
                caught.append((name, signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL))
                return real(*given)
            setattr(control, name, noting)
        note("make_home")
        note("remove_home")
        try:
            cli.main(["run", "true"])
        finally:
            print(caught)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    # A short name: those of sockets are.
    with tempfile.TemporaryDirectory(prefix="wrh-") as folder:
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "TMPDIR": folder, "XDG_RUNTIME_DIR": ""}
        done = subprocess.run(
            command, env=environment, cwd=folder, check=False, capture_output=True, text=True, timeout=30
        )
    assert done.stdout == "[('make_home', True), ('remove_home', True)]\n", done


def test_the_guard_is_not_needed_to_end(tmp_path: Path) -> None:
    """Whoever ends the shell that guards the programs ends nothing else; with the next program there is another one."""
    save(tmp_path / "app.py", PROGRAM)
    part = save(tmp_path / "part.py", PART.format(version="v1", seconds=0))
    save(tmp_path / "go", "")
    with Script(tmp_path, "app.py", environment={"WSGI_RELOAD_KILL_AFTER": "0.1"}) as script:
        script.said("serving v1", 2)
        script.said(WATCHING)
        (shell,) = [pid for pid in processes.children(script.pid) if b"read -r line" in processes.command_line(pid)]
        processes.kill(shell)
        save(part, PART.format(version="v2", seconds=0))
        script.said("serving v2", 2)
        script.end(signal.SIGKILL)
        wait_until(lambda: not script.left(), "nothing is left", LEFT_AT_MOST)


def test_stopped_programs_end_as_well(tmp_path: Path) -> None:
    """A program that is stopped hears no SIGTERM: it is woken for it."""
    save(tmp_path / "app.py", "import time\nprint('serving', flush=True)\ntime.sleep(600)\n")
    with Script(tmp_path, "app.py") as script:
        script.said("serving")
        os.kill(script.program(), signal.SIGSTOP)
        script.end(signal.SIGKILL)
        wait_until(lambda: not script.left(), "nothing is left", LEFT_AT_MOST)


@pytest.fixture
def mark() -> Iterator[str]:
    """A mark for the processes of one test; those that are left are ended."""
    name = f"TEST_MARK={os.getpid()}-{time.monotonic_ns()}"
    yield name
    for pid in processes.marked(name):
        processes.kill(pid)


@pytest.mark.parametrize("when", ["before it is told of", "before the program runs"])
def test_killed_between_fork_and_exec(tmp_path: Path, mark: str, when: str) -> None:
    """A supervisor that is killed while it starts a program leaves no half of one behind."""
    code = f"""
        import os, signal
        from wsgi_reload_hooks.script import guard
        if {when == "before it is told of"}:
            guard.Guard._tell = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        guard.Guard().start(["/bin/sleep", "600"], dict(os.environ), meet=lambda pid: os.kill(os.getpid(), signal.SIGKILL))
    """
    name, _, value = mark.partition("=")
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), name: value}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not processes.marked(mark), "nothing is left", LEFT_AT_MOST)
    assert processes.told(processes.marked(mark)) == []
