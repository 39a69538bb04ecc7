"""The guard: how a program is started, and that nothing outlives whoever started it."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from edits import PACKAGE_ROOT
from harness import processes, wait_until

from wsgi_reload_hooks.script.guard import Guard

pytestmark = pytest.mark.unit

SURROUNDINGS = """\
import os, signal, sys
print({
    "numbers": sorted(int(n) for n in os.listdir("/dev/fd") if os.path.exists("/dev/fd/" + n)),
    "group": os.getpgrp() == os.getpid(),
    "mask": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "term": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
    "hup": signal.getsignal(signal.SIGHUP) is signal.SIG_IGN,
    "usr1": signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL,
    "listen": (os.environ.get("LISTEN_FDS"), os.environ.get("LISTEN_PID") == str(os.getpid())),
    "argv": sys.argv[1:],
})
"""


@pytest.fixture
def guard() -> Iterator[Guard]:
    """A guard, and afterwards none of the programs it has started."""
    guard = Guard()
    yield guard
    for pid in list(guard._groups):
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        guard.forget(pid)
    guard.close()


def ended(guard: Guard, pid: int) -> int:
    """How the program ended."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    guard.forget(pid)
    return status


def shell_of(guard: Guard) -> int:
    """The process that watches over the programs."""
    return guard._pid


def is_inheritable(number: int) -> bool:
    """Whether a program that we start has it, too."""
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


def surroundings(guard: Guard, *arguments: str, **more: Any) -> dict[str, Any]:
    """What a program finds around it."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    code = (
        SURROUNDINGS.replace("print(", "told = str(").replace("})\n", "})\n") + f"os.write({writing}, told.encode())\n"
    )
    try:
        pid = guard.start([sys.executable, "-c", code, *arguments], dict(os.environ), **more)
        os.close(writing)
        writing = -1
        with os.fdopen(reading) as told:
            found: dict[str, Any] = ast.literal_eval(told.read())
        assert ended(guard, pid) == 0
        return found
    finally:
        if writing >= 0:
            os.close(writing)


def test_surroundings(guard: Guard) -> None:
    """A program heads a group of its own, with no signal blocked or ignored, and none of our files but the inheritable."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        found = surroundings(guard, "a b", "")
        assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert found["group"] and found["mask"] == [] and found["term"] and found["usr1"]
    assert found["argv"] == ["a b", ""] and found["listen"] == (None, False)
    inherited = {number for number in processes.numbers(os.getpid()) if number > 2 and is_inheritable(number)}
    # And the one that tells.
    assert len(set(found["numbers"]) - inherited) == 4


def test_places(guard: Guard) -> None:
    """Descriptors arrive where they are asked to, also where one stands in another one's place; sockets are announced."""
    numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    try:
        found = surroundings(guard, places=[(numbers[0], 3), (numbers[1], 4), (numbers[2], 9)], listening=2)
    finally:
        for number in numbers:
            os.close(number)
    assert {3, 4, 9} <= set(found["numbers"]) and found["listen"] == ("2", True)


def test_ignored_signals_stay_ignored() -> None:
    """What is ignored from before our time is ignored by the program; what we have set later is not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    guard = Guard()
    later = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        found = surroundings(guard)
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGUSR1, later)
        guard.close()
    assert found["hup"] and found["usr1"]


@pytest.mark.parametrize(
    ("command", "error"),
    [(["/no/such"], FileNotFoundError), (["/"], PermissionError), (["/dev/null"], PermissionError)],
)
def test_what_cannot_be_run(guard: Guard, command: Sequence[str], error: type[OSError]) -> None:
    """What cannot be run is an OSError with the name of the program, and leaves neither a process nor an open file."""
    open_before = processes.open_files(os.getpid())
    with pytest.raises(error) as found:
        guard.start(command, {})
    assert found.value.filename == command[0]
    assert guard._groups == [] and processes.open_files(os.getpid()) == open_before
    # The guard's shell is the only child there may be, and lives.
    assert os.waitpid(-1, os.WNOHANG) == (0, 0)


def test_no_more_processes(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no process for us, nothing stays open, and signals arrive as before."""

    def fork() -> int:
        raise BlockingIOError("no more")

    open_before = processes.open_files(os.getpid())
    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(BlockingIOError):
        guard.start(["/bin/true"], {})
    assert processes.open_files(os.getpid()) == open_before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_killed_before_it_runs(guard: Guard) -> None:
    """A program that is killed before its first instruction is one that has ended."""

    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not processes.alive(pid), "it is dead")

    pid = guard.start(["/bin/sleep", "600"], {}, meet=kill)
    assert ended(guard, pid) == -signal.SIGKILL


def test_interrupted_before_it_runs(guard: Guard) -> None:
    """A signal that comes before the program runs is the program's: Ctrl-C is not lost in between, nor ours."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        pid = guard.start(["/bin/sleep", "600"], {}, meet=lambda pid: os.kill(pid, signal.SIGINT))
        assert ended(guard, pid) == -signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


def test_shell_that_was_ended(guard: Guard) -> None:
    """Somebody ends the shell: with the next program there is another one, which knows of all of them."""
    first = guard.start(["/bin/sleep", "600"], {})
    shell = shell_of(guard)
    processes.kill(shell)
    wait_until(lambda: not processes.alive(shell), "the shell is gone")
    second = guard.start(["/bin/sleep", "600"], {})
    assert shell_of(guard) != shell and processes.alive(shell_of(guard))
    assert guard._groups == [first, second]


def test_closed_without_a_word(guard: Guard) -> None:
    """Closing ends the shell and not the programs."""
    other = Guard()
    pid = other.start(["/bin/sleep", "600"], {})
    other.close()
    assert not processes.alive(shell_of(other)) and processes.alive(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
@pytest.mark.parametrize("program", ["sleep 600", "trap '' TERM HUP; sleep 600 & sleep 600", "kill -s STOP $$"])
def test_nothing_outlives_us(tmp_path: Path, end: str, program: str) -> None:
    """With us end all programs: those that ignore SIGTERM, their children, and those that are stopped."""
    code = f"""
        import os, signal, time
        from wsgi_reload_hooks.script.guard import Guard
        guard = Guard()
        for _ in range(2):
            print(guard.start(["/bin/sh", "-c", {program!r}], dict(os.environ)), flush=True)
        time.sleep(0.2)
        {end}
    """
    with (tmp_path / "told").open("wb") as told:
        # No pipe: somebody who is left would keep us waiting for its end.
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
            stdout=told,
            timeout=30,
            check=False,
        )
    assert done.returncode in (0, -signal.SIGKILL)
    groups = [int(line) for line in (tmp_path / "told").read_text().split()]
    assert len(groups) == 2
    wait_until(lambda: not any(map(group_lives, groups)), "all are gone")


def group_lives(group: int) -> bool:
    """Whether anybody of it lives; zombies do not."""
    return any(processes.group(pid) == group and processes.alive(pid) for pid in processes.all_of_them())
