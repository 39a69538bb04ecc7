"""Opens listening sockets for a supervisor, so that no connection is refused while its program restarts."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Mapping

# More than the clients that connect while a program is replaced.
BACKLOG = 2048
_FIRST = 3


class AddressError(ValueError):
    """Reports an address that we cannot listen on; the text says why."""


class NoAddressError(AddressError):
    """Reports text that is no address at all."""


def somaxconn() -> int | None:
    """Return how many connections the system lets wait at one socket; None if it does not say."""
    try:
        with open("/proc/sys/net/core/somaxconn", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def bind(address: str) -> socket.socket:
    """Open a socket that listens on *address*: ``HOST:PORT``, ``:PORT``, ``PORT``, ``[IPV6]:PORT`` or ``unix:PATH``.

    Raises `AddressError`.
    """
    try:
        if address.startswith("unix:"):
            return _bind_unix(os.path.abspath(address[len("unix:") :]))
        host, port = _parts(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        raise AddressError(f"{address} cannot be listened on: {_reason(error)}") from None


def inherited(environ: Mapping[str, str]) -> list[int]:
    """Return the descriptors of the sockets that this process was started with (systemd's ``LISTEN_FDS``)."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environ.get("LISTEN_FDS", "")
    return list(range(_FIRST, _FIRST + int(count))) if count.isdigit() else []


def remove(listening: socket.socket) -> None:
    """Close *listening*, and delete the file of a Unix socket."""
    path = listening.getsockname() if listening.family not in (socket.AF_INET, socket.AF_INET6) else None
    listening.close()
    if isinstance(path, str) and path.startswith("/"):
        with contextlib.suppress(OSError):
            # Another server may listen at this path by now.
            if not _is_listening(path):
                os.unlink(path)


def _reason(error: Exception) -> str:
    """Return the text of *error* without the address that `socket.create_server` appends."""
    return (getattr(error, "strerror", None) or str(error)).partition(" (while attempting")[0]


def _parts(address: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:(?:\[(?P<six>[^]]+)\]|(?P<host>[^:]*)):)?(?P<port>\d+)", address)
    if found is None or int(found["port"]) > 0xFFFF:
        raise NoAddressError(f"{address!r} is no address: use HOST:PORT, PORT, [IPV6]:PORT or unix:PATH")
    return found["six"] or found["host"] or "127.0.0.1", int(found["port"])


def _bind_unix(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    try:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode) and not _is_listening(path):
            # Left by a server that has ended.
            os.unlink(path)
        listening.bind(path)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        # A socket that is busy, or that we may not use, gives another error.
        return probe.connect_ex(path) != errno.ECONNREFUSED
