"""Carries out what workers and zygotes report to the arbiter, and what follows when one of them dies.

A worker runs other people's code: what it says is checked here, and counts for this worker alone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from ..core.log import ReloadLog
from ..core.message import (
    Malformed,
    Schema,
    boolean,
    checked,
    integer,
    listed,
    mapping,
    number,
    optional,
    path,
    pid,
    row,
    text,
)
from ..core.refusal import Refusal
from ..core.text import printable
from ..django.assets import Assets
from ..process.counters import KINDS
from ..process.pipe import Message
from ..watching.signature import Signature
from .backend import GunicornBackend
from .legacy_held import HeldWorkers
from .worker_handle import WorkerHandle, WorkerState
from .zygote_channel import WORKERS_AT_MOST

_DIED = "the new worker ended without a word"
_FOREIGN = "the worker reports what no worker does"
_FILES_AT_MOST = 20_000
_FOLDERS_AT_MOST = 1_000
_READS_AT_THE_END = 64
# No code lies there, and to read some of it does something.
_NO_CODE = ("/proc/", "/sys/", "/dev/")

_REFUSED: Schema = {
    "reason": text(),
    "path": optional(text()),
    "line": optional(integer()),
    "traceback": text(),
    "files": listed(text(), _FILES_AT_MOST),
    "about": text(),
}
WORKER_KINDS: dict[str, Schema] = {
    "loaded": {"path": path, "signature": optional(row(integer(-(2**63)), integer(), integer(0, 2**64 - 1)))},
    "ready": {"duck": boolean},
    "refused": _REFUSED,
    "unavailable": {"reason": text()},
    "recycle": {},
    "assets": {"since": number, "folders": mapping(text(), listed(path, _FOLDERS_AT_MOST), len(KINDS))},
}
"""What a worker may say."""
ZYGOTE_KINDS: dict[str, Schema] = {
    **WORKER_KINDS,
    "forked": {"age": integer(), "worker": pid},
    "delivered": {"ages": listed(integer(), WORKERS_AT_MOST)},
}
"""What a zygote may say."""


class WorkerReports:
    """For the arbiter's main thread."""

    def __init__(self, backend: GunicornBackend, held: HeldWorkers, assets: Assets, log: ReloadLog) -> None:
        self._backend = backend
        self._pool = backend.pool
        self._channels = backend.pool.channels
        self._loop = backend.loop
        self._held = held
        self._assets = assets
        self._log = log

    def take(self) -> None:
        """Carry out what has been read of all workers."""
        # Zygotes first: who has been forked is known then.
        for member in sorted(self._pool.all(), key=lambda each: each.zygote is None):
            self._take(member)

    def _take(self, member: WorkerHandle) -> None:
        data = self._channels.take(member.channel)
        if not data or member.channel.broken:
            return
        kinds = WORKER_KINDS if member.zygote is None else ZYGOTE_KINDS
        try:
            for _, message in member.channel.decode(data):
                self._carry_out(member, checked(message, kinds))
            if member.channel.broken:
                raise Malformed("no message")
        except Exception as error:
            self._drop(member, str(error) if isinstance(error, Malformed) else repr(error))

    def _drop(self, member: WorkerHandle, what: str) -> None:
        """Listen to *member* no more. It goes on serving; what it loads from now on is not known."""
        member.channel.broken = True
        self._channels.close(member.channel)
        self._log.warning("worker %d: %s, it is not listened to any more: %s", member.pid, _FOREIGN, printable(what))
        if member.ready and member.zygote is None:
            return
        member.kept = False
        why = Refusal(_FOREIGN, member.last_loaded)
        if member.batch is not None:
            member.batch.fail(why)
        elif member.state is WorkerState.BOOTING:
            # It will not be heard to be ready.
            self._held.failed(member, why, time.monotonic())
        self._pool.withdraw_member(member, time.monotonic())

    def died(self, member: WorkerHandle, now: float) -> None:
        """*member* has ended and was reaped: hear its last words."""
        for _ in range(_READS_AT_THE_END):
            self._take(member)
            if member.channel.ended or member.channel.reader < 0:
                break
            self._channels.pump()
        self._channels.close(member.channel)
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
            self._pool.zygotes.forked(member, message["age"], message["worker"])
        elif kind == "delivered":
            self._delivered(member, message["ages"])
        elif kind == "refused":
            member.why = Refusal(**message)
        elif kind == "unavailable":
            member.unavailable = message["reason"]
        elif kind == "recycle":
            member.wants_replacement = True
        elif kind == "assets":
            self._assets.heard(message["folders"], message["since"])

    def _loaded(self, member: WorkerHandle, path: str, found: tuple[int, int, int] | None) -> None:
        seen = None if found is None else Signature(*found)
        if len(member.files) >= _FILES_AT_MOST:
            raise Malformed(f"more than {_FILES_AT_MOST} files")
        if path.startswith(_NO_CODE):
            raise Malformed("a file of the system")
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

    def _delivered(self, zygote: WorkerHandle, ages: Sequence[int]) -> None:
        complete, ended = self._pool.zygotes.delivered(zygote, ages)
        why, zygote.why = zygote.why, None
        unavailable, zygote.unavailable = zygote.unavailable, ""
        if not complete and zygote.batch is not None:
            zygote.batch.unavailable = unavailable
            zygote.batch.fail(why or Refusal("a new worker could not be forked"))
        for member in ended:
            self.died(member, time.monotonic())

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
