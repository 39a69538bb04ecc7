"""What a gunicorn arbiter does because new workers load the disk, which may be another one than what is in service.

How many workers gunicorn itself is to keep (none are forked from a disk that is not in service), replacements, and the
error page where no worker is left.
"""

from __future__ import annotations

from typing import Any

from ..core.log import BROKEN, ReloadLog
from ..core.refusal import Refusal
from ..reload.commands import Phase
from ..watching.signature import Digest
from .backend import GunicornBackend
from .batch_trial import BatchTrial
from .config import configuration_files
from .worker import SpawnSpec
from .worker_handle import WorkerHandle, WorkerState

RETRY = 5.0


class HeldWorkers:
    """Runs in the arbiter's main thread; never waits."""

    def __init__(self, server: Any, backend: GunicornBackend, log: ReloadLog) -> None:
        self._server = server
        self._backend = backend
        self._loop = backend.loop
        self._pool = backend.pool
        self._log = log
        self._pool.target = self._set = server.num_workers
        self._retry_at = 0.0
        self._no_room = False
        self._trial: BatchTrial | None = None
        self.held = False
        """Whether gunicorn is not to fork any worker now."""

    def follow(self) -> None:
        """TTIN, TTOU and WINCH change the number that we set: the difference is what the user wants."""
        self._pool.target = max(0, self._pool.target + self._server.num_workers - self._set)

    def step(self, now: float) -> None:
        """Replace what is to be replaced."""
        if self._trial is not None and self._trial.batch is not None and self._trial.batch.closed:
            # An attempt has begun, whose workers replace all.
            self._trial = None
        if self._trial is not None:
            self._advance(self._trial, now)
        elif self._loop.busy_trying or now < self._retry_at:
            return
        elif self.disk_is_good() or self._pool.zygotes.idle() is not None:
            self._replace(now)
            self._fill_up(now)
        elif (
            self._backend.serves()
            and self._pool.target
            and not self._pool.all(WorkerState.SERVING, WorkerState.BOOTING)
        ):
            self._log.warning("no worker is left that has the application: an error page answers until a repair")
            self._pool.spawn(SpawnSpec(page=True), 1)

    def failed(self, member: WorkerHandle, why: Refusal, now: float) -> None:
        """A worker that is in no batch died before it was ready."""
        if member.error_page:
            self._retry_at = now + RETRY
        elif not self._backend.serves() or self.disk_is_good():
            self._lost(why, member.loaded, now)

    def disk_is_good(self) -> bool:
        """Whether a worker forked now would load what is in service: nothing is pending but configuration."""
        machine = self._loop.machine
        if machine.phase is Phase.REFUSED and machine.ever_served:
            return not machine.pending - configuration_files(self._server)
        return machine.phase in (Phase.IDLE, Phase.SWITCHING) and not (machine.due or machine.held)

    # -- replacing -----------------------------------------------------------------------------------------------------

    def _advance(self, trial: BatchTrial, now: float) -> None:
        try:
            outcome = trial.poll()
        except OSError as error:
            trial.cancel()
            self._trial, self._retry_at = None, now + RETRY
            if not self._no_room:
                self._no_room = True
                self._log.warning("cannot start a new worker, retrying every 5 s: %s", error.strerror or error)
            return
        if outcome is None:
            return
        self._trial, self._no_room = None, False
        batch = trial.batch
        assert batch is not None
        if outcome.refused is not None:
            self._lost(outcome.refused, batch.loaded, now)
            return
        serving = self._pool.all(WorkerState.SERVING, WorkerState.BOOTING)
        self._backend.let_in(batch, [member for member in serving if member.pid in batch.replaces])

    def _replace(self, now: float) -> None:
        """Replace, one for one, the workers that asked for it, those a reload with `surge` has left, and the error page."""
        serving = self._pool.all(WorkerState.SERVING)
        tired = [member for member in serving if member.wants_replacement or member.error_page]
        limit = self._backend.settings.surge or max(self._pool.target, 1)
        room = limit - len(self._pool.all(WorkerState.RETIRING))
        if tired and room > 0:
            tired = tired[:room]
            self._start(len(tired), frozenset(member.pid for member in tired), now)

    def _fill_up(self, now: float) -> None:
        """With a zygote it is ours to keep the number of workers, from the first on."""
        missing = self._pool.target - len(self._pool.all(WorkerState.SERVING, WorkerState.BOOTING))
        if self._pool.zygotes.wanted and missing > 0 and self._trial is None:
            self._start(missing, frozenset(), now)

    def _start(self, size: int, replaces: frozenset[int], now: float) -> None:
        self._trial = BatchTrial(self._backend, None, size, replaces)
        self._advance(self._trial, now)

    def _lost(self, why: Refusal, loaded: dict[str, Digest], now: float) -> None:
        if not self._backend.serves() and self._backend.settings.broken_start == "exit":
            from gunicorn.errors import HaltServer

            self._log.refusal(BROKEN, why)
            raise HaltServer("Worker failed to boot.", 3)
        self._loop.lost(why, loaded, now)
        if self._backend.serves() and not self._loop.busy_trying:
            # The disk is as loaded: what this worker met may pass by itself.
            self._retry_at = now + RETRY

    # -- how many ------------------------------------------------------------------------------------------------------

    def dismiss_surplus(self, now: float) -> None:
        """After a TTOU: ours to choose, for gunicorn would signal those who retire already."""
        if self._pool.batch() is None:
            serving = self._pool.all(WorkerState.SERVING)
            for member in serving[: max(0, len(serving) - self._pool.target)]:
                self._pool.retire(member, now)

    def set_num_workers(self, now: float) -> None:
        """How many workers gunicorn is to keep: it fills up from the disk, so only while the disk is good."""
        self.held = not self.disk_is_good() or now < self._retry_at
        self.count()

    def count(self) -> None:
        """Tell gunicorn, as of this moment."""
        alive = self.held or self._pool.zygotes.wanted
        wanted = self._pool.alive() if alive else self._pool.target + self._pool.extra()
        self._set = self._server._num_workers = wanted
