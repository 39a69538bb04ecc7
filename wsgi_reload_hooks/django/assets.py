"""Watches files that workers cache but do not load as code: translations and templates of Django.

It runs in the process that watches: workers report which folders matter, and when a file in them has changed it raises
a counter (`Generation`). Resetting both without a restart is an idea of Django's own development server.
"""

from __future__ import annotations

import gettext
import io
import os
from collections.abc import Mapping
from typing import Any

from ..core.log import ReloadLog
from ..core.refusal import Refusal
from ..core.text import under
from ..process.counters import KINDS, TRANSLATIONS, Generation
from ..process.safe_read import safe_read
from ..watching.rules import ASSETS_AT_MOST, Files
from ..watching.scanner import Scanner
from ..watching.signature import MISSING, UNKNOWN, Digest, Digests, known_signature

_REFUSED = "translations refused, the previous ones stay"
# A larger file is not checked as a whole.
_READ_AT_MOST = 16 * 1024 * 1024
_MAGIC = (b"\xde\x12\x04\x95", b"\x95\x04\x12\xde")
# Seconds: the resolution of file system clocks.
_COARSE = 0.02


class Assets:
    """Keeps which contents of these files workers may have cached since their last reset.

    For one thread: the one that runs the reload loop.
    """

    def __init__(self, files: Files, scanner: Scanner, journal: ReloadLog, generation: Generation) -> None:
        self._files = files
        self._scanner = scanner
        self._journal = journal
        self._generation = generation
        self._digests = Digests()
        self._served: dict[str, Digest] = {}
        self._pending: set[str] = set()
        self._told: tuple[str | None, str] | None = None
        self._told_many = False

    def heard(self, folders: Mapping[str, Any], since: float) -> None:
        """Record that a worker started at *since* (seconds since the epoch) caches files of *folders*, by kind."""
        new = [
            folder
            for kind in KINDS
            for folder in self._files.add_assets(kind, [each for each in folders.get(kind, ()) if os.path.isabs(each)])
        ]
        if new:
            # A folder without files has to be watched too.
            self._scanner.generation += 1
        young: dict[str, set[str]] = {kind: set() for kind in KINDS}
        paths = self._files.assets()
        for path in paths:
            if path not in self._served and not any(under(path, folder) for folder in new):
                # A new file: the scanner is about to report it, and then all workers reset.
                continue
            found = known_signature(path)
            content = self._digests.at(path, found)
            self._scanner.watch(path, found)
            # The scanner is about to report a file that differs.
            if self._served.setdefault(path, content) == content and _is_younger(path, since):
                young[self._files.asset_kind(path) or TRANSLATIONS].add(path)
        if len(paths) >= ASSETS_AT_MOST and not self._told_many:
            self._told_many = True
            self._journal.warning(
                "more than %d translations and templates, the rest is not watched: see the setting exclude",
                ASSETS_AT_MOST,
            )
        for kind in KINDS:
            # Changed since then, perhaps after the worker has read it.
            self._reset(kind, young[kind], told=False)

    def changed(self, paths: set[str], reloading: set[str]) -> set[str]:
        """Handle those of *paths* that are assets, return the others. Those of *reloading* cause a reload instead."""
        found: dict[str, set[str]] = {}
        for path in paths - reloading:
            kind = self._files.asset_kind(path)
            if kind is not None and not os.path.isdir(path):
                found.setdefault(kind, set()).add(path)
        for kind in KINDS:
            contents = {path: self._digests.now(path) for path in found.get(kind, ())}
            news = {path for path, content in contents.items() if content != self._served.get(path, MISSING)}
            restored = self._pending & (contents.keys() - news)
            self._pending -= restored
            if restored and not news and not self._pending:
                self._told = None
                self._journal.info("%s: as it is in service again, nothing to reset", self._journal.names(restored))
            self._reset(kind, news | (self._pending if restored else set()), told=True)
        return paths.difference(*found.values())

    def _reset(self, kind: str, news: set[str], *, told: bool) -> None:
        """Have all workers reset this *kind*; translations only if all changed files are valid."""
        if not news:
            return
        if kind == TRANSLATIONS:
            self._pending |= news
            why = next((why for why in map(_refusal, sorted(self._pending)) if why is not None), None)
            if why is not None:
                self._refuse(why)
                return
            news, self._pending, self._told = self._pending, set(), None
        self._generation.advance(kind)
        self._served.update({path: self._digests.now(path) for path in news})
        if told:
            self._journal.info("%s reset: %s", kind, self._journal.names(news))

    def _refuse(self, why: Refusal) -> None:
        for path in self._pending:
            if path not in self._served:
                # The file was invalid from the start: any later content causes a reset.
                self._served[path] = UNKNOWN
        if self._told != (why.path, why.reason):
            self._told = (why.path, why.reason)
            self._journal.refusal(_REFUSED, why)


def _is_younger(path: str, since: float) -> bool:
    try:
        return os.stat(path).st_ctime >= since - _COARSE
    except (OSError, ValueError):
        return False


def _refusal(path: str) -> Refusal | None:
    """Return why these translations cannot be used; None if they can, or if the file is gone."""
    try:
        content = safe_read(path, _READ_AT_MOST + 1, whole=False)
        if len(content) <= _READ_AT_MOST:
            gettext.GNUTranslations(io.BytesIO(content))
        elif content[:4] not in _MAGIC:
            return Refusal("Bad magic number", path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Refusal(error.strerror or type(error).__name__, path)
    except Exception as error:
        # Any error of the parser: struct.error, UnicodeDecodeError, an invalid plural form.
        return Refusal(f"{type(error).__name__}: {error}".splitlines()[0], path)
    return None
