"""The workers of one gunicorn arbiter: who boots, serves or retires, and the signals that move them on."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from ..core.refusal import Refusal
from ..process import linux
from ..process.native import Native
from ..watching.signature import Digest
from .gate import Gate
from .worker import SpawnSpec
from .zygote import Zygote

_URGED_AGAIN = 0.5
_KILLED = 2.0
# How long workers of a zygote that has ended amid a delivery may still be on their way.
_ORPHANS = 2.0
_ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Role(enum.Enum):
    """What a worker is here for."""

    BOOTING = "booting"
    SERVING = "serving"
    RETIRING = "retiring"
    WITHDRAWN = "withdrawn"
    ZYGOTE = "zygote"


@dataclasses.dataclass(eq=False)
class Batch:
    """Workers that boot together and wait at one gate.

    *deadline* (monotonic seconds) is when they must be ready. *victims* leave for them; None: all others, a reload.
    """

    gate: Gate
    deadline: float
    victims: frozenset[int] | None = None
    overdue: bool = False
    changed: Collection[str] = ()
    """Files whose byte code is not to be believed."""
    size: int = 0
    """How many workers a zygote is to fork for it."""

    @property
    def of_reload(self) -> bool:
        """Whether it brings new code, not just fresh workers."""
        return self.victims is None


@dataclasses.dataclass(eq=False)
class WorkerHandle:
    """One worker. *since* and *terminated* are monotonic seconds; *age* is gunicorn's running number."""

    pid: int
    age: int
    since: float
    role: Role = Role.BOOTING
    batch: Batch | None = None
    ready: bool = False
    duck: bool = False
    page: bool = False
    zygote: Zygote | None = None
    recycle: bool = False
    urged: int = 0
    terminated: float = 0.0
    why: Refusal | None = None
    ended: str = ""
    loaded_all: bool = False
    """Of a zygote: it has loaded everything, and forks what is ordered."""
    kept: bool = False
    """Of a zygote: what it has loaded is in service."""
    last_loaded: str | None = None
    loaded: dict[str, Digest] = dataclasses.field(default_factory=dict)
    files: set[str] = dataclasses.field(default_factory=set)
    """All that it has loaded by itself, for whoever asks."""
    inherited: Collection[str] = ()
    """What the zygote that forked it had loaded."""


class WorkerPool:
    """All workers of *server*. Its methods never wait."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._members: dict[int, WorkerHandle] = {}
        self._adopts = False
        self._orphans_until = 0.0
        self._batch: Batch | None = None
        self.birth = SpawnSpec()
        """What the worker that is being forked is born with; read in the child."""

    def get(self, pid: int) -> WorkerHandle | None:
        """The member with this *pid*, if it lives."""
        return self._members.get(pid)

    def all(self, *roles: Role) -> list[WorkerHandle]:
        """The members with one of these *roles*, oldest first."""
        return sorted((each for each in self._members.values() if each.role in roles), key=lambda each: each.age)

    def of(self, batch: Batch) -> list[WorkerHandle]:
        """The members of *batch*."""
        return [each for each in self._members.values() if each.batch is batch]

    def batch(self) -> Batch | None:
        """The batch that boots, if one does."""
        return next((each.batch for each in self._members.values() if each.batch is not None), None)

    def extra(self) -> int:
        """How many of those whom gunicorn counts come on top of those who are to serve."""
        counted = self._server.WORKERS
        workers = [each for each in self._members.values() if each.zygote is None and each.pid in counted]
        leaving = sum(each.role in (Role.RETIRING, Role.WITHDRAWN) for each in workers)
        return leaving + sum(each.batch is not None for each in workers)

    def zygote(self) -> WorkerHandle | None:
        """The zygote of what is in service, if one is kept and has nothing to do."""
        return next((each for each in self.all(Role.ZYGOTE) if each.kept and each.batch is None), None)

    def alive(self) -> int:
        """How many gunicorn counts at this moment; before 24 that changes at any moment."""
        return len(self._server.WORKERS)

    def take_over(self) -> None:
        """From now on every worker is known from its fork on, also one that gunicorn forks by itself."""
        self._theirs_spawn_worker = self._server.spawn_worker
        self._server.spawn_worker = self._spawn_worker

    def _spawn_worker(self) -> int:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            pid: int = self._theirs_spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        age = self._server.worker_age
        self._members[pid] = WorkerHandle(pid, age, time.monotonic(), batch=self._batch, page=self.birth.page)
        return pid

    def about_to_fork(self) -> None:
        """Have orders wait for the child: until it has handlers of its own it has the arbiter's, which do nothing there.

        To be called after the user's own `pre_fork`: what he starts there would inherit it.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERS)

    def born(self) -> None:
        """In the child, as early as can be: from now on it leaves when it is told to."""
        for order in _ORDERS:
            signal.signal(order, _leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_ORDERS, signal.SIGCHLD))

    def bury(self) -> Iterator[WorkerHandle]:
        """Take out those whom gunicorn has found dead, one by one: what is done about one may concern the next."""
        for pid in list(self._members):
            member = self._members[pid]
            if pid in self._server.WORKERS and not _exists(pid):
                # Before 24, a death in the moment of the fork leaves its entry there for ever.
                self._exited(self._server.WORKERS.pop(pid))
            if pid not in self._server.WORKERS and (member.zygote is None or not _exists(pid)):
                del self._members[pid]
                if member.zygote is not None:
                    self._bury_zygote(member.zygote)
                yield member

    def _bury_zygote(self, zygote: Zygote) -> None:
        if zygote.delivering:
            self._orphans_until = time.monotonic() + _ORPHANS
        zygote.close()

    @contextlib.contextmanager
    def nobody_reaped(self) -> Iterator[None]:
        """While it lasts, no worker is found dead."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def note_ends(self) -> None:
        """How those ended who were not ready yet: to be called just before gunicorn takes their exit status away."""
        if not hasattr(os, "waitid"):
            return
        for member in list(self._members.values()):
            if member.role in (Role.BOOTING, Role.ZYGOTE):
                with contextlib.suppress(ChildProcessError):
                    end = os.waitid(os.P_PID, member.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    if end is not None:
                        member.ended = _ended(end)

    def spawn(self, birth: SpawnSpec, count: int, batch: Batch | None = None) -> None:
        """Fork *count* workers. In the children this does not return. Raises OSError where no process can be had."""
        server = self._server
        # From 25.1 on gunicorn stops and starts its control socket, and logs that, around each single fork.
        control = getattr(server, "_control_server", None)
        # From 24 on a worker binds its own socket before it loads anything; ours binds when it may serve.
        late = bool(server.cfg.reuse_port) and not server.LISTENERS
        self.birth, self._batch = dataclasses.replace(birth, reuse_port=late), batch
        try:
            if control is not None:
                server._stop_control_server()
            if late:
                server.cfg.set("reuse_port", False)
            for _ in range(count):
                server.spawn_worker()
        finally:
            self.birth, self._batch = SpawnSpec(), None
            if late:
                server.cfg.set("reuse_port", True)
            if control is not None and os.getpid() == server.pid:
                server._start_control_server()

    def load(self, batch: Batch, live: Callable[[Any], NoReturn]) -> None:
        """Fork a zygote, which loads for *batch*. In the child *live* runs. Raises OSError."""
        server = self._server
        control = getattr(server, "_control_server", None)
        # Linux before 4.11 tells this to children that are forked from now on, and to no others.
        self._adopt(True)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERS)
        try:
            if control is not None:
                server._stop_control_server()
            zygote = Zygote.fork(server, live)
        finally:
            if control is not None and os.getpid() == server.pid:
                server._start_control_server()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._members[zygote.pid] = WorkerHandle(
            zygote.pid, 0, time.monotonic(), role=Role.ZYGOTE, batch=batch, zygote=zygote
        )

    def order(self, member: WorkerHandle, batch: Batch, count: int) -> None:
        """Have the zygote *member* fork *count* workers for *batch*. Raises OSError."""
        assert member.zygote is not None
        member.batch, member.ready, member.why = batch, False, None
        self._adopt(True)
        member.zygote.order(count, batch.gate)

    def _adopt(self, orphans: bool) -> None:
        """Only while there may be some: whatever else workers leave behind is init's."""
        if orphans is not self._adopts:
            self._adopts = orphans
            linux.adopt(orphans)

    def delivering(self) -> bool:
        """Whether a zygote forks workers now."""
        return any(each.zygote is not None and each.zygote.delivering for each in self._members.values())

    def adopt(self, member: WorkerHandle, age: int, pid: int) -> None:
        """The worker *pid* was forked by the zygote *member*."""
        worker = None if member.zygote is None else member.zygote.born(age, pid)
        if worker is None:
            return
        born = WorkerHandle(pid, age, time.monotonic(), batch=member.batch, inherited=member.files)
        self._members[pid] = born
        with self.nobody_reaped():
            lives = _exists(pid)
            if lives:
                self._server.WORKERS[pid] = worker
        stats = getattr(self._server, "_stats", None)
        if isinstance(stats, dict) and "workers_spawned" in stats:
            stats["workers_spawned"] += 1
        if not lives:
            self._exited(worker)
        elif member.batch is None:
            self._withdraw(born)

    def _exited(self, worker: Any) -> None:
        """What gunicorn does when it finds a worker dead; this one was dead before it was known."""
        worker.tmp.close()
        try:
            self._server.cfg.child_exit(self._server, worker)
        except Exception:
            self._server.log.exception("Exception in child_exit")

    def delivered(self, member: WorkerHandle, ages: Sequence[int]) -> bool:
        """The zygote *member* has forked whom it could of these *ages*. Whether that was all of them."""
        assert member.zygote is not None
        lost = member.zygote.delivered(ages)
        member.ready = not member.zygote.delivering
        return not lost

    def dismiss_zygotes(self, but: WorkerHandle | None = None) -> None:
        """Nobody orders workers any more, of any zygote *but* this one."""
        for each in self.all(Role.ZYGOTE):
            if each is not but and each.batch is None:
                each.kept = False
                self._withdraw(each)

    def leave_zygotes(self) -> None:
        """In a process that the arbiter has forked: they are none of its business."""
        for each in self._members.values():
            if each.zygote is not None:
                each.zygote.close()

    def withdraw(self, batch: Batch, now: float) -> None:
        """Send the members of *batch* away; none of them has served anybody."""
        for member in self.of(batch):
            self._withdraw(member, now)
        batch.gate.close()

    def retire(self, member: WorkerHandle, now: float) -> None:
        """Let *member* finish what it has, and leave."""
        if not member.ready:
            self._withdraw(member, now)
            return
        member.role, member.since = Role.RETIRING, now
        if member.duck:
            self.urge(member)
        else:
            self._terminate(member, now)

    def urge(self, member: WorkerHandle) -> None:
        """SIGURG: ignored by whom we have not set up yet, understood by all others."""
        member.urged += 1
        self._server.kill_worker(member.pid, signal.SIGURG)

    def press(self, now: float) -> None:
        """Signal once more those who should be gone by now."""
        self._adopt(self.delivering() or now < self._orphans_until)
        for member in self.all(Role.WITHDRAWN):
            waited = now - member.since
            if waited > _KILLED:
                self._server.kill_worker(member.pid, signal.SIGKILL)
            elif waited > _URGED_AGAIN * member.urged:
                self.urge(member)
        keepalive = float(self._server.cfg.keepalive)
        for member in self.all(Role.RETIRING):
            if not member.terminated and now - member.since > keepalive + 1.0:
                self._terminate(member, now)

    def end_pile_up(self, now: float) -> None:
        """End those who retire for longer than graceful_timeout; gunicorn would leave them in peace."""
        for member in self.all(Role.RETIRING):
            waited = now - member.terminated - float(self._server.cfg.graceful_timeout)
            if member.terminated and waited > 0:
                self._server.kill_worker(member.pid, signal.SIGQUIT if waited < _KILLED else signal.SIGKILL)

    def stop(self) -> None:
        """The server stops: who is not ready goes at once, who waits at a gate is sent away."""
        batch = self.batch()
        for member in self.all(Role.BOOTING, Role.WITHDRAWN):
            if not member.ready:
                self.urge(member)
        for member in self._members.values():
            if member.zygote is not None:
                self.urge(member)
        if batch is not None:
            batch.gate.close()

    def end_zygotes(self) -> None:
        """The server has stopped: gunicorn knows nothing of them, so one that hangs would outlive it."""
        for member in list(self._members.values()):
            if member.zygote is not None:
                with contextlib.suppress(OSError):
                    os.kill(member.pid, signal.SIGKILL)
                    Native().waitpid(member.pid, 0)
                member.zygote.close()

    def _withdraw(self, member: WorkerHandle, now: float = 0.0) -> None:
        if member.kept:
            # A zygote, which has others to fork.
            member.batch = None
            return
        now = now or time.monotonic()
        member.role, member.batch, member.since, member.urged = Role.WITHDRAWN, None, now, 0
        if member.loaded_all and member.zygote is not None:
            # In peace: whom it has begun to fork has to be told of.
            member.urged = 1
            member.zygote.dismiss()
            return
        self.urge(member)

    def _terminate(self, member: WorkerHandle, now: float) -> None:
        member.terminated = now
        self._server.kill_worker(member.pid, signal.SIGTERM)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    os._exit(0)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _ended(end: os.waitid_result) -> str:
    if end.si_code == os.CLD_EXITED:
        return f"exit status {end.si_status}"
    return signal.Signals(end.si_status).name
