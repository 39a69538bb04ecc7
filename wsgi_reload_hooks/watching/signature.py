"""Signatures and digests: what is compared to decide whether a file changed.

Inequality of (mtime_ns, size, inode), not "newer": a back-dated file, an edit within the same second and an atomic
save are changes like any other. CherryPy's inequality, with what its whole-second mtime missed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import NamedTuple

from ..process.safe_read import TooLarge, safe_read


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
    """A digest of the content now; the signature of a very large file stands for its content."""
    try:
        return hashlib.blake2b(safe_read(path, _READ_AT_MOST), digest_size=16).digest()
    except TooLarge:
        return repr(known_signature(path)).encode()
    except OSError:
        return UNKNOWN
