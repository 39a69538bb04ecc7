"""The scanner of both engines: compares each watched file and folder with its baseline."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator

from .signature import Signature, signature

# From so many files on, stat is faster relative to their opened folder than by whole paths.
_WORTH_OPENING = 8

_HANDLE = getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC if os.stat in os.supports_dir_fd else None


class Folder:
    """Watches the listing of a folder: *names* says which names in it count."""

    def __init__(self, path: str, names: Callable[[str], frozenset[str]]) -> None:
        self.path = path
        self._names = names
        self._modified = -1
        self._listed = names(path)

    def changed(self, now: float) -> bool:
        """Tell whether names that count appeared or vanished since the last call. *now*: seconds since the epoch."""
        try:
            modified = os.stat(self.path).st_mtime_ns
        except OSError:
            modified = 0
        # File system clocks are coarse: a folder that changed just now may change again with the same time.
        if modified == self._modified and abs(now - modified / 1e9) > 2.0:
            return False
        self._modified = modified
        before, self._listed = self._listed, self._names(self.path)
        return before != self._listed


class Scanner:
    """Finds changes with one `os.stat` for each watched file a tick, and nothing else.

    `tick` may run in another thread than the rest: it takes no lock, imports and logs nothing.
    """

    def __init__(self) -> None:
        self.generation = 0
        """A counter that grows whenever the set of watched paths changes."""
        self.unasked: dict[str, str] = {}
        """Paths whose stat failed at the last tick, and why: they count as unchanged."""
        self._seen: dict[str, Signature | None] = {}
        self._groups: list[_Group] = []
        self._regroup = True
        self._vanished: set[str] = set()
        self._folders: tuple[Folder, ...] = ()

    def __len__(self) -> int:
        return len(self._seen)

    def watched(self) -> tuple[list[str], list[str]]:
        """Return the watched files, and the folders whose listing is watched."""
        return list(self._seen.copy()), [folder.path for folder in self._folders]

    @property
    def unsure(self) -> bool:
        """Tell whether a file was gone at the last tick, perhaps only while it was being saved."""
        return bool(self._vanished)

    def watch(self, path: str, baseline: Signature | None) -> None:
        """Watch *path* from *baseline* on (None: it does not exist); a path already watched keeps its own."""
        if path not in self._seen:
            self._seen[path] = baseline
            self._regroup = True
            self.generation += 1

    def watch_only(self, paths: Iterable[str], folders: Iterable[Folder] = ()) -> None:
        """Keep of the watched files only *paths*, and watch *folders* instead of those before."""
        kept = set(paths)
        # A copy: the thread that ticks may add to it.
        for path in self._seen.copy():
            if path not in kept:
                self._seen.pop(path, None)
        self._folders = tuple(folders)
        self._regroup = True
        self.generation += 1

    def tick(self, now: float | None = None, within: Callable[[str], bool] | None = None) -> set[str]:
        """Return the paths that changed, appeared or vanished since the last tick, and folders with new names in them.

        A file that is missing for one tick is being saved; missing for two, it was removed. *within*: scan only the
        files and folders in folders for which it returns true. *now*: seconds since the epoch.
        """
        now = time.time() if now is None else now
        changed = {
            folder.path for folder in self._folders if (within is None or within(folder.path)) and folder.changed(now)
        }
        if self._regroup:
            # Before regrouping: another thread may add watched files meanwhile.
            self._regroup = False
            self._groups = _grouped(self._seen.copy())
        vanished = (
            set()
            if within is None
            else {path for path in self._vanished if not within(os.path.dirname(path) or os.curdir)}
        )
        unasked: dict[str, str] = {}
        for group in self._groups:
            if (within is not None and not within(group.folder)) or (not self._vanished and group.unchanged()):
                continue
            for path, before in group.files():
                try:
                    found = signature(path)
                except OSError as error:
                    unasked[path] = error.strerror or str(error)
                    continue
                if found == before:
                    continue
                if found is None and path not in self._vanished:
                    vanished.add(path)
                    continue
                if path in self._seen:
                    self._seen[path] = found
                    self._regroup = True
                    changed.add(path)
        self._vanished, self.unasked = vanished, unasked
        return changed


class _Group:
    """Scans the watched files of one folder, with a short path for the usual case that none has changed."""

    def __init__(self, prefix: str) -> None:
        self.folder = os.path.dirname(prefix) or os.curdir
        self._prefix = prefix
        self.present: dict[str, Signature] = {}
        self.missing: list[str] = []

    def files(self) -> Iterator[tuple[str, Signature | None]]:
        for name, before in self.present.items():
            yield self._prefix + name, before
        for name in self.missing:
            yield self._prefix + name, None

    def unchanged(self) -> bool:
        handle: int | None = None
        stat = os.stat
        try:
            if _HANDLE is not None and len(self.present) >= _WORTH_OPENING:
                handle = os.open(self.folder, _HANDLE)
                for name, (modified, size, inode) in self.present.items():
                    found = stat(name, dir_fd=handle)
                    if found.st_mtime_ns != modified or found.st_size != size or found.st_ino != inode:
                        return False
            else:
                for name, (modified, size, inode) in self.present.items():
                    found = stat(self._prefix + name)
                    if found.st_mtime_ns != modified or found.st_size != size or found.st_ino != inode:
                        return False
            return not any(os.path.exists(self._prefix + name) for name in self.missing)
        except (OSError, ValueError):
            return False
        finally:
            if handle is not None:
                os.close(handle)


def _grouped(seen: dict[str, Signature | None]) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for path, before in seen.items():
        folder, slash, name = path.rpartition(os.sep)
        group = groups.get(folder + slash)
        if group is None:
            groups[folder + slash] = group = _Group(folder + slash)
        if before is None:
            group.missing.append(name)
        else:
            group.present[name] = before
    return list(groups.values())
