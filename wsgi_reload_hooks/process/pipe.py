"""What workers tell their master: messages over one pipe, safe for any number of writers, never blocking one."""

from __future__ import annotations

import json
import os
import select
import struct
import threading
from collections import deque
from typing import Any

from .native import Native

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

_HEADER = struct.Struct(">HIB")
# A write of at most PIPE_BUF bytes arrives in one piece, whoever else writes.
_FRAME = getattr(select, "PIPE_BUF", 512)
_WANTED_PIPE_SIZE = 1024 * 1024
_MESSAGE_AT_MOST = 1024 * 1024
_BACKLOG_AT_MOST = 100_000

Message = dict[str, Any]


class Reports:
    """The pipe. The master reads, its workers write through a `Sender`."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            try:
                fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, _WANTED_PIPE_SIZE)
            except OSError:
                pass
        self._parts: dict[int, bytes] = {}
        self._rest = b""

    def read(self) -> bytes:
        """What has arrived, undecoded; empty if nothing has."""
        try:
            return os.read(self.reader, _WANTED_PIPE_SIZE)
        except BlockingIOError:
            return b""

    def decode(self, data: bytes) -> list[tuple[int, Message]]:
        """(pid, message) for each message that is complete with *data*."""
        messages = []
        data = self._rest + data
        position = 0
        while len(data) - position >= _HEADER.size:
            length, pid, last = _HEADER.unpack_from(data, position)
            if not _HEADER.size <= length <= _FRAME:
                # Somebody else wrote into our pipe. What comes next begins with a header again.
                self._parts.clear()
                position = len(data)
                break
            if len(data) - position < length:
                break
            part = self._parts.pop(pid, b"") + data[position + _HEADER.size : position + length]
            position += length
            if not last and len(part) < _MESSAGE_AT_MOST:
                self._parts[pid] = part
            elif last:
                try:
                    message = json.loads(part)
                except (ValueError, RecursionError):
                    # A signal handler spoke in the middle of a longer message.
                    continue
                if isinstance(message, dict) and "kind" in message:
                    messages.append((pid, message))
        self._rest = data[position:]
        return messages

    def forget(self, pid: int) -> None:
        """That worker is gone: drop what it began to say."""
        self._parts.pop(pid, None)

    def leave(self) -> None:
        """In a process that only writes: whether anybody reads is told by the last reader."""
        if self.reader >= 0:
            os.close(self.reader)
        self.reader = -1

    def close(self) -> None:
        """Close both ends."""
        self.leave()
        os.close(self.writer)


class Sender:
    """A worker's end: *writer*, a descriptor that never blocks. What does not fit into the pipe now is kept and sent with
    a later call.

    *pid*: in whose name; None: each process that is forked speaks in its own.
    """

    def __init__(self, writer: int, pid: int | None = None) -> None:
        self._fd = writer
        self._in_the_name_of = pid
        self._backlog: deque[bytes] = deque(maxlen=_BACKLOG_AT_MOST)
        self._begin()
        # A process that the application forks may come by the lock while a thread held it.
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._pid = os.getpid() if self._in_the_name_of is None else self._in_the_name_of
        if self._in_the_name_of is None:
            # What the parent has not sent yet, it will.
            self._backlog.clear()

    def send(self, kind: str, **content: Any) -> None:
        """Send one message. Raises nothing: a master that is gone is not this worker's business."""
        payload = json.dumps({"kind": kind, **content}).encode()
        room = _FRAME - _HEADER.size
        with self._lock:
            # All at once: a signal handler may send, too, at any moment.
            self._backlog.extend(
                [
                    _HEADER.pack(len(part) + _HEADER.size, self._pid, start + room >= len(payload)) + part
                    for start in range(0, len(payload), room)
                    for part in [payload[start : start + room]]
                ]
            )
            self.flush()

    def flush(self) -> None:
        """Send what was kept, as far as the pipe takes it."""
        with self._lock:
            while self._backlog:
                # Taken out first: a signal handler may flush, too, at any moment.
                frame = self._backlog.popleft()
                try:
                    os.write(self._fd, frame)
                except BlockingIOError:
                    self._backlog.appendleft(frame)
                    return
                except OSError:
                    self._backlog.clear()
                    return

    def drain(self) -> None:
        """Send what was kept, all of it: wait where there is no room."""
        self.flush()
        while self._backlog:
            Native().select([], [self._fd], [], 1.0)
            self.flush()
