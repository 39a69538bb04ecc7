"""Threads, locks and waiting as the operating system has them, also in a process that gevent has patched."""

from __future__ import annotations

import _thread
import os as _os
import select as _select
import sys
import time as _time
from typing import Any


def _original(module: Any, name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched(module.__name__):
        return monkey.get_original(module.__name__, name)
    # Not every system has every name.
    return getattr(module, name, None)


def patched() -> bool:
    """Whether gevent has put its own threads and queues in place of the real ones."""
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey is not None and (monkey.is_module_patched("threading") or monkey.is_module_patched("queue")))


class Native:
    """The originals as of now: made in the process and at the moment they are needed."""

    def __init__(self) -> None:
        self.start_thread = _original(_thread, "start_new_thread")
        self.lock = _original(_thread, "allocate_lock")
        self.select = _original(_select, "select")
        self.sleep = _original(_time, "sleep")
        self.posix_spawn = _original(_os, "posix_spawn")
        self.waitpid = _original(_os, "waitpid")
