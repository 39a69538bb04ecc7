"""Which processes belong to a server, as the kernel tells it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

PROC = Path("/proc")


def all_of_them() -> list[int]:
    """Of the whole machine."""
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


def state(pid: int) -> str:
    """The letter of its state: T for one that is stopped; empty when it is gone."""
    found = _state_and_parent(pid)
    return "" if found is None else found[0]


def children(pid: int) -> list[int]:
    """The living children, sorted."""
    found = []
    for other in all_of_them():
        answer = _state_and_parent(other)
        if answer is not None and answer[1] == pid and answer[0] not in "ZX":
            found.append(other)
    return sorted(found)


def offspring(pid: int) -> set[int]:
    """The children, with those that are dead and that nobody has asked for yet."""
    found = ((other, _state_and_parent(other)) for other in all_of_them())
    return {other for other, answer in found if answer is not None and answer[1] == pid}


def is_helper(pid: int) -> bool:
    """Whether it is what listens for events, a zygote, or what tells of an event: no worker."""
    return (
        is_listener(pid)
        or is_zygote(pid)
        or any(program in command_line(pid) for program in (b"/callback_main.py\0", b"/helper_main.py\0"))
    )


def is_listener(pid: int) -> bool:
    """Whether it is what listens for events: no worker."""
    return b"/listener_main.py\0" in command_line(pid)


def command_line(pid: int) -> bytes:
    """The words of its command, each with a zero behind it; empty when it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def born(pid: int) -> int:
    """When it began: with its number, what tells it from all others; 0 when it is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def cpu_seconds(pid: int) -> float:
    """The CPU time that it has used so far."""
    fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sleeps(pid: int) -> int:
    """How often it has waited for something so far: a loop that wakes up again and again has a large number."""
    status = (PROC / str(pid) / "status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("voluntary_ctxt_switches")))


def is_pending(pid: int, sig: signal.Signals) -> bool:
    """Whether a signal that was sent to it still waits to be taken: a second one would be lost."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return False
    return any(
        int(line.split()[1], 16) >> (sig - 1) & 1
        for line in status.splitlines()
        if line.startswith(("SigPnd", "ShdPnd"))
    )


def group(pid: int) -> int:
    """Its process group; 0 when it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def is_zygote(pid: int) -> bool:
    """Whether it is what forks gunicorn's workers."""
    try:
        return (PROC / str(pid) / "comm").read_bytes() == b"gunicorn zygote\n"
    except OSError:
        return False


def marked(mark: str) -> list[int]:
    """The living processes that inherited `mark` in their environment, orphans too."""
    wanted = mark.encode()
    found = []
    for pid in all_of_them():
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
        command = command_line(pid).replace(b"\0", b" ").decode(errors="replace").strip() or "gone by now"
        answer = _state_and_parent(pid)
        found.append(f"{pid}, child of {answer[1] if answer else '?'}: {command}")
    return found


def numbers(pid: int) -> list[int]:
    """The file descriptors that the process has."""
    return [int(name) for name in os.listdir(PROC / str(pid) / "fd")]


def open_files(pid: int) -> int:
    """How many file descriptors the process has."""
    return len(numbers(pid))


def resident_kb(pid: int) -> int:
    """The memory that is the process's own, without what it shares with its children."""
    return memory_kb(pid, "Anonymous")


def memory_kb(pid: int, *names: str) -> int:
    """The sum of these kinds of its memory, as `smaps_rollup` names them: `Pss` is that with its part of what is shared."""
    total = 0
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in names:
            total += int(rest.split()[0])
    return total


def kill(pid: int, sig: int = signal.SIGKILL) -> None:
    """Send a signal; a process that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sig)
