"""Carries out what workers and zygotes report to the arbiter, and what follows when one of them dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from ..core.log import ReloadLog
from ..core.refusal import Refusal
from ..django.assets import Assets
from ..process.pipe import Message, Reports
from ..watching.signature import Signature
from .backend import GunicornBackend
from .legacy_held import HeldWorkers
from .worker_handle import WorkerHandle, WorkerState

_DIED = "the new worker ended without a word"


class WorkerReports:
    """For the arbiter's main thread. *pipe*: where the reports come from."""

    def __init__(
        self, pipe: Reports, backend: GunicornBackend, held: HeldWorkers, assets: Assets, log: ReloadLog
    ) -> None:
        self._pipe = pipe
        self._backend = backend
        self._pool = backend.pool
        self._loop = backend.loop
        self._held = held
        self._assets = assets
        self._log = log
        self._unknown: list[tuple[int, Message]] = []

    def take(self, data: bytes) -> None:
        """Carry out what is in *data*, read from the pipe."""
        for pid, message in self._pipe.decode(data):
            member = self._pool.get(pid)
            try:
                if member is not None:
                    self._carry_out(member, message)
                elif self._pool.zygotes.wanted:
                    # A worker may report before its zygote has told the arbiter of it.
                    self._unknown.append((pid, message))
            except (KeyError, TypeError, ValueError) as error:
                self._log.debug("not a report of ours, from worker %d: %r", pid, error)

    def died(self, member: WorkerHandle, now: float) -> None:
        """*member* has ended and was reaped."""
        self._pipe.forget(member.pid)
        if member.state not in (WorkerState.BOOTING, WorkerState.ZYGOTE):
            return
        if member.batch is not None:
            member.batch.fail(member.why or self._without_report(member), member.loaded)
        elif member.state is WorkerState.BOOTING:
            self._held.failed(member, member.why or self._without_report(member), now)

    def _carry_out(self, member: WorkerHandle, message: Message) -> None:
        kind = message.pop("kind")
        if kind == "loaded":
            self._loaded(member, message["path"], message["signature"])
        elif kind == "ready" and member.zygote is not None:
            member.loaded_all = True
        elif kind == "ready":
            member.ready, member.duck = True, message["duck"]
            if member.batch is None and member.state is WorkerState.BOOTING:
                self._backend.enter_service(member)
        elif kind == "forked":
            self._forked(member, message["age"], message["worker"])
        elif kind == "delivered":
            self._delivered(member, message["ages"])
        elif kind == "refused":
            member.why = Refusal(**{**message, "files": tuple(message["files"])})
        elif kind == "unavailable":
            member.unavailable = str(message["reason"])
        elif kind == "recycle":
            member.wants_replacement = True
        elif kind == "assets":
            self._assets.heard(message["folders"], message["since"])

    def _loaded(self, member: WorkerHandle, path: str, found: list[Any] | None) -> None:
        seen = None if found is None else Signature(*found)
        member.last_loaded = path
        member.files.add(sys.intern(path))
        if member.state is WorkerState.SERVING:
            self._loop.loaded(path, seen)
        elif member.batch is not None and member.batch.attempt is not None:
            self._loop.loaded(path, seen, member.batch.attempt)
        else:
            content = self._loop.noted(path, seen)
            if content is not None:
                member.loaded[path] = content

    def _forked(self, zygote: WorkerHandle, age: int, pid: int) -> None:
        self._pool.zygotes.register(zygote, age, pid)
        waiting, self._unknown = self._unknown, []
        for other, message in waiting:
            member = self._pool.get(other)
            if member is None:
                self._unknown.append((other, message))
            else:
                self._carry_out(member, message)

    def _delivered(self, zygote: WorkerHandle, ages: Sequence[int]) -> None:
        complete = self._pool.zygotes.delivered(zygote, ages)
        if not self._pool.zygotes.delivering:
            # Workers that are not known by now never will be.
            self._unknown.clear()
        why, zygote.why = zygote.why, None
        unavailable, zygote.unavailable = zygote.unavailable, ""
        if not complete and zygote.batch is not None:
            zygote.batch.unavailable = unavailable
            zygote.batch.fail(why or Refusal("a new worker could not be forked"))

    def _without_report(self, member: WorkerHandle) -> Refusal:
        """Where it died is not known: most likely in what was saved, after what it had loaded."""
        pending = self._loop.machine.pending if member.batch is not None else ()
        saved = sorted(path for path in pending if not os.path.isdir(path))
        last = member.last_loaded
        after = ""
        if last is not None:
            after = f"; the last file it loaded is {self._backend.files.relative(last)}"
        reason = f"{_DIED} ({member.ended or 'os._exit, a crash, or killed'}){after}"
        return Refusal(reason, saved[0] if saved else None, files=tuple(path for path in (last, *saved) if path))
