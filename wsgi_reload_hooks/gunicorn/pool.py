"""The workers of one gunicorn arbiter: which ones boot, serve or retire, and the signals that move them on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

from .channels import Channel, Channels
from .worker import SpawnSpec
from .worker_handle import Batch, WorkerHandle, WorkerState, exists
from .zygote_pool import ZygotePool

_INTERRUPTED_AGAIN = 0.5
_KILLED = 2.0
_ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class WorkerPool:
    """All workers of *server*. Its methods run in the arbiter's main thread and never wait."""

    def __init__(self, server: Any, channels: Channels) -> None:
        self._server = server
        self.channels = channels
        self._members: dict[int, WorkerHandle] = {}
        self._batch: Batch | None = None
        self.target = 0
        """How many workers the user wants."""
        self.spec = SpawnSpec()
        """What the worker that is being forked begins with; read in the child."""
        self.channel: Channel | None = None
        """Where the worker that is being forked reports to; read in the child."""
        self.zygotes = ZygotePool(server, self)

    def get(self, pid: int) -> WorkerHandle | None:
        """The member with this *pid*, if it lives."""
        return self._members.get(pid)

    def add(self, member: WorkerHandle) -> None:
        """*member* was forked."""
        self._members[member.pid] = member
        self.channels.listen(member.channel)

    def all(self, *states: WorkerState) -> list[WorkerHandle]:
        """The members in one of these *states* (none given: all), oldest first."""
        chosen = (each for each in self._members.values() if not states or each.state in states)
        return sorted(chosen, key=lambda each: each.age)

    def of(self, batch: Batch) -> list[WorkerHandle]:
        """The members of *batch*, its zygote included."""
        return [each for each in self._members.values() if each.batch is batch]

    def batch(self) -> Batch | None:
        """The batch that boots, if one does."""
        return next((each.batch for each in self._members.values() if each.batch is not None), None)

    def extra(self) -> int:
        """How many of the workers that gunicorn counts come on top of those that are to serve."""
        counted = self._server.WORKERS
        workers = [each for each in self._members.values() if each.zygote is None and each.pid in counted]
        leaving = sum(each.state in (WorkerState.RETIRING, WorkerState.WITHDRAWN) for each in workers)
        return leaving + sum(each.batch is not None for each in workers)

    def alive(self) -> int:
        """How many workers gunicorn counts at this moment; before 24 that changes at any moment."""
        return len(self._server.WORKERS)

    # -- forking -------------------------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """From now on every worker is known from its fork on, also one that gunicorn forks by itself."""
        self._theirs_spawn_worker = self._server.spawn_worker
        self._server.spawn_worker = self._spawn_worker

    def _spawn_worker(self) -> int:
        channel = self.channel = Channel()
        try:
            pid = self.fork()
        except Exception:
            channel.close()
            raise
        age, page = self._server.worker_age, self.spec.page
        self.add(WorkerHandle(pid, age, channel, time.monotonic(), batch=self._batch, error_page=page))
        return pid

    def fork(self) -> int:
        """Fork one worker as gunicorn does; its pid. In the child it leaves by SystemExit."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            pid: int = self._theirs_spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid

    def before_fork(self) -> None:
        """Block orders until the child has handlers of its own: with the arbiter's handlers it would ignore them.

        Called after the user's `pre_fork`: a process that it starts would inherit the mask.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERS)

    def init_child(self) -> None:
        """In the child, as early as possible: from now on an order ends it."""
        for order in _ORDERS:
            signal.signal(order, _leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_ORDERS, signal.SIGCHLD))

    def spawn(self, spec: SpawnSpec, count: int, batch: Batch | None = None) -> None:
        """Fork *count* workers. In the children this does not return. Raises OSError where no process can be had."""
        server = self._server
        # From 25.1 on gunicorn stops and starts its control socket, and logs that, around each single fork.
        control = getattr(server, "_control_server", None)
        # From 24 on a worker binds its own socket before it loads anything; ours binds when it may serve.
        late = bool(server.cfg.reuse_port) and not server.LISTENERS
        self.spec, self._batch = dataclasses.replace(spec, reuse_port=late), batch
        try:
            if control is not None:
                server._stop_control_server()
            if late:
                server.cfg.set("reuse_port", False)
            for _ in range(count):
                server.spawn_worker()
        finally:
            self.spec, self._batch = SpawnSpec(), None
            if late:
                server.cfg.set("reuse_port", True)
            if control is not None and os.getpid() == server.pid:
                server._start_control_server()

    # -- ends ----------------------------------------------------------------------------------------------------------

    def reap(self) -> Iterator[WorkerHandle]:
        """Take out the members that gunicorn has found dead, one by one: dealing with one may concern the next."""
        for pid in list(self._members):
            member = self._members[pid]
            if pid in self._server.WORKERS and not exists(pid):
                # Before 24, a death in the moment of the fork leaves its entry there for ever.
                self.forget_dead(self._server.WORKERS.pop(pid))
            if pid not in self._server.WORKERS and (member.zygote is None or not exists(pid)):
                del self._members[pid]
                if member.zygote is not None:
                    self.zygotes.reaped(member.zygote)
                yield member

    @contextlib.contextmanager
    def reaping_blocked(self) -> Iterator[None]:
        """While it lasts, gunicorn finds no worker dead."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def note_ends(self) -> None:
        """Note how workers ended that were not ready yet; called just before gunicorn takes their exit status away."""
        if not hasattr(os, "waitid"):
            return
        for member in list(self._members.values()):
            if member.state in (WorkerState.BOOTING, WorkerState.ZYGOTE):
                with contextlib.suppress(ChildProcessError):
                    end = os.waitid(os.P_PID, member.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    if end is not None:
                        member.ended = _ended(end)

    def forget_dead(self, worker: Any) -> None:
        """Do what gunicorn does when it finds *worker* dead; this one was dead before it was known."""
        worker.tmp.close()
        try:
            self._server.cfg.child_exit(self._server, worker)
        except Exception:
            self._server.log.exception("Exception in child_exit")

    # -- signals -------------------------------------------------------------------------------------------------------

    def withdraw(self, batch: Batch, now: float) -> None:
        """Stop the members of *batch*: none of them has served a request."""
        batch.closed = True
        for member in self.of(batch):
            self.withdraw_member(member, now)
        batch.gate.close()

    def withdraw_member(self, member: WorkerHandle, now: float) -> None:
        """Stop one that has not served a request; a zygote that is kept goes on."""
        if member.kept:
            member.batch = None
            return
        member.state, member.batch = WorkerState.WITHDRAWN, None
        member.since, member.interrupted = now, 0
        if member.loaded_all and member.zygote is not None:
            # Not by a signal: the workers that it has begun to fork have to be reported.
            member.interrupted = 1
            member.zygote.dismiss()
            return
        self.interrupt(member)

    def retire(self, member: WorkerHandle, now: float) -> None:
        """Let *member* finish its requests, and end."""
        if not member.ready:
            self.withdraw_member(member, now)
            return
        member.state, member.since = WorkerState.RETIRING, now
        if member.duck:
            self.interrupt(member)
        else:
            self._terminate(member, now)

    def interrupt(self, member: WorkerHandle) -> None:
        """SIGURG: ignored by a process that has no handler yet, understood by all others."""
        member.interrupted += 1
        self._server.kill_worker(member.pid, signal.SIGURG)

    def escalate(self, now: float) -> None:
        """Signal once more the members that should be gone by now."""
        self.zygotes.adopt_orphans(now)
        for member in self.all(WorkerState.WITHDRAWN):
            waited = now - member.since
            if waited > _KILLED:
                self._server.kill_worker(member.pid, signal.SIGKILL)
            elif waited > _INTERRUPTED_AGAIN * member.interrupted:
                self.interrupt(member)
        keepalive = float(self._server.cfg.keepalive)
        for member in self.all(WorkerState.RETIRING):
            if not member.terminated and now - member.since > keepalive + 1.0:
                self._terminate(member, now)

    def kill_overdue(self, now: float) -> None:
        """End the workers that retire for longer than graceful_timeout; gunicorn would let them go on."""
        for member in self.all(WorkerState.RETIRING):
            waited = now - member.terminated - float(self._server.cfg.graceful_timeout)
            if member.terminated and waited > 0:
                self._server.kill_worker(member.pid, signal.SIGQUIT if waited < _KILLED else signal.SIGKILL)

    def stop(self) -> None:
        """The server stops: end workers that are not ready, and those that wait at a gate."""
        batch = self.batch()
        for member in self.all(WorkerState.BOOTING, WorkerState.WITHDRAWN):
            if not member.ready:
                self.interrupt(member)
        for member in self._members.values():
            if member.zygote is not None:
                self.interrupt(member)
        if batch is not None:
            batch.gate.close()

    def _terminate(self, member: WorkerHandle, now: float) -> None:
        member.terminated = now
        self._server.kill_worker(member.pid, signal.SIGTERM)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    os._exit(0)


def _ended(end: os.waitid_result) -> str:
    if end.si_code == os.CLD_EXITED:
        return f"exit status {end.si_status}"
    return signal.Signals(end.si_status).name
