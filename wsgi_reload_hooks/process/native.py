"""Provides the system's own threads, locks, waiting and processes, even in a process that gevent has patched."""

from __future__ import annotations

import _thread
import fcntl
import math
import os as _os
import select as _select
import signal as _signal
import sys
import time as _time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Above the numbers that a child is given: moving one descriptor to its number then never overwrites another.
_OUT_OF_THE_WAY = 10


def _original(module: Any, name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched(module.__name__):
        return monkey.get_original(module.__name__, name)
    # Not every system has every name.
    return getattr(module, name, None)


def patched() -> bool:
    """Tell whether gevent has replaced the threads and queues of the standard library."""
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey is not None and (monkey.is_module_patched("threading") or monkey.is_module_patched("queue")))


class Native:
    """Holds the unpatched functions. Make one in the process, and at the moment, that needs them."""

    def __init__(self) -> None:
        self.start_thread = _original(_thread, "start_new_thread")
        self.lock = _original(_thread, "allocate_lock")
        self.get_ident = _original(_thread, "get_ident")
        self.poll = _original(_select, "poll")
        self.sleep = _original(_time, "sleep")
        self.posix_spawn = _original(_os, "posix_spawn")
        self.waitpid = _original(_os, "waitpid")

    def ready(self, readers: Iterable[int], timeout: float, writers: Iterable[int] = ()) -> set[int]:
        """Wait until one of *readers* can be read or one of *writers* written, *timeout* seconds at most. Returns which.

        Not `select`, which knows no number above 1023. A descriptor that is at its end, or closed, counts as ready.
        """
        poll = self.poll()
        for number in readers:
            poll.register(number, _select.POLLIN)
        for number in writers:
            poll.register(number, _select.POLLOUT)
        return {number for number, _ in poll.poll(math.ceil(max(0.0, timeout) * 1000))}

    def spawn(self, command: Sequence[str], environ: Mapping[str, str], places: Sequence[tuple[int, int]]) -> int:
        """Start *command* (an absolute path first) as leader of a process group, with default signals. Returns its pid.

        *places*: (file descriptor here, its number there); those of 0, 1 and 2 that are not given lead nowhere, all
        others are closed. Raises OSError.
        """
        given = {place for _, place in places}
        held: list[int] = []
        try:
            for number, _ in places:
                held.append(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY))
            actions: list[tuple[Any, ...]] = [
                (_os.POSIX_SPAWN_OPEN, place, _os.devnull, _os.O_RDWR, 0) for place in range(3) if place not in given
            ]
            actions += [(_os.POSIX_SPAWN_DUP2, number, place) for number, (_, place) in zip(held, places, strict=False)]
            actions += [
                (_os.POSIX_SPAWN_CLOSE, number) for number in _open_numbers() if number not in given | {0, 1, 2}
            ]
            pid: int = self.posix_spawn(
                command[0],
                list(command),
                dict(environ),
                file_actions=actions,
                setpgroup=0,
                setsigmask=[],
                setsigdef=[each for each in _signal.valid_signals() if each not in (_signal.SIGKILL, _signal.SIGSTOP)],
            )
            return pid
        finally:
            for number in held:
                _os.close(number)


def _open_numbers() -> list[int]:
    """Return the file descriptors that are open in this process."""
    numbers = []
    for name in _os.listdir("/dev/fd"):
        try:
            _os.fstat(int(name))
            numbers.append(int(name))
        except OSError:
            # The listing's own descriptor, or one that another thread has closed.
            continue
    return numbers
