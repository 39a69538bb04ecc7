"""Defines `watch()`, an iterator of sets of changed paths with watchfiles' parameters."""

from __future__ import annotations

import dataclasses
import logging
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from ..core.settings import Settings
from ..watching.checkout import Checkout
from ..watching.debounce import Debouncer, settled
from ..watching.engines import Engine, engine
from ..watching.modules import loaded_files
from ..watching.rules import Files
from ..watching.scanner import Scanner
from ..watching.signature import MISSING, Digest, Digests, known_signature

_GLANCE = 0.05


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
    driven = engine(settings, files, scanner, logging.getLogger("wsgi_reload_hooks").warning)
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
