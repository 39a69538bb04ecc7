"""Looks processes up by pid: command line, owner, age and children, from /proc or from `ps`."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from ..core.text import printable

_PARENTS_AT_MOST = 100

_PS_AT_MOST = 5.0

_PS = re.compile(r"(\S+)\s+(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)\s+(\d+)\s+(\d+)\s+(.*)")

_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


class Process(NamedTuple):
    """Describes a process, as the system does."""

    pid: int
    name: str
    """The program, rather than the interpreter that runs it."""
    parent: int
    age: float
    """Seconds since it started."""
    users: frozenset[int]
    ended: bool
    """Whether it has ended, and its parent has not reaped it."""
    heeds: int | None = None
    """A bit for each signal that it catches or takes in its own way; None where the system does not tell."""
    started: int | None = None
    """When it started, by a clock that cannot be set; None if the system does not tell."""
    ignores: int = 0
    """A bit for each signal that it ignores, as far as the system tells."""

    def __str__(self) -> str:
        return f"{self.pid} ({self.name})"


def process(pid: int) -> Process | None:
    """Look up *pid*; None if there is no such process or the system does not describe it."""
    return from_proc(pid) or from_ps(pid)


def from_proc(pid: int) -> Process | None:
    """Look up *pid* in Linux's /proc."""
    if sys.platform != "linux":
        return None
    try:
        fields = _stat(pid)
        status = dict(line.split(":", 1) for line in _contents(pid, "status").decode(errors="replace").splitlines())
        command = _contents(pid, "cmdline").split(b"\0")
    except OSError:
        return None
    if int(status["Tgid"]) != pid:
        # The number of a thread. To signal it would signal the process that it is a part of.
        return None
    # Not from the time of day: that may have been set since.
    started = int(fields[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    return Process(
        pid=pid,
        name=_program(status["Name"].strip(), [os.fsdecode(word) for word in command]),
        parent=int(fields[1]),
        age=age,
        users=frozenset(map(int, status["Uid"].split())),
        ended=fields[0] in (b"Z", b"X"),
        heeds=int(status["SigCgt"], 16) | int(status["SigBlk"], 16),
        started=started,
        ignores=int(status["SigIgn"], 16),
    )


def from_ps(pid: int) -> Process | None:
    """Look up *pid* with `ps` on other systems; the age is rounded up to a second."""
    columns = [word for name in ("stat", "etime", "uid", "ppid", "comm") for word in ("-o", f"{name}=")]
    try:
        answer = subprocess.run(
            ["ps", *columns, "-p", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PS_AT_MOST,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _PS.match(answer.stdout.decode(errors="replace").strip())
    if found is None:
        return None
    state, days, hours, minutes, seconds, user, parent, command = found.groups()
    return Process(
        pid=pid,
        name=printable(os.path.basename(command.partition(" <")[0])),
        parent=int(parent),
        age=((int(days or 0) * 24 + int(hours or 0)) * 60 + int(minutes)) * 60 + float(seconds) + 1.0,
        users=frozenset({int(user)}),
        ended=state.startswith("Z"),
    )


def children_of(pid: int) -> Iterator[Process]:
    """Yield the living children of *pid* on Linux; not every kernel has a list of them."""
    if sys.platform != "linux":
        return
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            # Most are not, and the rest takes longer to read.
            if name.isdigit() and int(_stat(int(name))[1]) == pid:
                found = from_proc(int(name))
                if found is not None and not found.ended:
                    yield found


def _stat(pid: int) -> list[bytes]:
    """The fields behind its name, which may have any characters: its state, its parent..."""
    return _contents(pid, "stat").rpartition(b")")[2].split()


def _contents(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def _program(name: str, command: list[str]) -> str:
    """What users call it: of an interpreter, the script or the module that it runs."""
    if not name.startswith("python"):
        return printable(name)
    words = iter(command[1:])
    for word in words:
        if word == "-m":
            return printable(next(words, name))
        if word in _WITH_VALUE:
            next(words, None)
        elif word and not word.startswith("-"):
            return printable(os.path.basename(word))
        elif word.startswith("-c"):
            break
    return printable(name)


def own_ancestors() -> Iterator[int]:
    """Yield the pids of this process and of its ancestors."""
    yield os.getpid()
    pid = os.getppid()
    for _ in range(_PARENTS_AT_MOST):
        yield pid
        found = process(pid) if pid > 1 else None
        if found is None:
            return
        pid = found.parent
