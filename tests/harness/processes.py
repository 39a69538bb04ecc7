"""Which processes belong to a server, as the kernel tells it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

PROC = Path("/proc")


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir(PROC) if entry.isdigit()]


def _state_and_parent(pid: int) -> tuple[str, int] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[1])


def alive(pid: int) -> bool:
    """A zombie is not alive."""
    found = _state_and_parent(pid)
    return found is not None and found[0] not in "ZX"


def children(pid: int) -> list[int]:
    """The living children, sorted."""
    found = []
    for other in _pids():
        answer = _state_and_parent(other)
        if answer is not None and answer[1] == pid and answer[0] not in "ZX":
            found.append(other)
    return sorted(found)


def is_listener(pid: int) -> bool:
    """Whether it is what listens for events: no worker."""
    try:
        return b"/ear.py\0" in (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


def marked(mark: str) -> list[int]:
    """The living processes that inherited `mark` in their environment, orphans too."""
    wanted = mark.encode()
    found = []
    for pid in _pids():
        try:
            environment = (PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0") and alive(pid):
            found.append(pid)
    return sorted(found)


def told(pids: list[int]) -> list[str]:
    """What they are, for somebody who did not expect them; one that ended meanwhile is still told."""
    found = []
    for pid in pids:
        try:
            command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            command = "gone by now"
        answer = _state_and_parent(pid)
        found.append(f"{pid}, child of {answer[1] if answer else '?'}: {command}")
    return found


def open_files(pid: int) -> int:
    """How many file descriptors the process has."""
    return len(os.listdir(PROC / str(pid) / "fd"))


def resident_kb(pid: int) -> int:
    """The memory that is the process's own, without what it shares with its children."""
    total = 0
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Anonymous":
            total += int(rest.split()[0])
    return total


def kill(pid: int, sig: int = signal.SIGKILL) -> None:
    """Send a signal; a process that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sig)
