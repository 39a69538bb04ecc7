"""Carries messages from a process, and what it forks, to the one that watches it: over one pipe, and no write blocks."""

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
# A write of at most PIPE_BUF bytes arrives in one piece, whatever other processes write.
_FRAME = getattr(select, "PIPE_BUF", 512)
_ROOMY = 1024 * 1024
_READ_AT_MOST = 65_536
_MESSAGE_AT_MOST = 1024 * 1024
_BACKLOG_AT_MOST = 100_000

Message = dict[str, Any]


class Reports:
    """Owns the pipe. The watching process reads, the other writes through a `Sender`.

    *roomy*: ask the system for a larger pipe, for a writer that does not try again by itself.
    """

    def __init__(self, roomy: bool = False) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)
        if roomy and hasattr(fcntl, "F_SETPIPE_SZ"):
            try:
                fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, _ROOMY)
            except OSError:
                pass
        self.ended = False
        """Whether no process has the writing end any more."""
        self.broken = False
        """Whether something came that no `Sender` sends."""
        self._parts: dict[int, bytes] = {}
        self._rest = b""

    def read(self) -> bytes:
        """Return what has arrived, undecoded, 64 KiB at most; empty if nothing has."""
        try:
            data = os.read(self.reader, _READ_AT_MOST)
        except BlockingIOError:
            return b""
        self.ended = not data
        return data

    def decode(self, data: bytes) -> list[tuple[int, Message]]:
        """Return (pid, message) for each message that *data* completes. The pid is what the writer says.

        What is no message is dropped, and `broken` is set.
        """
        messages = []
        data = self._rest + data
        position = 0
        while len(data) - position >= _HEADER.size:
            length, pid, last = _HEADER.unpack_from(data, position)
            if not _HEADER.size <= length <= _FRAME:
                # Another program wrote into our pipe. The next message begins with a header again.
                self.broken = True
                self._parts.clear()
                position = len(data)
                break
            if len(data) - position < length:
                break
            before = self._parts.pop(pid, b"")
            part = before + data[position + _HEADER.size : position + length]
            position += length
            if not last:
                self._parts[pid] = part
                if sum(map(len, self._parts.values())) > _MESSAGE_AT_MOST:
                    self.broken = True
                    self._parts.clear()
                continue
            try:
                message = json.loads(part)
            except (ValueError, RecursionError):
                # Of several parts: a signal handler sent this in the middle of a longer message.
                self.broken = self.broken or not before
                continue
            if isinstance(message, dict) and "kind" in message:
                messages.append((pid, message))
            else:
                self.broken = True
        self._rest = data[position:]
        return messages

    def leave(self) -> None:
        """Close the reading end in a process that only writes, so that the pipe breaks when the other one ends."""
        if self.reader >= 0:
            os.close(self.reader)
        self.reader = -1

    def hand_over(self) -> None:
        """Close the writing end in the process that reads: the other one has it."""
        if self.writer >= 0:
            os.close(self.writer)
        self.writer = -1

    def close(self) -> None:
        """Close both ends."""
        self.leave()
        self.hand_over()


class Sender:
    """Sends a worker's messages through *writer*, a non-blocking descriptor; keeps what does not fit for a later call.

    *pid*: the sender's pid in each message; None: the pid of the process that sends, also after a fork.
    """

    def __init__(self, writer: int, pid: int | None = None) -> None:
        self._fd = writer
        self._in_the_name_of = pid
        self._backlog: deque[bytes] = deque(maxlen=_BACKLOG_AT_MOST)
        self._begin()
        # A process that the application forks may inherit the lock while a thread holds it.
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._pid = os.getpid() if self._in_the_name_of is None else self._in_the_name_of
        if self._in_the_name_of is None:
            # The parent sends its backlog itself.
            self._backlog.clear()

    def send(self, kind: str, **content: Any) -> None:
        """Send one message. Raises nothing, even if the master has ended."""
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
        """Send what was kept, as much as the pipe takes now."""
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
        """Send all that was kept, and wait while the pipe is full."""
        self.flush()
        while self._backlog:
            Native().ready((), 1.0, writers=(self._fd,))
            self.flush()

    def close(self) -> None:
        """Close the descriptor, in a process that is not to send in the name of another one: what it sends is lost."""
        os.close(self._fd)
        self._fd = -1
