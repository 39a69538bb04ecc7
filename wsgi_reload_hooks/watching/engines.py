"""Chooses the engine that notices changes: `StatEngine` polls, `EventEngine` scans when the kernel reports an event.

Both scan the same files with the same scanner: events decide when, never what. So the next scan finds a change whose
event was lost (a full queue, a network file system).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Protocol

from ..core.settings import Settings
from ..process.native import Native
from .event_engine import EventEngine
from .listener import Listener, extension
from .rules import Files
from .scanner import Scanner
from .stat_engine import StatEngine, Tell

_FORCED = "WATCHFILES_FORCE_POLLING"


class Engine(Protocol):
    """Defines what `settled` calls, in one thread of one process."""

    def tick(self, settling: bool = False) -> set[str]:
        """Return the paths that changed since the last tick. *settling*: changes wait for quiet, so scan now."""

    def pause(self) -> float:
        """Return the seconds until the next tick, unless `reader` becomes readable before."""

    def urge(self) -> None:
        """Have the next tick scan everything, whatever is due."""

    @property
    def unsure(self) -> bool:
        """Tell whether only the next tick can decide: a file is gone, perhaps only while it is being saved."""

    @property
    def reader(self) -> int | None:
        """Return a file descriptor that is readable when a tick is due at once; None if the engine only polls."""

    def describe(self) -> str:
        """Return how the engine notices changes, for the log."""

    def close(self) -> None:
        """Stop what the engine has started."""

    def leave(self) -> None:
        """Close the engine's descriptors in a forked child."""


def engine(
    settings: Settings,
    files: Files,
    scanner: Scanner,
    tell: Tell,
    python: Callable[[], str | None] = lambda: sys.executable,
) -> Engine:
    """Make the engine that *settings* ask for and this machine supports.

    *tell* is called with one line for the log if the engine is not the expected one. *python* returns the absolute
    path of an interpreter of this version, or None if there is none.
    """
    stat = StatEngine(settings, files, scanner, tell)
    module = extension()
    if settings.engine == "stat" or module is None or _polling_is_forced():
        return stat
    executable = python()
    if executable is None:
        return stat
    try:
        listener = Listener(executable, module, Native())
    except OSError as error:
        tell(f"no process for watchfiles can be had ({error.strerror}): {stat.describe()}")
        return stat
    return EventEngine(stat, files, scanner, listener, tell)


def _polling_is_forced() -> bool:
    """Tell whether watchfiles' own environment variable asks for polling, read as watchfiles reads it."""
    value = os.environ.get(_FORCED)
    return value is not None and value.lower() not in ("false", "disable", "disabled")
