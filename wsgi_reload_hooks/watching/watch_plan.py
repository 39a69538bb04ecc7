"""Computes what the listener has to watch to notice every change: folders, and the names in them that matter."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable

from ..core.text import under
from .rules import Files


@dataclasses.dataclass(frozen=True)
class WatchPlan:
    """Says what to watch. *names*: real folders, and the names in them that matter (None: all). *spelled*: those of
    them with watched files, as the files' paths spell them. *structure*: folders and links that change where paths lead
    when they are moved. *places*: the identities of the folders that have these names now.
    """

    names: dict[str, frozenset[str] | None]
    spelled: dict[str, frozenset[str]]
    structure: frozenset[str] = frozenset()
    places: frozenset[tuple[str, int, int]] = frozenset()


def watch_plan(files: Files, paths: Iterable[str], listed: Iterable[str]) -> WatchPlan:
    """Return what to watch to notice every change of *paths*, and of the names in the folders *listed*."""
    wanted = _Wanted()
    real: dict[str, str] = {}
    for path in paths:
        if "\0" in path:
            # No file has such a name.
            continue
        spelling = os.path.dirname(path) or os.curdir
        folder, name = os.path.split(os.path.abspath(path))
        if folder not in real:
            real[folder] = os.path.realpath(folder)
        wanted.add(real[folder], name, spelling)
        if os.path.islink(path):
            wanted.add(*os.path.split(os.path.realpath(path)), spelling)
    for folder in {*listed, *files.walked()}:
        real[os.path.abspath(folder)] = os.path.realpath(folder)
        wanted.add(os.path.realpath(folder), None, folder)
    top = os.path.dirname(os.path.realpath(files.root))
    for folder, real_folder in real.items():
        for link in _links(folder):
            wanted.add_structure(link)
        # A renamed folder causes an event of its own; a renamed parent causes none here.
        wanted.add_structure(real_folder)
        above = os.path.dirname(real_folder)
        while under(above, top) and above != top:
            wanted.add_structure(above)
            above = os.path.dirname(above)
    return wanted.interest()


class _Wanted:
    """Builds a `WatchPlan`."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._whole: set[str] = set()
        self._spelled: dict[str, set[str]] = {}
        self._structure: set[str] = set()

    def add(self, folder: str, name: str | None, spelling: str | None = None) -> None:
        """Add *name* in the real *folder*; if that does not exist yet, the first missing name among its parents."""
        while not os.path.isdir(folder) and folder != os.path.dirname(folder):
            self._structure.add(folder)
            folder, name = os.path.split(folder)
        if name is None:
            self._whole.add(folder)
        self._names.setdefault(folder, set()).update([] if name is None else [name])
        if spelling is not None:
            self._spelled.setdefault(folder, set()).add(spelling)

    def add_structure(self, path: str) -> None:
        """Add a folder or a link that may be replaced by another one."""
        if path != os.path.dirname(path):
            self._structure.add(path)
            self.add(*os.path.split(path))

    def interest(self) -> WatchPlan:
        return WatchPlan(
            {folder: None if folder in self._whole else frozenset(names) for folder, names in self._names.items()},
            {folder: frozenset(spellings) for folder, spellings in self._spelled.items()},
            frozenset(self._structure),
            frozenset(found for found in map(place, self._names) if found is not None),
        )


def place(folder: str) -> tuple[str, int, int] | None:
    """Return the identity of the folder that has this path now; None if there is none."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return folder, status.st_dev, status.st_ino


def _links(folder: str) -> list[str]:
    """Return the symbolic links in the path of *folder*, each under the real path of the folder that it lies in."""
    found = []
    place = os.sep
    for part in folder.split(os.sep):
        place = os.path.join(place, part)
        if os.path.islink(place):
            found.append(place)
            place = os.path.realpath(place)
    return found
