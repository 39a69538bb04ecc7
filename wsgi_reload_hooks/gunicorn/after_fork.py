"""Runs first in each process that a gunicorn arbiter or a zygote forks: closes what is not its own, then sets the worker up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..core.settings import Settings
from ..process.counters import Generation
from ..watching.rules import Files
from .channels import Channel
from .pool import WorkerPool
from .worker import SpawnSpec, Worker
from .worker_handle import Batch
from .zygote_main import ZygoteProcess


class AfterFork:
    """Made in the arbiter; its methods run in the children. Each of *leave* lets go of something that is the arbiter's."""

    def __init__(
        self,
        server: Any,
        settings: Settings,
        files: Files,
        generation: Generation,
        pool: WorkerPool,
        leave: Sequence[Callable[[], object]],
    ) -> None:
        self._server = server
        self._settings = settings
        self._files = files
        self._generation = generation
        self._pool = pool
        self._leave = leave
        self._zygote: ZygoteProcess | None = None

    def begin_worker(self, worker: Any, their_post_fork: Callable[[Any, Any], object]) -> None:
        """In a *worker*, as its `post_fork`: that of the user, *their_post_fork*, is called in it."""
        if self._zygote is not None:
            spec = self._zygote.spec()
            self._set_up(worker, spec, self._zygote.writer, their_post_fork)
            return
        channel = self._pool.channel
        assert channel is not None
        channel.leave()
        self._close_inherited()
        batch, spec = self._pool.batch(), self._pool.spec
        if batch is not None and batch.gate is not spec.gate:
            # Waiting workers see the end of the gate when its last holder has closed it.
            batch.gate.close()
        self._set_up(worker, spec, channel.writer, their_post_fork)

    def run_zygote(self, way: Any, channel: Channel, batch: Batch) -> NoReturn:
        """Run the zygote, which loads the application for *batch*, and reports on *channel*."""
        self._pool.init_child()
        channel.leave()
        # Its workers get what they report on from the arbiter.
        self._server.spawn_worker = self._pool.fork
        self._close_inherited()
        # Waiting workers see the end of the gate when its last holder has closed it; the waiting end comes with the order.
        batch.gate.close()
        self._zygote = side = ZygoteProcess(
            self._server, way, channel.writer, self._files, batch.changed, self._generation
        )
        side.live()

    def _close_inherited(self) -> None:
        for leave in self._leave:
            leave()
        self._pool.zygotes.leave()

    def _set_up(self, worker: Any, spec: SpawnSpec, writer: int, their_post_fork: Callable[[Any, Any], object]) -> None:
        side = Worker(self._server, worker, spec, writer, self._files, self._generation, self._settings)
        side.move_in(their_post_fork)
