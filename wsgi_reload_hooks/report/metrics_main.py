"""Replaces the metrics file with the workers' rights, for a server that has more.

Started by its path in a bare interpreter: ``metrics_main.py UID GID GROUP,GROUP PATH``, with these files: 0 the content,
1 a pipe for the reason if the file cannot be written. Its exit code is always 0: some servers take others as their
workers'.
"""

from __future__ import annotations

import os
import signal
import sys

_ENDS_WITHIN = 10
"""Seconds after which a file system that hangs is given up."""


def replace(path: str, content: bytes) -> None:
    """Put a file with *content* in the place of *path*, readable by all. No link is followed. Raises OSError."""
    # Collectors read files by their suffix, and this name has another one.
    sibling = f"{path}.{os.getpid()}"
    try:
        # A file left by a process with our pid; it is made new, so that it is no other user's file, and no link.
        os.unlink(sibling)
    except FileNotFoundError:
        pass
    file = os.open(sibling, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(file, "wb") as stream:
            # The node exporter runs as another user and must read it, whatever our umask is.
            os.fchmod(file, 0o644)
            stream.write(content)
        os.replace(sibling, path)
    except OSError:
        os.unlink(sibling)
        raise


def main(uid: str, gid: str, groups: str, path: str) -> None:
    """Take on the rights, then replace *path* by what standard input holds."""
    os.setgroups([int(group) for group in groups.split(",") if group])
    os.setgid(int(gid))
    os.setuid(int(uid))
    with open(0, "rb") as content:
        replace(path, content.read())


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.alarm(_ENDS_WITHIN)
    try:
        main(*sys.argv[1:])
    except Exception as error:
        reason = (isinstance(error, OSError) and error.strerror) or repr(error)
        os.write(1, reason.encode(errors="backslashreplace")[:1000])
    finally:
        os._exit(0)
