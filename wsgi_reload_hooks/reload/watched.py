"""Keeps the scanner to the files that matter now: what is in service, what is listed, and what was refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from ..core.refusal import Refusal
from ..watching.rules import Files
from ..watching.scanner import Folder, Scanner
from ..watching.signature import Digests, known_signature
from .machine import ReloadMachine


class Watched:
    """Chooses what *scanner* watches. For the reload loop's thread.

    *install_folders*: the site-packages folders in which an installation may be the repair.
    """

    def __init__(
        self,
        scanner: Scanner,
        files: Files,
        machine: ReloadMachine,
        digests: Digests,
        install_folders: Callable[[], set[str]],
    ) -> None:
        self._scanner = scanner
        self._files = files
        self._machine = machine
        self._digests = digests
        self._install_folders = install_folders
        self._importable: dict[str, Folder] = {}
        self.names: set[str] = set()
        """The files that the user listed, as of the last `listed`."""

    def listed(self, besides: Iterable[str]) -> None:
        """Watch what the user listed, and *besides* (configuration files); their content of now is in service."""
        self.names = self._files.extra() | set(besides)
        # The baseline first: a save in between is a change.
        self.add(self.names)
        self._machine.listed({path: self._digests.now(path) for path in self.names})

    def add(self, paths: Iterable[str]) -> None:
        """Watch *paths* too, with their state of now as the baseline."""
        for path in paths:
            self._scanner.watch(path, known_signature(path))

    def reloading(self, paths: set[str]) -> set[str]:
        """Return those of *paths* that are loaded or listed, or listed now that they exist."""
        return paths & (self._machine.service.keys() | self.names | self._files.extra())

    def serving(self) -> None:
        """Watch what is loaded and listed, and whether something is installed; called when nothing is refused."""
        self._scanner.watch_only(self._kept(), self._installed())

    def trying(self) -> None:
        """Watch for new names from the begin of an attempt on, because its imports may miss them."""
        self._importable = {each.path: each for each in self._importable_folders(self._kept())}

    def refused(self, why: Refusal, loaded: Iterable[str]) -> None:
        """Watch, besides what is in service, what the refused code had loaded, and all that might make it succeed."""
        wanted = {path for path in (*why.files, *loaded) if os.path.isabs(path) and self._files.ours(path)}
        self.add(wanted)
        kept = self._kept() | wanted | self._machine.pending
        importable = [self._importable.get(each.path, each) for each in self._importable_folders(kept)]
        self._scanner.watch_only(kept, importable + self._installed())

    def _importable_folders(self, loaded: Iterable[str]) -> list[Folder]:
        return [Folder(each, self._files.importable) for each in self._files.import_folders(loaded)]

    def _kept(self) -> set[str]:
        return set(self._machine.service) | self.names | self._files.extra() | self._files.assets()

    def _installed(self) -> list[Folder]:
        return [Folder(each, self._files.installed) for each in self._install_folders()]
