"""What a process begins with that was forked from a gunicorn arbiter, or from a zygote: first it lets go of what is not its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from ..core.settings import Settings
from ..process.counters import Generation
from ..report.publisher import Publisher
from ..watching.rules import Files
from .pool import Batch, WorkerPool
from .watcher import Watcher
from .worker import SpawnSpec, Worker
from .zygote import ZygoteProcess


class AfterFork:
    """Made in the arbiter; its methods run in the children."""

    def __init__(
        self,
        server: Any,
        settings: Settings,
        files: Files,
        generation: Generation,
        crew: WorkerPool,
        lookout: Watcher,
        chronicle: Publisher,
    ) -> None:
        self._server = server
        self._settings = settings
        self._files = files
        self._generation = generation
        self._crew = crew
        self._lookout = lookout
        self._chronicle = chronicle
        self._zygote_side: ZygoteProcess | None = None

    def begin_worker(self, worker: Any, their_post_fork: Callable[[Any, Any], object]) -> None:
        """In a *worker*, as its `post_fork`: that of the user, *their_post_fork*, is called in it."""
        if self._zygote_side is not None:
            self._move_in(worker, self._zygote_side.birth(), their_post_fork)
            return
        self._let_go()
        batch, birth = self._crew.batch(), self._crew.birth
        if batch is not None and batch.gate is not birth.gate:
            # The end of a gate is told by its last holder; this worker has no business there.
            batch.gate.close()
        self._move_in(worker, birth, their_post_fork)

    def live(self, way: Any, batch: Batch) -> NoReturn:
        """Run the zygote, which loads the application for *batch*."""
        self._crew.born()
        self._let_go()
        # The end of a gate is told by its last holder; the waiting end comes with the order.
        batch.gate.close()
        self._zygote_side = side = ZygoteProcess(
            self._server, way, self._lookout.reports, self._files, batch.changed, self._generation
        )
        side.live()

    def _let_go(self) -> None:
        self._lookout.leave()
        self._chronicle.leave()
        self._crew.leave_zygotes()

    def _move_in(self, worker: Any, birth: SpawnSpec, their_post_fork: Callable[[Any, Any], object]) -> None:
        reports = self._lookout.reports
        side = Worker(self._server, worker, birth, reports, self._files, self._generation, self._settings)
        side.move_in(their_post_fork)
