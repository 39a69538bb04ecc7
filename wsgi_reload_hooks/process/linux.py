"""Makes Linux's own process calls: adopts orphans, ends with the parent, renames a process, drops clean file pages."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any

NO_ORPHANS = "WSGI_NO_ORPHANS"
"""Name of the environment variable with the pid of a server whose workers are killed when it ends, however it ends."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_MADV_DONTNEED = 4
# A file that is mapped for this process alone, and not to be written to.
_FILE = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ [0-9a-f:]+ [1-9]")


def available() -> bool:
    """Tell whether `adopt` works here."""
    # Read the flag instead of setting it: it may be on already.
    return sys.platform == "linux" and _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(ctypes.c_int()))


def adopt(on: bool) -> None:
    """Make this process a child subreaper (or undo it): orphans among its descendants then become its children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(on))


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its *parent* ends in any way. Call it after a change of user."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def name() -> bytes:
    """Return the name of this process, as `ps -o comm` shows it."""
    with open("/proc/self/comm", "rb") as file:
        return file.read().rstrip(b"\n")


def rename(to: bytes) -> None:
    """Set the name of this process, 15 bytes at most."""
    _prctl(_PR_SET_NAME, to)


def forget_files() -> None:
    """Drop the pages of files that this process only reads; the kernel maps a page again when it is used.
    Called before a long wait. Forked children start without these pages too, so keeping them helps no child.
    """
    if len(sys._current_frames()) > 1:
        # Another thread could map something else at such an address meanwhile.
        return
    try:
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        with open("/proc/self/smaps", "rb") as file:
            for start, end in _only_read(file):
                advise(start, end - start, _MADV_DONTNEED)
    except (OSError, AttributeError):
        return


def _only_read(smaps: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """Yield where files are mapped that were never written to: no pages that the loader has relocated."""
    place: tuple[int, int] | None = None
    for line in smaps:
        name, _, value = line.partition(b":")
        if name == b"Anonymous":
            if place is not None and value.split()[:1] == [b"0"]:
                yield place
        elif not name[:1].isupper():
            # The first line of the next mapping: two addresses in lower-case hexadecimal.
            found = _FILE.match(line)
            place = None if found is None else (int(found[1], 16), int(found[2], 16))


def _prctl(option: int, value: Any) -> bool:
    try:
        status: int = ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return status == 0
