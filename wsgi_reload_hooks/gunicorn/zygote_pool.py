"""The zygotes of one gunicorn arbiter: forking them, ordering workers of them, and registering what they forked."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ..process import linux
from ..process.native import Native
from .channels import Channel
from .worker_handle import Batch, WorkerHandle, WorkerState, is_child
from .zygote import Zygote

if TYPE_CHECKING:
    from .pool import WorkerPool

# How long workers of a zygote that has ended amid a delivery may still be on their way.
_ORPHANS = 2.0
_ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class _Told(NamedTuple):
    """A worker that a zygote has told of, and that is not the arbiter's child yet. *batch*: the zygote's then."""

    zygote: WorkerHandle
    pid: int
    age: int
    worker: Any
    channel: Channel
    batch: Batch | None


class ZygotePool:
    """The part of *pool* that deals with zygotes. Its methods run in the arbiter's main thread and never wait."""

    def __init__(self, server: Any, pool: WorkerPool) -> None:
        self._server = server
        self._pool = pool
        self._adopts = False
        self._orphans_until = 0.0
        self._told: list[_Told] = []

    @property
    def wanted(self) -> bool:
        """Whether workers are forked by a zygote, by the configuration of now."""
        return bool(getattr(self._server.cfg.post_fork, "shares", False))

    def idle(self) -> WorkerHandle | None:
        """The zygote of what is in service, if one is kept and has nothing to do."""
        return next((each for each in self._pool.all(WorkerState.ZYGOTE) if each.kept and each.batch is None), None)

    @property
    def delivering(self) -> bool:
        """Whether a zygote forks workers now."""
        return any(each.zygote is not None and each.zygote.delivering for each in self._pool.all())

    def load(self, batch: Batch, live: Callable[[Any, Channel], NoReturn]) -> None:
        """Fork a zygote, which loads for *batch*. In the child *live* runs. Raises OSError."""
        server = self._server
        control = getattr(server, "_control_server", None)
        # Linux before 4.11 tells this to children that are forked from now on, and to no others.
        self._adopt(True)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERS)
        channel = Channel()
        try:
            if control is not None:
                server._stop_control_server()
            zygote = Zygote.fork(server, channel, live)
        except OSError:
            channel.close()
            raise
        finally:
            if control is not None and os.getpid() == server.pid:
                server._start_control_server()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        now = time.monotonic()
        self._pool.add(WorkerHandle(zygote.pid, 0, channel, now, WorkerState.ZYGOTE, batch=batch, zygote=zygote))

    def order(self, member: WorkerHandle, batch: Batch) -> None:
        """Have the zygote *member* fork the workers of *batch*. Raises OSError."""
        assert member.zygote is not None
        member.batch, member.ready, member.why = batch, False, None
        self._adopt(True)
        batch.ordered = True
        member.zygote.order(batch.size, batch.gate)

    def forked(self, member: WorkerHandle, age: int, pid: int) -> None:
        """The zygote *member* says that it has forked a worker: it counts when it is the arbiter's child."""
        ordered = None if member.zygote is None else member.zygote.forked(age)
        if ordered is not None:
            self._told.append(_Told(member, pid, age, *ordered, member.batch))
            self._register()

    def _register(self) -> None:
        """Those of the workers told of that are the arbiter's children by now are workers of this server."""
        waiting, self._told = self._told, []
        for each in waiting:
            with self._pool.reaping_blocked():
                known = self._pool.get(each.pid) is not None or each.pid in self._server.WORKERS
                born = not known and is_child(each.pid)
                if born:
                    each.worker.pid = each.pid
                    self._server.WORKERS[each.pid] = each.worker
            if not born:
                self._told.append(each)
                continue
            member = self._handle(each)
            self._pool.add(member)
            if each.batch is None or each.batch.closed:
                self._pool.withdraw_member(member, time.monotonic())

    def _handle(self, told: _Told) -> WorkerHandle:
        stats = getattr(self._server, "_stats", None)
        if isinstance(stats, dict) and "workers_spawned" in stats:
            stats["workers_spawned"] += 1
        now, inherited = time.monotonic(), told.zygote.files
        return WorkerHandle(told.pid, told.age, told.channel, now, batch=told.batch, inherited=inherited)

    def delivered(self, member: WorkerHandle, ages: Sequence[int]) -> tuple[bool, list[WorkerHandle]]:
        """The zygote *member* has forked what it could of the workers with these *ages*. Whether these are all.

        Second: those that have ended already. They were never in the pool.
        """
        assert member.zygote is not None
        lost = member.zygote.delivered(ages)
        member.ready = not member.zygote.delivering
        self._register()
        # The process that forked them has ended: who is not the arbiter's child now was, and gunicorn has reaped it.
        return not lost, self._give_up([each for each in self._told if each.zygote is member and each.age in ages])

    def _give_up(self, gone: list[_Told]) -> list[WorkerHandle]:
        self._told = [each for each in self._told if each not in gone]
        members = []
        for each in gone:
            each.worker.pid = each.pid
            self._pool.forget_dead(each.worker)
            member = self._handle(each)
            self._pool.channels.listen(member.channel)
            members.append(member)
        return members

    def dismiss(self, but: WorkerHandle | None = None) -> None:
        """End all idle zygotes *but* this one."""
        for each in self._pool.all(WorkerState.ZYGOTE):
            if each is not but and each.batch is None:
                each.kept = False
                self._pool.withdraw_member(each, time.monotonic())

    def leave(self) -> None:
        """In a process that the arbiter has forked: close the sockets of all zygotes."""
        for each in self._pool.all():
            if each.zygote is not None:
                each.zygote.close()

    def reaped(self, zygote: Zygote) -> None:
        """*zygote* has ended."""
        if zygote.delivering or self._told:
            self._orphans_until = time.monotonic() + _ORPHANS
        zygote.close()

    def adopt_orphans(self, now: float) -> None:
        """Become the parent of orphans only while a zygote may leave some; all others are init's."""
        self._register()
        if now > self._orphans_until:
            left = [each for each in self._told if self._pool.get(each.zygote.pid) is not each.zygote]
            for member in self._give_up(left):
                self._pool.channels.close(member.channel)
        self._adopt(self.delivering or bool(self._told) or now < self._orphans_until)

    def end(self) -> None:
        """Kill all zygotes: the server has stopped, and gunicorn does not know them."""
        for member in self._pool.all():
            if member.zygote is not None:
                with contextlib.suppress(OSError):
                    os.kill(member.pid, signal.SIGKILL)
                    Native().waitpid(member.pid, 0)
                member.zygote.close()

    def _adopt(self, orphans: bool) -> None:
        if orphans is not self._adopts:
            self._adopts = orphans
            linux.adopt(orphans)
