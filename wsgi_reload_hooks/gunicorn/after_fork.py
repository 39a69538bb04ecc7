"""Runs first in each process that a gunicorn arbiter or a zygote forks: closes what is not its own, then sets the worker up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..core.settings import Settings
from ..process.counters import Generation
from ..watching.rules import Files
from .pool import WorkerPool
from .watcher import Watcher
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
        watcher: Watcher,
        leave: Sequence[Callable[[], object]],
    ) -> None:
        self._server = server
        self._settings = settings
        self._files = files
        self._generation = generation
        self._pool = pool
        self._watcher = watcher
        self._leave = leave
        self._zygote: ZygoteProcess | None = None

    def begin_worker(self, worker: Any, their_post_fork: Callable[[Any, Any], object]) -> None:
        """In a *worker*, as its `post_fork`: that of the user, *their_post_fork*, is called in it."""
        if self._zygote is not None:
            self._set_up(worker, self._zygote.spec(), their_post_fork)
            return
        self._close_inherited()
        batch, spec = self._pool.batch(), self._pool.spec
        if batch is not None and batch.gate is not spec.gate:
            # Waiting workers see the end of the gate when its last holder has closed it.
            batch.gate.close()
        self._set_up(worker, spec, their_post_fork)

    def run_zygote(self, way: Any, batch: Batch) -> NoReturn:
        """Run the zygote, which loads the application for *batch*."""
        self._pool.init_child()
        self._close_inherited()
        # Waiting workers see the end of the gate when its last holder has closed it; the waiting end comes with the order.
        batch.gate.close()
        self._zygote = side = ZygoteProcess(
            self._server, way, self._watcher.reports, self._files, batch.changed, self._generation
        )
        side.live()

    def _close_inherited(self) -> None:
        for leave in self._leave:
            leave()
        self._pool.zygotes.leave()

    def _set_up(self, worker: Any, spec: SpawnSpec, their_post_fork: Callable[[Any, Any], object]) -> None:
        reports = self._watcher.reports
        side = Worker(self._server, worker, spec, reports, self._files, self._generation, self._settings)
        side.move_in(their_post_fork)
