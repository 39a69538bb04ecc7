"""What notices changes: an engine that looks (`StatEngine`), and one that is told when to look (`EventEngine`).

Both look with the same scanner at the same files: events decide when, never what. So whatever an event is lost for
(a full queue, a network file system), the next look finds it.
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
    """What `settled` drives: in one thread, by one process."""

    def tick(self, settling: bool = False) -> set[str]:
        """The paths that changed since the last tick. *settling*: changes wait for quiet, so look now."""

    def pause(self) -> float:
        """Seconds until the next tick, if nothing is to be read from `reader` before."""

    def urge(self) -> None:
        """The next tick looks at everything, whatever is due."""

    @property
    def unsure(self) -> bool:
        """Whether only the next tick will tell: a file is gone, and may be on its way."""

    @property
    def reader(self) -> int | None:
        """A file descriptor that is readable when a tick is due at once; None where nobody tells."""

    def describe(self) -> str:
        """How it notices changes, for the log."""

    def close(self) -> None:
        """End what it has started."""

    def leave(self) -> None:
        """In a forked child: let go of it."""


def engine(
    settings: Settings,
    files: Files,
    scanner: Scanner,
    tell: Tell,
    python: Callable[[], str | None] = lambda: sys.executable,
) -> Engine:
    """The engine that *settings* ask for, and this machine has.

    *tell* is called with one line for the log where it is not what one would expect. *python* returns the absolute
    path of an interpreter of this version, or None where there is none.
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
    """watchfiles' own variable, as watchfiles reads it."""
    value = os.environ.get(_FORCED)
    return value is not None and value.lower() not in ("false", "disable", "disabled")
