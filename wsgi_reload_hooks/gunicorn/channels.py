"""The pipes from the workers and zygotes of one gunicorn arbiter: one each, so that nobody speaks in the name of another."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..process.native import Native
from ..process.pipe import Reports

# What waits for the main loop; more is left in the pipe, and its writer keeps it.
_UNREAD_AT_MOST = 1024 * 1024


class Channel(Reports):
    """One of them. Made before its process is forked."""

    def __init__(self) -> None:
        super().__init__()
        self.unread = b""
        """What has been read of it, and not yet been taken by the main loop."""


class Channels:
    """Those that the arbiter listens to. `pump` may run in the watcher thread, all else runs in the main thread."""

    def __init__(self) -> None:
        self.added: Callable[[], object] = lambda: None
        """Called when there is one more."""
        self._open: dict[int, Channel] = {}
        self._lock = Native().lock()

    def listen(self, channel: Channel) -> None:
        """Listen to *channel*; the process at its other end has been forked, and nobody else keeps that end."""
        channel.hand_over()
        with self._lock:
            self._open[channel.reader] = channel
        self.added()

    def close(self, channel: Channel) -> None:
        """Listen to *channel* no more: its process has ended, or says what none of ours does."""
        with self._lock:
            self._open.pop(channel.reader, None)
            channel.close()

    @property
    def readers(self) -> list[int]:
        """The descriptors that are readable when something has been said, and there is room for it."""
        return [
            number
            for number, each in self._open.copy().items()
            if not each.ended and len(each.unread) < _UNREAD_AT_MOST
        ]

    def pump(self) -> None:
        """Read what there is, 64 KiB of each. Takes no lock that a child needs."""
        with self._lock:
            for each in self._open.values():
                if not each.ended and len(each.unread) < _UNREAD_AT_MOST:
                    each.unread += each.read()

    def take(self, channel: Channel) -> bytes:
        """Take what is unread of *channel*."""
        with self._lock:
            data, channel.unread = channel.unread, b""
        return data

    def leave(self) -> None:
        """In a process that the arbiter has forked: close the arbiter's ends."""
        for number in self._open:
            os.close(number)
        self._open = {}
