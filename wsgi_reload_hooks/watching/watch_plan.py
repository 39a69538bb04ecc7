"""What has to be heard to notice every change of what is watched: folders, and the names in them that matter."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable

from ..core.text import under
from .rules import Files


@dataclasses.dataclass(frozen=True)
class WatchPlan:
    """What to listen to. *names*: real folders, and the names in them that matter (None: all). *spelled*: those of
    them with watched files, as these spell them. *structure*: folders and links whose move changes what is where.
    *places*: which folders those are that have these names now.
    """

    names: dict[str, frozenset[str] | None]
    spelled: dict[str, frozenset[str]]
    structure: frozenset[str] = frozenset()
    places: frozenset[tuple[str, int, int]] = frozenset()


def watch_plan(files: Files, paths: Iterable[str], listed: Iterable[str]) -> WatchPlan:
    """What has to be heard to notice every change of *paths*, and of the names in the folders *listed*."""
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
        # A folder that is renamed says so itself; one above it does not.
        wanted.add_structure(real_folder)
        above = os.path.dirname(real_folder)
        while under(above, top) and above != top:
            wanted.add_structure(above)
            above = os.path.dirname(above)
    return wanted.interest()


class _Wanted:
    """An `WatchPlan` that is being put together."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._whole: set[str] = set()
        self._spelled: dict[str, set[str]] = {}
        self._structure: set[str] = set()

    def add(self, folder: str, name: str | None, spelling: str | None = None) -> None:
        """*name* in the real *folder*; where that is not there yet, the first of its parents' names that is missing."""
        while not os.path.isdir(folder) and folder != os.path.dirname(folder):
            self._structure.add(folder)
            folder, name = os.path.split(folder)
        if name is None:
            self._whole.add(folder)
        self._names.setdefault(folder, set()).update([] if name is None else [name])
        if spelling is not None:
            self._spelled.setdefault(folder, set()).add(spelling)

    def add_structure(self, path: str) -> None:
        """A folder or a link that may become another one."""
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
    """Which folder it is that has this name now; None where there is none."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return folder, status.st_dev, status.st_ino


def _links(folder: str) -> list[str]:
    """The symbolic links on the way to *folder*, each under the real name of the folder it lies in."""
    found = []
    place = os.sep
    for part in folder.split(os.sep):
        place = os.path.join(place, part)
        if os.path.islink(place):
            found.append(place)
            place = os.path.realpath(place)
    return found
