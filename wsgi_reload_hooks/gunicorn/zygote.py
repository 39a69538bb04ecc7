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

from .gate import Gate
from .zygote_channel import FILES_AT_MOST, make_channel, send

ZYGOTE_NAME = b"gunicorn zygote"
"""What `ps -o comm` shows."""


class Zygote:
    """The arbiter's side: its *pid*, and the *way* to order workers."""

    def __init__(self, server: Any, pid: int, way: _socket.socket) -> None:
        self._server = server
        self.pid = pid
        self._way = way
        self._ordered: dict[int, Any] = {}
        self._undelivered: set[int] = set()

    @classmethod
    def fork(cls, server: Any, live: Callable[[_socket.socket], NoReturn]) -> Zygote:
        """To be called in the arbiter's main thread; *live* runs in the child and does not return there. Raises OSError."""
        ours, theirs = make_channel()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            ours.close()
            live(theirs)
        theirs.close()
        return cls(server, pid, ours)

    def order(self, count: int, gate: Gate) -> None:
        """Ask for *count* workers that wait at *gate*. Raises OSError where there is no room for their files.

        A zygote that is gone cannot be asked; that it is gone will be found in a moment.
        """
        workers = []
        try:
            for _ in range(count):
                workers.append(self._worker())
        except BaseException:
            for worker in workers:
                worker.tmp.close()
            raise
        self._ordered.update((worker.age, worker) for worker in workers)
        self._undelivered.update(worker.age for worker in workers)
        for start in range(0, count, FILES_AT_MOST):
            some = workers[start : start + FILES_AT_MOST]
            note = json.dumps([worker.age for worker in some]).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionError):
                send(self._way, note, [gate.exit, *(worker.tmp.fileno() for worker in some)])

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

    def register(self, age: int, pid: int) -> Any:
        """The worker object of the one that was born with this *age*, now in the arbiter's list; None for a stranger."""
        worker = self._ordered.pop(age, None)
        if worker is not None:
            worker.pid = pid
        return worker

    @property
    def delivering(self) -> bool:
        """Tell whether workers were requested of it, and its intermediate fork may not have ended yet."""
        return bool(self._undelivered)

    def delivered(self, ages: Sequence[int]) -> int:
        """Give up the workers of these *ages* that the intermediate fork, which has ended, did not fork. How many."""
        self._undelivered.difference_update(ages)
        lost = [self._ordered.pop(age) for age in ages if age in self._ordered]
        for worker in lost:
            worker.tmp.close()
        return len(lost)

    def dismiss(self) -> None:
        """Nobody orders anything any more: it ends when it has delivered."""
        self._way.close()

    def close(self) -> None:
        """It has ended. The unborn are forgotten."""
        self._way.close()
        self.delivered(list(self._undelivered))
