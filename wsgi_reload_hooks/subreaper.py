"""What only Linux does for a process: its family's orphans become its own children; a name of its own for `ps`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def available() -> bool:
    """Whether `adopt` works here."""
    # Asked, not tried: it may be on.
    return sys.platform == "linux" and _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(ctypes.c_int()))


def adopt(on: bool) -> None:
    """Whether the orphans of this process's family are to become its children, from now on."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(on))


def end_with(parent: int) -> None:
    """Have this process killed when its *parent* ends, however that is. To be called after a change of user."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def name() -> bytes:
    """The name of this process, as `ps -o comm` shows it."""
    with open("/proc/self/comm", "rb") as file:
        return file.read().rstrip(b"\n")


def rename(to: bytes) -> None:
    """Have this process shown by another name, of 15 bytes at most."""
    _prctl(_PR_SET_NAME, to)


def _prctl(option: int, value: Any) -> bool:
    try:
        status: int = ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return status == 0
