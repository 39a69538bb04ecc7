"""Did a file change? Signatures, contents, and the baseline they are compared with.

Inequality of (mtime_ns, size, inode), not "newer": a back-dated file, an edit within the same second and an atomic
save are changes like any other. CherryPy's inequality, with what its whole-second mtime missed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Signature(NamedTuple):
    """What `os.stat` says of a file's content without reading it."""

    mtime_ns: int
    size: int
    inode: int


# A digest of a content; `MISSING` where there is no file, `UNKNOWN` where nobody can say.
Digest = bytes
MISSING: Digest = b"missing"
UNKNOWN: Digest = b"unknown"
_READ_AT_MOST = 16 * 1024 * 1024
# So many files of one folder are asked faster through the folder, opened for that, than by their whole paths.
_WORTH_OPENING = 8
_HANDLE = getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC if os.stat in os.supports_dir_fd else None


def signature(path: str) -> Signature | None:
    """The signature of *path*, or None where there is no such file.

    Raises OSError where the file cannot be asked (permissions, say): that is no statement about it.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return Signature(status.st_mtime_ns, status.st_size, status.st_ino)


def known_signature(path: str) -> Signature | None:
    """The signature of *path*, or None where there is no such file or it cannot be asked."""
    try:
        return signature(path)
    except OSError:
        return None


class Digests:
    """Contents of files by signature, each content read once.

    For one thread: whoever compares, not whoever scans.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Signature, Digest]] = {}

    def at(self, path: str, seen: Signature | None) -> Digest:
        """The content of *path* when it had the signature *seen*: `UNKNOWN` if it has another one by now."""
        if seen is None:
            return MISSING
        known = self._known.get(path)
        if known is None or known[0] != seen:
            content = _read(path)
            if content is UNKNOWN or known_signature(path) != seen:
                return UNKNOWN
            self._known[path] = known = (seen, content)
        return known[1]

    def now(self, path: str) -> Digest:
        """The content of *path* on disk; `MISSING` where there is no file."""
        try:
            return self.at(path, signature(path))
        except OSError:
            return UNKNOWN

    def forget(self, keep: Iterable[str]) -> None:
        """Drop what nobody compares with any more."""
        kept = set(keep)
        self._known = {path: known for path, known in self._known.items() if path in kept}


def _read(path: str) -> Digest:
    """A digest of the content now; a very large file is told by its signature alone."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            # To open a named pipe would mean to wait for its writer.
            return UNKNOWN
        if status.st_size > _READ_AT_MOST:
            return repr(signature(path)).encode()
        with open(path, "rb") as file:
            return hashlib.blake2b(file.read(), digest_size=16).digest()
    except OSError:
        return UNKNOWN


class Folder:
    """A folder whose listing is watched: *names* says which names in it count."""

    def __init__(self, path: str, names: Callable[[str], frozenset[str]]) -> None:
        self.path = path
        self._names = names
        self._modified = -1
        self._listed = names(path)

    def changed(self, now: float) -> bool:
        """Whether names that count appeared or vanished since the last call. *now*: seconds since the epoch."""
        try:
            modified = os.stat(self.path).st_mtime_ns
        except OSError:
            modified = 0
        # The clock of a file system ticks coarsely: a folder touched just now may change again unseen.
        if modified == self._modified and abs(now - modified / 1e9) > 2.0:
            return False
        self._modified = modified
        before, self._listed = self._listed, self._names(self.path)
        return before != self._listed


class Scanner:
    """The stat engine: one `os.stat` for each watched file a tick, and nothing else.

    `tick` may run in another thread than the rest: it takes no lock, imports and logs nothing.
    """

    def __init__(self) -> None:
        self.generation = 0
        """Grows whenever something else is watched than before."""
        self.unasked: dict[str, str] = {}
        """What could not be asked at the last tick, and why: it counts as unchanged."""
        self._seen: dict[str, Signature | None] = {}
        self._groups: list[_Group] = []
        self._regroup = True
        self._vanished: set[str] = set()
        self._folders: tuple[Folder, ...] = ()

    def __len__(self) -> int:
        return len(self._seen)

    def watched(self) -> tuple[list[str], list[str]]:
        """The files that are watched, and the folders whose listing is."""
        return list(self._seen.copy()), [folder.path for folder in self._folders]

    @property
    def unsure(self) -> bool:
        """Whether a file was gone at the last tick, and may have been on its way."""
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
        """The paths that changed, appeared or vanished since the last tick, and folders with new names in them.

        A file that is gone for one tick only was being saved; gone for two, it is gone. *within*: look only at the
        files and folders in folders that it is true of. *now*: seconds since the epoch.
        """
        now = time.time() if now is None else now
        changed = {
            folder.path for folder in self._folders if (within is None or within(folder.path)) and folder.changed(now)
        }
        if self._regroup:
            # First: another thread may add to what is watched meanwhile.
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
    """The watched files of one folder. Most ticks find all of them unchanged, and find that out in few lines."""

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
