"""Opens files that the user or a worker wrote: never blocks, never reads a device, never more than a limit."""

from __future__ import annotations

import errno
import os
import stat

SOURCE_AT_MOST = 4 << 20
"""Bytes of a source file that are compiled; of a larger one none."""

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_READ_AT_ONCE = 1 << 20


class NoRegularFile(OSError):
    """Reports a path that leads to a directory, a FIFO, a device or a socket."""


class TooLarge(OSError):
    """Reports a file with more bytes than the caller takes."""


def safe_read(path: str, at_most: int, *, whole: bool = True) -> bytes:
    """Return the content of the regular file *path*, *at_most* bytes; without *whole*, of a larger file its first ones.

    Raises `NoRegularFile`, `TooLarge`, or the OSError of opening or reading it. Any process and thread may call it.
    """
    number = os.open(path, _FLAGS)
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise NoRegularFile(errno.EINVAL, "is no regular file", path)
        content = bytearray()
        # A file may grow while it is read, and one of /proc has no size.
        limit = at_most + whole
        while len(content) < limit and not (whole and status.st_size > at_most):
            data = os.read(number, min(_READ_AT_ONCE, limit - len(content)))
            if not data:
                return bytes(content)
            content += data
        if not whole:
            return bytes(content)
        raise TooLarge(errno.EFBIG, f"is larger than {at_most} bytes", path)
    finally:
        os.close(number)
