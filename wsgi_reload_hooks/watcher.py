"""When is a change worth telling? `watch` yields sets of paths, once it is quiet.

An iterator of sets with two words for two times is watchfiles' idea; the loop belongs to whoever drives it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from .checkout import Checkout
from .engines import Engine, engine
from .files import Files, loaded_files
from .scanner import MISSING, Digest, Digests, Scanner, known_signature
from .settings import Settings

_UNFINISHED_AT_MOST = 10.0
_GLANCE = 0.05
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


class Looks:
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
    looks: Looks | None = None,
) -> Iterator[set[str]]:
    """Sets of changed paths from *engine*, for ever. *pause* is called with the seconds to wait between two ticks."""
    looked = clock()
    looks = looks or Looks()
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


def watch(
    *paths: str, settings: Settings | None = None, stop_event: threading.Event | None = None
) -> Iterator[set[str]]:
    """Yield sets of paths that changed, appeared or vanished, from the first ``next()`` on, until *stop_event* is set.

    *paths* are files; without any, the loaded modules of this process that are ours and the listed extra files. A
    file whose content is as it was told last (a touch, an edit and its undoing) is not told.
    *settings*: default `Settings.load()`, which may raise `SettingsError`. Shape and words are watchfiles'.
    """
    settings = settings or Settings.load()
    stop = stop_event or threading.Event()
    files = Files(settings if not paths else dataclasses.replace(settings, extra_files=()))
    scanner = Scanner()
    collect = _Collector(files, scanner) if not paths else lambda: None
    for path in paths:
        scanner.watch(path, known_signature(path))
    driven = engine(settings, files, scanner, logging.getLogger(__package__).warning)
    debouncer = Debouncer(settings.step, settings.debounce, Checkout(files.root).unfinished)
    contents = _Contents(scanner)
    try:
        for due in settled(driven, debouncer, lambda seconds: _pause(driven, stop, seconds, collect)):
            news = contents.news(due)
            if news:
                yield news
    except _Stop:
        return
    finally:
        driven.close()


def _pause(driven: Engine, stop: threading.Event, seconds: float, meanwhile: Callable[[], object]) -> None:
    """Wait *seconds*, or until *driven* has something to read; look at *stop* now and then, as watchfiles does."""
    until = time.monotonic() + seconds
    while not stop.is_set():
        meanwhile()
        left = min(_GLANCE, until - time.monotonic(), driven.pause())
        if left <= 0:
            return
        if driven.reader is None:
            stop.wait(left)
        elif select.select([driven.reader], [], [], left)[0]:
            return
    raise _Stop


class _Contents:
    """The contents that were told last of what *scanner* watches, at first those of now."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._digests = Digests()
        self._told: dict[str, Digest] = {}
        self._remember()

    def news(self, paths: Iterable[str]) -> set[str]:
        """Those of *paths* that are not as they were told. They count as told from now on."""
        found = {path: self._digests.now(path) for path in paths}
        news = {path for path, content in found.items() if self._told.get(path, MISSING) != content}
        self._told.update(found)
        self._remember()
        return news

    def _remember(self) -> None:
        for path in self._scanner.watched()[0]:
            if path not in self._told:
                self._told[path] = self._digests.now(path)


class _Stop(Exception):
    """The stop event is set."""


class _Collector:
    """Has *scanner* watch what this process has loaded by now, each time it is called."""

    def __init__(self, files: Files, scanner: Scanner) -> None:
        self._files = files
        self._scanner = scanner
        self._modules: list[str] = []
        self()

    def __call__(self) -> None:
        modules = list(sys.modules)
        if self._modules == modules:
            return
        self._modules = modules
        for path in loaded_files():
            if self._files.ours(path):
                self._scanner.watch(path, known_signature(path))
