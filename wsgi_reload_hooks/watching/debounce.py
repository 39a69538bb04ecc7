"""Waits until a burst of changes is over.

An iterator of sets with two words for two times is watchfiles' idea; the loop belongs to the caller."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator

from .engines import Engine

_UNFINISHED_AT_MOST = 10.0

# The clocks of file systems tick that coarsely.
_COARSE = 0.01


class Debouncer:
    """Collects changes until none came for *step* seconds, but for *debounce* seconds at most.

    *unfinished*: whether more is to come, asked with the seconds for which it has been quiet; while it says so, changes
    wait on, for ten seconds at most. Pure: time comes in as an argument.
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
        """Take *changes* in, noticed at *now* (seconds of any steady clock), *age* seconds after the last of them."""
        if changes:
            if not self._changes:
                self._first = now - age
                self._last = self._not_before = now - age
            self._last = max(self._last, now - age)
            self._changes |= changes

    def wait(self, now: float) -> float:
        """Seconds from *now* until the collected changes are due."""
        due = max(min(self._last + self._step, self._first + self._debounce), self._not_before)
        return max(0.0, due - now)

    def take(self, now: float) -> set[str]:
        """The collected changes if they are due at *now*, else an empty set."""
        if not self._changes or self.wait(now) > 0:
            return set()
        if now - self._first < _UNFINISHED_AT_MOST and self._unfinished(now - self._last):
            self._not_before = min(now + self._step, self._first + _UNFINISHED_AT_MOST)
            return set()
        due, self._changes = self._changes, set()
        return due


def age(paths: Iterable[str], at_most: float, now: float | None = None) -> float:
    """Seconds since the last change of *paths* as the file system has it: 0 where it does not tell.

    Quiet counts from the save, not from the look that found it. *at_most*: no look was longer ago. *now*: seconds
    since the epoch.
    """
    now = time.time() if now is None else now
    youngest = at_most
    for path in paths:
        try:
            since = now - os.stat(path).st_ctime
        except (OSError, ValueError):
            return 0.0
        # Otherwise the file has not changed, but the way to it; or its clock is that of another machine.
        youngest = min(youngest, since) if 0 <= since <= at_most + _COARSE else 0.0
    return max(0.0, youngest)


class ScanRequests:
    """Looks that are ordered from elsewhere, each with a number: at all files at once, whatever the engine has heard."""

    def __init__(self) -> None:
        self._ordered = 0
        self.done = 0
        """The number of the last one of which everything is told."""

    def order(self) -> int:
        """Have one made; its number."""
        self._ordered += 1
        return self._ordered

    @property
    def due(self) -> bool:
        """Whether one is ordered that is not done."""
        return self._ordered > self.done

    def begin(self, engine: Engine) -> int:
        """To be called before a tick of *engine*. What to give to `end` after it."""
        # Once: another thread may order one more at this moment, which this tick may not be.
        ordered = self._ordered
        if ordered > self.done:
            engine.urge()
        return ordered

    def end(self, engine: Engine, ordered: int, more: bool) -> None:
        """To be called after that tick. *more*: changes wait for quiet."""
        if not more and not engine.unsure:
            self.done = ordered


def settled(
    engine: Engine,
    debouncer: Debouncer,
    pause: Callable[[float], object],
    clock: Callable[[], float] = time.monotonic,
    looks: ScanRequests | None = None,
) -> Iterator[set[str]]:
    """Sets of changed paths from *engine*, for ever. *pause* is called with the seconds to wait between two ticks."""
    looked = clock()
    looks = looks or ScanRequests()
    while True:
        ordered = looks.begin(engine)
        changed = engine.tick(bool(debouncer))
        now = clock()
        if changed:
            debouncer.add(changed, now, age(changed, now - looked))
        looked = now
        due = debouncer.take(clock())
        if due:
            yield due
        # Only now: whoever sees the number knows of what was found.
        looks.end(engine, ordered, bool(debouncer))
        pause(debouncer.wait(clock()) if debouncer else engine.pause())
