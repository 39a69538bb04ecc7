"""Computes signatures and digests, which are compared to decide whether a file changed.

A file changed if its (mtime_ns, size, inode) is different, not only if it is newer: a back-dated file, an edit within
the same second and an atomic save are changes. The comparison is CherryPy's, without its whole-second mtimes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import NamedTuple

from ..process.safe_read import TooLarge, safe_read


class Signature(NamedTuple):
    """Identifies a file's content by `os.stat`, without reading it."""

    mtime_ns: int
    size: int
    inode: int


# A digest of a content; `MISSING` if there is no file, `UNKNOWN` if its content cannot be known.
Digest = bytes

MISSING: Digest = b"missing"

UNKNOWN: Digest = b"unknown"

_READ_AT_MOST = 16 * 1024 * 1024


def signature(path: str) -> Signature | None:
    """Return the signature of *path*, or None if there is no such file.

    Raises OSError if stat fails for another reason (permissions, for instance), which says nothing about the file.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return Signature(status.st_mtime_ns, status.st_size, status.st_ino)


def known_signature(path: str) -> Signature | None:
    """Return the signature of *path*, or None if there is no such file or stat fails."""
    try:
        return signature(path)
    except OSError:
        return None


class Digests:
    """Keeps digests of files by signature, and reads each content once.

    For one thread: the one that compares, not the one that scans.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Signature, Digest]] = {}

    def at(self, path: str, seen: Signature | None) -> Digest:
        """Return the digest of *path* when it had the signature *seen*; `UNKNOWN` if it has another one by now."""
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
        """Return the digest of *path* on disk; `MISSING` if there is no file."""
        try:
            return self.at(path, signature(path))
        except OSError:
            return UNKNOWN

    def forget(self, keep: Iterable[str]) -> None:
        """Drop the digests of all paths but *keep*."""
        kept = set(keep)
        self._known = {path: known for path, known in self._known.items() if path in kept}


def _read(path: str) -> Digest:
    """Compute a digest of the content now; for a very large file, of its signature."""
    try:
        return hashlib.blake2b(safe_read(path, _READ_AT_MOST), digest_size=16).digest()
    except TooLarge:
        return repr(known_signature(path)).encode()
    except OSError:
        return UNKNOWN
