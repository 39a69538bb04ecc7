"""One number for each kind of thing that workers keep in memory: who watches raises it, workers compare at each request.

Reading costs a worker a copy of a few bytes. Where workers are forked by the process that watches, the memory is theirs
by inheritance; else it is that of a small file.
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
    """The kinds that were raised between two answers of `Generation.now`."""
    return {kind for kind in KINDS if before[_place(kind)] != now[_place(kind)]}


class Generation:
    """The numbers. Any process may read them, one raises them.

    *path*: the file for them, in a folder of this user's alone; without one, they are shared with forked children only.
    Raises OSError where the file cannot be had.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._inode = 0
        self._shared = mmap.mmap(-1, _SIZE) if path is None else self._mapped(path)

    def now(self) -> bytes:
        """All numbers, to be compared with what this says another time."""
        return self._shared[:_SIZE]

    def advance(self, kind: str) -> None:
        """Raise the number of *kind*. Raises OSError (a full disk, a file that is gone and cannot be made again)."""
        self.renew()
        place = _place(kind)
        raised = _NUMBER.pack((_NUMBER.unpack(self._shared[place])[0] + 1) & 0xFFFFFFFF)
        if self._path is None:
            self._shared[place] = raised
            return
        # Written, not stored: to store into a file on a full disk would end the process.
        file = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(file, raised, place.start)
        finally:
            os.close(file)

    def renew(self) -> None:
        """Have the numbers of the file that is there now: somebody may have cleaned temporary folders."""
        if self._path is None:
            return
        try:
            missing = os.stat(self._path).st_ino != self._inode
        except OSError:
            missing = True
        if missing:
            # Where it cannot be made now, it is the next time.
            with contextlib.suppress(OSError):
                self._shared = self._mapped(self._path)

    def _mapped(self, path: str) -> mmap.mmap:
        # One that was cleaned away goes on where it was: who has seen a number must not take a new one for it.
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
    """Make the file where there is none, whole at once: another process may map it at any moment."""
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
