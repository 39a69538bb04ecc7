"""New workers that boot together behind a gate: started, polled until all are ready, stopped when one fails."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from ..core.refusal import Refusal
from ..reload.commands import Attempt
from ..trial.plan import Outcome
from .gate import Gate
from .user_hooks import refusal_from
from .worker_handle import Batch, WorkerHandle, WorkerState

if TYPE_CHECKING:
    from .backend import GunicornBackend

# A worker that was interrupted reports where it was within this time.
_REPORTS_WITHIN = 2.0


class BatchTrial:
    """New workers boot together; implements `reload.backend.Trial`. Replacements of single workers use it, too.

    *attempt* is what they try; None where *size* workers replace those with the pids *replaces*.
    """

    def __init__(
        self,
        backend: GunicornBackend,
        attempt: Attempt | None = None,
        size: int = 0,
        replaces: frozenset[int] = frozenset(),
    ) -> None:
        self.batch: Batch | None = None
        self._backend = backend
        self._pool = backend.pool
        self._attempt = attempt
        self._size = size
        self._replaces = replaces

    def poll(self) -> Outcome | None:
        """The outcome, None while workers boot. The first call starts them: of many requests at once only the last costs.

        Raises OSError where no process or file can be had.
        """
        now = time.monotonic()
        if self.batch is None and self._attempt is not None and not self._has_room(now):
            return None
        try:
            why = self._begin(now) if self.batch is None else None
            if why is None and self.batch is not None:
                why = self._failure(self.batch, now)
        except OSError:
            raise
        except Exception as error:
            # A hook of the user's raised, or the worker class.
            why = refusal_from(error, self._backend.files.ours)
        if why is not None:
            self.cancel()
            return Outcome(why, {}, 0.0)
        return None if self.batch is None or self._late(self.batch) else Outcome(None, {}, 0.0)

    def cancel(self) -> None:
        """Stop its workers, and put the configuration of before back."""
        if self.batch is not None and not self.batch.closed:
            self._pool.withdraw(self.batch, time.monotonic())
        if self._attempt is not None:
            self._backend.configuration.restore()

    def _has_room(self, now: float) -> bool:
        """Whether few enough old workers retire. Saves that follow each other quickly would pile them up."""
        if len(self._pool.all(WorkerState.RETIRING)) <= 2 * max(self._pool.target, 1):
            return True
        self._pool.kill_overdue(now)
        return False

    def _begin(self, now: float) -> Refusal | None:
        """Start the workers; why they are not, where the attempt is refused before."""
        changed: frozenset[str] = frozenset()
        if self._attempt is not None:
            why = self._backend.prepare(self._attempt)
            if why is not None:
                return why
            self._size, changed = self._backend.batch_size(), self._attempt.paths
        deadline = now + self._backend.settings.boot_timeout
        self.batch = Batch(Gate(), deadline, self._size, self._attempt, self._replaces, changed)
        self._backend.spawn(self.batch)
        return None

    def _late(self, batch: Batch) -> list[WorkerHandle]:
        return [member for member in self._pool.of(batch) if not member.ready]

    def _failure(self, batch: Batch, now: float) -> Refusal | None:
        """Why it has failed, if it has. A zygote that has loaded everything is told to fork the workers."""
        for member in self._pool.of(batch):
            if member.loaded_all and not batch.ordered:
                self._pool.zygotes.order(member, batch)
        if batch.unavailable:
            raise OSError(batch.unavailable)
        late = self._late(batch)
        if batch.failure is None and late and now > batch.deadline:
            if batch.overdue:
                batch.fail(Refusal("a new worker was not ready", late[0].last_loaded))
            else:
                # Each reports where it is, and ends: that is the refusal.
                batch.overdue, batch.deadline = True, now + _REPORTS_WITHIN
                for member in late:
                    self._pool.interrupt(member)
        if batch.failure is not None and batch.overdue:
            within = f"{batch.failure.reason} within {self._backend.settings.boot_timeout:g} s"
            return dataclasses.replace(batch.failure, reason=within)
        return batch.failure
