"""Waits until a burst of changes is over.

The iterator of sets, and its two times *step* and *debounce*, are watchfiles' idea; the loop belongs to the caller."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator

from .engines import Engine

_UNFINISHED_AT_MOST = 10.0

# Seconds: the resolution of file system clocks.
_COARSE = 0.01


class Debouncer:
    """Collects changes until none came for *step* seconds, but for *debounce* seconds at most.

    *unfinished* is called with the seconds since the last change; while it returns true, changes wait, for ten seconds
    at most. Pure: time is an argument.
    """

    def __init__(self, step: float, debounce: float, unfinished: Callable[[float], bool] = lambda quiet: False) -> None:
        self._step = step
        self._debounce = debounce
        self._unfinished = unfinished
        self._changes: set[str] = set()
        self._first = self._last = self._not_before = 0.0

    def __bool__(self) -> bool:
        return bool(self._changes)

    def add(self, changes: set[str], now: float, age: float = 0.0) -> None:
        """Add *changes*, noticed at *now* (seconds of any steady clock), *age* seconds after the last of them."""
        if changes:
            if not self._changes:
                self._first = now - age
                self._last = self._not_before = now - age
            self._last = max(self._last, now - age)
            self._changes |= changes

    def wait(self, now: float) -> float:
        """Return the seconds from *now* until the collected changes are due."""
        due = max(min(self._last + self._step, self._first + self._debounce), self._not_before)
        return max(0.0, due - now)

    def take(self, now: float) -> set[str]:
        """Return the collected changes if they are due at *now*, else an empty set."""
        if not self._changes or self.wait(now) > 0:
            return set()
        if now - self._first < _UNFINISHED_AT_MOST and self._unfinished(now - self._last):
            self._not_before = min(now + self._step, self._first + _UNFINISHED_AT_MOST)
            return set()
        due, self._changes = self._changes, set()
        return due


def age(paths: Iterable[str], at_most: float, now: float | None = None) -> float:
    """Return the seconds since the last change of *paths*, by the file system's times; 0 if they do not tell.

    The quiet time starts at the save, not at the scan that found it. *at_most*: seconds since the scan before.
    *now*: seconds since the epoch.
    """
    now = time.time() if now is None else now
    youngest = at_most
    for path in paths:
        try:
            since = now - os.stat(path).st_ctime
        except (OSError, ValueError):
            return 0.0
        # Otherwise a link or folder in the path changed, not the file; or another machine's clock set the time.
        youngest = min(youngest, since) if 0 <= since <= at_most + _COARSE else 0.0
    return max(0.0, youngest)


class ScanRequests:
    """Counts requests for a scan of all files, whatever events the engine has received. Other threads may request."""

    def __init__(self) -> None:
        self._ordered = 0
        self.done = 0
        """The number of the last scan whose changes were all yielded."""

    def order(self) -> int:
        """Request a scan. Returns its number."""
        self._ordered += 1
        return self._ordered

    @property
    def due(self) -> bool:
        """Tell whether a requested scan is not done."""
        return self._ordered > self.done

    def begin(self, engine: Engine) -> int:
        """Have the next tick of *engine* scan everything if a scan is due. Returns the argument *ordered* of `end`."""
        # Read once: another thread may request one more scan now, which this tick may not cover.
        ordered = self._ordered
        if ordered > self.done:
            engine.urge()
        return ordered

    def end(self, engine: Engine, ordered: int, more: bool) -> None:
        """Record that tick as done. *more*: changes still wait for the end of their burst."""
        if not more and not engine.unsure:
            self.done = ordered


class Noticing:
    """Asks *engine* for changes, a `look` at a time, and keeps them in *debouncer* until their burst is over."""

    def __init__(
        self,
        engine: Engine,
        debouncer: Debouncer,
        scans: ScanRequests | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self.debouncer = debouncer
        self._scans = scans or ScanRequests()
        self._clock = clock
        self.saved_at = clock()
        """When the last change that was found was saved, by *clock*."""
        self._looked = self.saved_at
        self._ordered = 0

    def look(self) -> set[str]:
        """Return the paths whose burst is over by now. `taken` is called when they are handled."""
        self._ordered = self._scans.begin(self.engine)
        found = self.engine.tick(bool(self.debouncer))
        now = self._clock()
        if found:
            since = age(found, now - self._looked)
            self.debouncer.add(found, now, since)
            self.saved_at = now - since
        self._looked = now
        return self.debouncer.take(self._clock())

    def taken(self) -> None:
        """Record that the changes of the last `look` are handled: the scan that was requested before it is done."""
        self._scans.end(self.engine, self._ordered, bool(self.debouncer))

    def wait(self) -> float:
        """Return the seconds until the next `look` is due."""
        return self.debouncer.wait(self._clock()) if self.debouncer else self.engine.pause()


def settled(
    engine: Engine,
    debouncer: Debouncer,
    pause: Callable[[float], object],
    clock: Callable[[], float] = time.monotonic,
    scans: ScanRequests | None = None,
) -> Iterator[set[str]]:
    """Yield sets of changed paths from *engine*, for ever. *pause* is called with the seconds to wait between ticks."""
    noticing = Noticing(engine, debouncer, scans, clock)
    while True:
        due = noticing.look()
        if due:
            yield due
        # After the yield: a caller that sees the number has received the changes.
        noticing.taken()
        pause(noticing.wait())
