"""Makes booted workers wait at a gate until the arbiter opens it for all of them, or for none."""

from __future__ import annotations

import asyncio
import os
import select
from typing import Any


class Gate:
    """One pipe: a byte lets one worker in, its end sends all away, also when the master dies."""

    def __init__(self) -> None:
        self._exit, self._key = os.pipe()
        os.set_blocking(self._exit, False)
        self._born_of = 0

    @classmethod
    def of_exit(cls, number: int) -> Gate:
        """The gate whose waiting end was handed on as *number*."""
        gate = cls.__new__(cls)
        gate._exit, gate._key, gate._born_of = number, -1, 0
        return gate

    @property
    def exit(self) -> int:
        """The descriptor of the waiting end."""
        return self._exit

    def open(self, count: int) -> None:
        """Let *count* workers in (the master)."""
        os.write(self._key, b"." * count)
        self.close()

    def close(self) -> None:
        """End the workers that still wait at the gate (called in the master)."""
        for fd in (self._exit, self._key):
            if fd >= 0:
                os.close(fd)
        self._exit = self._key = -1

    def enter(self) -> None:
        """To be called first in a worker: it keeps the waiting end only."""
        # The intermediate fork ends as soon as it has forked us; then the arbiter is our parent.
        self._born_of = os.getppid()
        if self._key >= 0:
            os.close(self._key)
        self._key = -1

    def wait(self, worker: Any) -> bool:
        """Wait; whether *worker* may serve. It stays alive for its arbiter while it waits."""
        while True:
            passed = self._passed(worker)
            if passed is not None:
                return passed
            # Looked up at each call: gevent may have put its own in place.
            exit_ = select.poll()
            exit_.register(self._exit, select.POLLIN)
            exit_.poll(100)

    async def wait_async(self, worker: Any) -> bool:
        """The same in a worker that runs an event loop."""
        while True:
            passed = self._passed(worker)
            if passed is not None:
                return passed
            await asyncio.sleep(0.02)

    def _passed(self, worker: Any) -> bool | None:
        try:
            passed: bool | None = bool(os.read(self._exit, 1))
        except BlockingIOError:
            passed = None
        if passed is None and worker.alive and os.getppid() in (worker.ppid, self._born_of):
            worker.notify()
            return None
        self.close()
        return bool(passed) and worker.alive
