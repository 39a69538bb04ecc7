"""What the scanner of an arbiter looks at, from what is in service and what was refused."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..core.refusal import Refusal
from ..watching.rules import Files
from ..watching.scanner import Folder, Scanner
from ..watching.signature import known_signature
from .reloader import Reloader


class WatchList:
    """Keeps *scanner* to what matters now. Its methods belong to the thread that decides."""

    def __init__(self, scanner: Scanner, files: Files, reloader: Reloader) -> None:
        self._scanner = scanner
        self._files = files
        self._reloader = reloader
        self._importable: dict[str, Folder] = {}
        self.names: set[str] = set()
        """What the user listed, as of the last `listed`."""

    def listed(self, besides: Iterable[str]) -> None:
        """Watch what the user listed, and *besides* (configuration files); as they are now, they are in service."""
        self.names = self._files.extra() | set(besides)
        # The baseline first: a save in between is a change.
        self.add(self.names)
        self._reloader.listed(self.names)

    def add(self, paths: Iterable[str]) -> None:
        """Watch *paths*, too, from what they are now."""
        for path in paths:
            self._scanner.watch(path, known_signature(path))

    def reloading(self, paths: set[str]) -> set[str]:
        """Those of *paths* that are loaded or listed, or listed now that they are there."""
        return paths & (self._reloader.service.keys() | self.names | self._files.extra())

    def serving(self) -> None:
        """Nothing is refused: watch what is loaded and listed, and whether something is installed."""
        self._scanner.watch_only(self._kept(), self._installed())

    def trying(self) -> None:
        """An attempt begins: what appears from now on, its imports may have missed."""
        self._importable = {each.path: each for each in self._importable_folders(self._kept())}

    def refused(self, why: Refusal, loaded: Iterable[str]) -> None:
        """Besides what is in service: what the refused code had loaded, and whatever might make it succeed."""
        wanted = {path for path in (*why.files, *loaded) if os.path.isabs(path) and self._files.ours(path)}
        self.add(wanted)
        kept = self._kept() | wanted | self._reloader.pending
        importable = [self._importable.get(each.path, each) for each in self._importable_folders(kept)]
        self._scanner.watch_only(kept, importable + self._installed())

    def _importable_folders(self, loaded: Iterable[str]) -> list[Folder]:
        return [Folder(each, self._files.importable) for each in self._files.import_folders(loaded)]

    def _kept(self) -> set[str]:
        return set(self._reloader.service) | self.names | self._files.extra() | self._files.assets()

    def _installed(self) -> list[Folder]:
        return [Folder(each, self._files.installed) for each in self._files.install_folders()]
