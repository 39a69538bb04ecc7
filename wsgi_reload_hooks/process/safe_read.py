"""Opens files that the user or a worker wrote: never blocks, never reads a device, never more than a limit."""

from __future__ import annotations

import errno
import os
import stat

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_READ_AT_ONCE = 1 << 20


class NoRegularFile(OSError):
    """Reports a path that leads to a directory, a FIFO, a device or a socket."""


class TooLarge(OSError):
    """Reports a file with more bytes than the caller takes."""


def safe_read(path: str, at_most: int) -> bytes:
    """Return the content of the regular file *path*, *at_most* bytes.

    Raises `NoRegularFile`, `TooLarge`, or the OSError of opening or reading it. Any process and thread may call it.
    """
    number = os.open(path, _FLAGS)
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise NoRegularFile(errno.EINVAL, "is no regular file", path)
        content = bytearray()
        # A file may grow while it is read, and one of /proc has no size.
        while status.st_size <= at_most and len(content) <= at_most:
            data = os.read(number, min(_READ_AT_ONCE, at_most + 1 - len(content)))
            if not data:
                return bytes(content)
            content += data
        raise TooLarge(errno.EFBIG, f"is larger than {at_most} bytes", path)
    finally:
        os.close(number)
