"""Did a file change? Signatures, contents, and the baseline they are compared with.

Inequality of (mtime_ns, size, inode), not "newer": a back-dated file, an edit within the same second and an atomic
save are changes like any other. CherryPy's inequality, with what its whole-second mtime missed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable
from typing import Callable, NamedTuple, Optional


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


def signature(path: str) -> Optional[Signature]:
    """The signature of *path*, or None where there is no such file.

    Raises OSError where the file cannot be asked (permissions, say): that is no statement about it.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return Signature(status.st_mtime_ns, status.st_size, status.st_ino)


def known_signature(path: str) -> Optional[Signature]:
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

    def at(self, path: str, seen: Optional[Signature]) -> Digest:
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
        self._seen: dict[str, Optional[Signature]] = {}
        self._vanished: set[str] = set()
        self._folders: tuple[Folder, ...] = ()

    def __len__(self) -> int:
        return len(self._seen)

    def watch(self, path: str, baseline: Optional[Signature]) -> None:
        """Watch *path* from *baseline* on (None: it does not exist); a path already watched keeps its own."""
        self._seen.setdefault(path, baseline)

    def watch_only(self, paths: Iterable[str], folders: Iterable[Folder] = ()) -> None:
        """Keep of the watched files only *paths*, and watch *folders* instead of those before."""
        kept = set(paths)
        # A copy: the thread that ticks may add to it.
        for path in self._seen.copy():
            if path not in kept:
                self._seen.pop(path, None)
        self._folders = tuple(folders)

    def tick(self, now: Optional[float] = None) -> set[str]:
        """The paths that changed, appeared or vanished since the last tick, and folders with new names in them.

        A file that is gone for one tick only was being saved; gone for two, it is gone.
        """
        changed = {folder.path for folder in self._folders if folder.changed(time.time() if now is None else now)}
        vanished = set()
        for path, before in self._seen.copy().items():
            try:
                status = os.stat(path)
                found: Optional[Signature] = Signature(status.st_mtime_ns, status.st_size, status.st_ino)
            except (FileNotFoundError, NotADirectoryError, ValueError):
                found = None
            except OSError:
                continue
            if found == before:
                continue
            if found is None and path not in self._vanished:
                vanished.add(path)
                continue
            if path in self._seen:
                self._seen[path] = found
                changed.add(path)
        self._vanished = vanished
        return changed
