"""When is a change worth telling? `watch` yields sets of paths, once it is quiet.

An iterator of sets with two words for two times is watchfiles' idea; the loop belongs to whoever drives it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Callable, Optional, Protocol

from .files import Files, loaded_files
from .scanner import Scanner, known_signature
from .settings import Settings


class Engine(Protocol):
    """What notices changes: the stat engine (`Scanner`), or one that is told of events."""

    def tick(self) -> set[str]:
        """The paths that changed since the last tick."""


class Debouncer:
    """Collects changes until none came for *step* seconds, but for *debounce* seconds at most.

    Pure: time comes in as an argument.
    """

    def __init__(self, step: float, debounce: float) -> None:
        self._step = step
        self._debounce = debounce
        self._changes: set[str] = set()
        self._first = self._last = 0.0

    def __bool__(self) -> bool:
        return bool(self._changes)

    def add(self, changes: set[str], now: float) -> None:
        """Take *changes* in, noticed at *now* (seconds of any steady clock)."""
        if changes:
            if not self._changes:
                self._first = now
            self._last = now
            self._changes |= changes

    def wait(self, now: float) -> float:
        """Seconds from *now* until the collected changes are due."""
        return max(0.0, min(self._last + self._step, self._first + self._debounce) - now)

    def take(self, now: float) -> set[str]:
        """The collected changes if they are due at *now*, else an empty set."""
        if not self._changes or self.wait(now) > 0:
            return set()
        due, self._changes = self._changes, set()
        return due


def settled(
    engine: Engine,
    settings: Settings,
    pause: Callable[[float], object],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[set[str]]:
    """Sets of changed paths from *engine*, for ever. *pause* is called with the seconds to wait between two ticks."""
    debouncer = Debouncer(settings.step, settings.debounce)
    while True:
        debouncer.add(engine.tick(), clock())
        due = debouncer.take(clock())
        if due:
            yield due
        pause(debouncer.wait(clock()) if debouncer else settings.interval)


def watch(
    *paths: str, settings: Optional[Settings] = None, stop_event: Optional[threading.Event] = None
) -> Iterator[set[str]]:
    """Yield sets of paths that changed, appeared or vanished, from the first ``next()`` on, until *stop_event* is set.

    *paths* are files; without any, the loaded modules of this process that are ours and the listed extra files.
    *settings*: default `Settings.load()`, which may raise `SettingsError`. Shape and words are watchfiles'.
    """
    settings = settings or Settings.load()
    stop = stop_event or threading.Event()
    engine: Engine
    if paths:
        engine = scanner = Scanner()
        for path in paths:
            scanner.watch(path, known_signature(path))
    else:
        engine = _Loaded(Files(settings))

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise _Stop

    try:
        yield from settled(engine, settings, pause)
    except _Stop:
        return


class _Stop(Exception):
    """The stop event is set."""


class StatEngine:
    """The stat engine over a scanner, with the globs of ``extra_files`` expanded again once a second."""

    def __init__(self, files: Files, scanner: Scanner, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._scanner = scanner
        self._clock = clock
        self._expanded = clock()
        for path in files.extra():
            scanner.watch(path, known_signature(path))

    def tick(self) -> set[str]:
        """What changed; a listed file that appeared is told at the tick after its glob was expanded."""
        changed = self._scanner.tick()
        if self._clock() - self._expanded >= 1.0:
            self._expanded = self._clock()
            for path in self._files.extra():
                self._scanner.watch(path, None)
        return changed


class _Loaded:
    """The stat engine over what this process has loaded by now."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._scanner = Scanner()
        self._engine = StatEngine(files, self._scanner)
        self._modules: list[str] = []
        self._collect()

    def tick(self) -> set[str]:
        changed = self._engine.tick()
        self._collect()
        return changed

    def _collect(self) -> None:
        modules = list(sys.modules)
        if self._modules == modules:
            return
        self._modules = modules
        for path in loaded_files():
            if self._files.ours(path):
                self._scanner.watch(path, known_signature(path))
