"""Sends notes and file descriptors over the socket between the arbiter and a zygote."""

from __future__ import annotations

import _socket
import array
import socket
from collections.abc import Sequence

ORDER_AT_MOST = 65536

FILES_AT_MOST = 250
WORKERS_AT_MOST = FILES_AT_MOST // 2
"""In one order: each worker has two, and the system passes 253."""


def make_channel() -> tuple[_socket.socket, _socket.socket]:
    """The two ends of a way to order."""
    # The system's own sockets, also where gevent has put others in their place.
    ends = _socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        # Whatever the configuration thinks that sockets have to do by default.
        end.settimeout(None)
    return ends


def send(way: _socket.socket, note: bytes, numbers: Sequence[int]) -> None:
    way.sendmsg([note], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))])


def receive(way: _socket.socket) -> tuple[bytes, list[int]]:
    """Return the next note and its descriptors, which are closed by an exec. Empty: the arbiter closed the socket."""
    numbers = array.array("i")
    room = socket.CMSG_SPACE((FILES_AT_MOST + 1) * numbers.itemsize)
    note, ancillary, _, _ = way.recvmsg(ORDER_AT_MOST, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return note, list(numbers)
