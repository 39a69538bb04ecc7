"""Shares a counter for each kind of cache: the watching process raises it, workers compare it at each request.

Reading costs a worker a copy of a few bytes. Workers that the watching process forks inherit the memory; other workers
map a small file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct

TRANSLATIONS = "translations"
TEMPLATES = "templates"
KINDS = (TRANSLATIONS, TEMPLATES)
_NUMBER = struct.Struct("=I")
_SIZE = _NUMBER.size * len(KINDS)


def differing(before: bytes, now: bytes) -> set[str]:
    """Return the kinds that were raised between two results of `Generation.now`."""
    return {kind for kind in KINDS if before[_place(kind)] != now[_place(kind)]}


class Generation:
    """Holds the counters. Any process may read them, one process raises them.

    *path*: the file for them, in a private folder of this user; without one, only forked children share them.
    Raises OSError if the file cannot be made or mapped.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._inode = 0
        self._shared = mmap.mmap(-1, _SIZE) if path is None else self._mapped(path)

    def now(self) -> bytes:
        """Return all counters, to compare them with a later result."""
        return self._shared[:_SIZE]

    def advance(self, kind: str) -> None:
        """Raise the counter of *kind*. Raises OSError (a full disk, a file that is gone and cannot be made again)."""
        self.renew()
        place = _place(kind)
        raised = _NUMBER.pack((_NUMBER.unpack(self._shared[place])[0] + 1) & 0xFFFFFFFF)
        if self._path is None:
            self._shared[place] = raised
            return
        # With write(), not through the mapping: on a full disk a store into the mapping ends the process (SIGBUS).
        file = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(file, raised, place.start)
        finally:
            os.close(file)

    def renew(self) -> None:
        """Map the file that lies at the path now: the one before may have been deleted with other temporary files."""
        if self._path is None:
            return
        try:
            missing = os.stat(self._path).st_ino != self._inode
        except OSError:
            missing = True
        if missing:
            # If it cannot be made now, the next call tries again.
            with contextlib.suppress(OSError):
                self._shared = self._mapped(self._path)

    def _mapped(self, path: str) -> mmap.mmap:
        # A deleted file is made again with the same counters: a worker must not see an old value again.
        _make(path, self._shared[:_SIZE] if self._inode else bytes(_SIZE))
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._inode = os.fstat(file).st_ino
            return mmap.mmap(file, _SIZE, prot=mmap.PROT_READ)
        finally:
            os.close(file)


def _place(kind: str) -> slice:
    start = KINDS.index(kind) * _NUMBER.size
    return slice(start, start + _NUMBER.size)


def _make(path: str, numbers: bytes) -> None:
    """Make the file if it is missing, complete at once: another process may map it at any moment."""
    if os.path.lexists(path):
        return
    sibling = f"{path}.{os.getpid()}"
    file = os.open(sibling, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, numbers)
        os.link(sibling, path)
    except FileExistsError:
        # Another process was faster.
        pass
    finally:
        os.close(file)
        os.unlink(sibling)
