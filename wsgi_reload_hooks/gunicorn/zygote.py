"""Starts and tracks one zygote: a process that imports the application once, and forks workers that share its memory.

The arbiter stays clean, so there is always a next one. An intermediate fork forks the workers and ends at once: its
children become the arbiter's, as if it had forked them (see `process.linux`).
"""

from __future__ import annotations

import _socket
import contextlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .channels import Channel
from .gate import Gate
from .zygote_channel import WORKERS_AT_MOST, make_channel, send

ZYGOTE_NAME = b"gunicorn zygote"
"""What `ps -o comm` shows."""


class Zygote:
    """The arbiter's side: its *pid*, and the *way* to order workers."""

    def __init__(self, server: Any, pid: int, way: _socket.socket) -> None:
        self._server = server
        self.pid = pid
        self._way = way
        self._ordered: dict[int, tuple[Any, Channel]] = {}
        self._undelivered: set[int] = set()

    @classmethod
    def fork(cls, server: Any, channel: Channel, live: Callable[[_socket.socket, Channel], NoReturn]) -> Zygote:
        """To be called in the arbiter's main thread; *live* runs in the child and does not return there. Raises OSError.

        *channel*: what it reports on.
        """
        ours, theirs = make_channel()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            ours.close()
            live(theirs, channel)
        theirs.close()
        return cls(server, pid, ours)

    def order(self, count: int, gate: Gate) -> None:
        """Ask for *count* workers that wait at *gate*. Raises OSError where there is no room for their files.

        A zygote that is gone cannot be asked; that it is gone will be found in a moment.
        """
        born: list[tuple[Any, Channel]] = []
        try:
            for _ in range(count):
                worker = self._worker()
                try:
                    born.append((worker, Channel()))
                except BaseException:
                    worker.tmp.close()
                    raise
        except BaseException:
            for worker, channel in born:
                worker.tmp.close()
                channel.close()
            raise
        self._ordered.update((worker.age, (worker, channel)) for worker, channel in born)
        self._undelivered.update(worker.age for worker, _ in born)
        for start in range(0, count, WORKERS_AT_MOST):
            some = born[start : start + WORKERS_AT_MOST]
            note = json.dumps([worker.age for worker, _ in some]).encode()
            theirs = [*(worker.tmp.fileno() for worker, _ in some), *(channel.writer for _, channel in some)]
            with contextlib.suppress(BrokenPipeError, ConnectionError):
                send(self._way, note, [gate.exit, *theirs])
            for _, channel in some:
                channel.hand_over()

    def _worker(self) -> Any:
        """As the arbiter makes it: the heartbeat file is the arbiter's, so it is made here and handed on."""
        server = self._server
        server.worker_age += 1
        return server.worker_class(
            server.worker_age,
            server.pid,
            server.LISTENERS,
            server.app,
            server.timeout / 2.0,
            server.cfg,
            server.log,
        )

    def forked(self, age: int) -> tuple[Any, Channel] | None:
        """The worker object of the one that was born with this *age*, and what it reports on; None for a stranger."""
        return self._ordered.pop(age, None)

    @property
    def delivering(self) -> bool:
        """Tell whether workers were requested of it, and its intermediate fork may not have ended yet."""
        return bool(self._undelivered)

    def delivered(self, ages: Sequence[int]) -> int:
        """Give up the workers of these *ages* that the intermediate fork, which has ended, did not fork. How many."""
        self._undelivered.difference_update(ages)
        lost = [self._ordered.pop(age) for age in ages if age in self._ordered]
        for worker, channel in lost:
            worker.tmp.close()
            channel.close()
        return len(lost)

    def dismiss(self) -> None:
        """Nobody orders anything any more: it ends when it has delivered."""
        self._way.close()

    def close(self) -> None:
        """It has ended. The unborn are forgotten."""
        self._way.close()
        self.delivered(list(self._undelivered))
