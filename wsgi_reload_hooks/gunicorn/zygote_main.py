"""Runs in the zygote: imports the application once, then forks workers of it as the arbiter orders."""

from __future__ import annotations

import _socket
import contextlib
import dataclasses
import gc
import json
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Sequence
from types import FrameType
from typing import Any, NoReturn

from ..core.refusal import Refusal
from ..django.reset import Memory
from ..process import linux
from ..process.counters import Generation
from ..process.pipe import Sender
from ..trial import frameworks
from ..watching.import_hook import ImportHook, Modules, missed_imports
from ..watching.rules import Files
from ..watching.signature import Signature
from .gate import Gate
from .hidden_frames import hidden_folders, is_hidden
from .user_hooks import refusal_from
from .worker import SpawnSpec
from .zygote import ZYGOTE_NAME
from .zygote_channel import receive

# What the arbiter understands, and a zygote has no use for.
_NOT_OURS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTTIN", "SIGTTOU", "SIGCHLD")


class ZygoteProcess:
    """The zygote itself. *way*: its end of the arbiter's; *writer*: what it reports on; *changed*: files whose byte code is
    not to be believed.
    """

    def __init__(
        self,
        server: Any,
        way: _socket.socket,
        writer: int,
        files: Files,
        changed: Collection[str],
        generation: Generation,
    ) -> None:
        self._memory = Memory(time.time(), generation.now())
        self._server = server
        self._files = files
        self._changed = changed
        # As they are before the application has a say in it.
        self._fork, self._waitpid = os.fork, os.waitpid
        self._way = way
        self._pid = os.getpid()
        self._sender = Sender(writer, self._pid)
        self._reported: dict[str, Signature | None] = {}
        self._modules: Modules | None = None
        self._loaded = self._leaving = False
        self._name = ZYGOTE_NAME
        self._gate: Gate | None = None
        self._others: list[Any] = []
        self._writers: list[int] = []
        self.writer = -1
        """In a worker that was forked here: what it reports on."""
        # From 24 on a worker binds its own socket before it is set up; ours binds when it may serve.
        self._late = bool(server.cfg.reuse_port) and not server.LISTENERS

    def live(self) -> NoReturn:
        """Load, then fork the ordered workers until the arbiter closes the socket. A worker leaves by SystemExit."""
        try:
            self._settle()
            self._load()
            # What it has printed while it was loading must not be printed by each worker.
            _flush()
            self._sender.send("ready", duck=False)
            while True:
                self._sender.drain()
                self._serve()
        except BaseException:
            if os.getpid() != self._pid:
                # A worker, at its end.
                raise
            traceback.print_exc()
        finally:
            if os.getpid() == self._pid:
                self._end()
        raise AssertionError("not reached")

    def _end(self) -> NoReturn:
        self._sender.drain()
        _flush()
        os._exit(0)

    def spec(self) -> SpawnSpec:
        """What a worker that is being forked here is born with."""
        linux.rename(self._name)
        for heartbeat in self._others:
            heartbeat.close()
        for writer in self._writers:
            if writer != self.writer:
                os.close(writer)
        self._way.close()
        self._sender.close()
        return SpawnSpec(self._gate, self._changed, False, self._late, self._reported, self._modules, self._memory)

    def _settle(self) -> None:
        server = self._server
        from gunicorn import util

        for name in _NOT_OURS:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_DFL if name == "SIGCHLD" else signal.SIG_IGN)
        signal.signal(signal.SIGURG, self._on_urgent)
        self._name = linux.name()
        linux.rename(ZYGOTE_NAME)
        util._setproctitle(f"zygote [{server.proc_name}]")
        for worker in server.WORKERS.values():
            with contextlib.suppress(OSError):
                worker.tmp.close()
        server.WORKERS.clear()
        # From 25.1 on there is a control socket, which is the arbiter's.
        if getattr(server, "_control_server", None) is not None:
            server._control_server = None
        # As a worker does: new code runs with the workers' rights, from its first line.
        util.set_owner_process(server.cfg.uid, server.cfg.gid, initgroups=server.cfg.initgroups)
        # So that they have nothing more to do, for they may not; with initgroups gunicorn leaves the group as it is.
        server.cfg.set("initgroups", False)
        server.cfg.set("group", os.getgid())
        if self._late:
            server.cfg.set("reuse_port", False)
        linux.end_with(server.pid)
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)

    def _load(self) -> None:
        ImportHook(self._files.ours, self._saw, self._changed).install()
        try:
            self._server.app.wsgi()
            frameworks.finish()
        except BaseException as error:
            self._refuse(Refusal.from_exception(error, hidden_folders(), self._files.ours))
        self._loaded = True
        # Here, not by each worker. What comes while we look is seen twice rather than never.
        self._modules = Modules()
        for path, found in missed_imports(self._reported, self._files.ours):
            self._saw(path, found)
        _freeze()

    def _refuse(self, why: Refusal) -> NoReturn:
        self._leaving = True
        if why.path is None:
            name = str(getattr(self._server.app, "app_uri", None) or "").partition(":")[0]
            path = getattr(sys.modules.get(name), "__file__", None)
            why = dataclasses.replace(why, path=path if isinstance(path, str) else None)
        self._sender.send("refused", **dataclasses.asdict(why))
        self._end()

    def _saw(self, path: str, found: Signature | None) -> None:
        # A worker has a witness of its own.
        if os.getpid() == self._pid and path not in self._reported:
            self._reported[path] = found
            self._sender.send("loaded", path=path, signature=found)

    def _serve(self) -> None:
        """Wait for an order and carry it out."""
        note, numbers = receive(self._way)
        if not note:
            self._end()
        ages = json.loads(note)
        try:
            intermediate = self._fork()
            if intermediate == 0:
                gate, *files = numbers
                self._writers = files[len(ages) :]
                self._deliver(ages, gate, [os.fdopen(number, "w+b", 0) for number in files[: len(ages)]])
            self._waitpid(intermediate, 0)
        except OSError as error:
            self._complain(error)
        for number in numbers:
            os.close(number)
        self._sender.send("delivered", ages=ages)
        linux.forget_files()

    def _deliver(self, ages: Sequence[int], gate: int, heartbeats: list[Any]) -> NoReturn:
        """Run in the intermediate fork: fork the workers, and end. Does not return in the workers either."""
        intermediate = os.getpid()
        try:
            linux.end_with(self._pid)
            self._gate = Gate.of_exit(gate)
            _follow_moved(self._server.log)
            for age, heartbeat, writer in zip(ages, heartbeats, self._writers, strict=False):
                self.writer = writer
                self._others = [each for each in heartbeats if each is not heartbeat]
                self._sender.send("forked", age=age, worker=self._spawn(age, heartbeat))
        except BaseException as error:
            if os.getpid() != intermediate:
                raise
            self._complain(error)
        finally:
            if os.getpid() == intermediate:
                self._end()
        raise AssertionError("not reached")

    def _spawn(self, age: int, heartbeat: Any) -> int:
        """Fork one worker, as the arbiter would. Its pid; in the child it does not return."""
        server = self._server
        worker_class = server.worker_class
        server.worker_age = age - 1
        server.worker_class = lambda *given: _with(heartbeat, worker_class, *given)
        try:
            pid: int = server.spawn_worker()
        finally:
            server.worker_class = worker_class
        server.WORKERS.clear()
        return pid

    def _complain(self, error: BaseException) -> None:
        """Report why not all workers could be forked."""
        if isinstance(error, OSError):
            # No process, no memory: this says nothing about the code.
            self._sender.send("unavailable", reason=error.strerror or str(error))
        else:
            self._sender.send("refused", **dataclasses.asdict(refusal_from(error, self._files.ours)))

    def _on_urgent(self, signum: int, frame: FrameType | None) -> None:
        """SIGURG: leave; while loading, say where it hangs."""
        if os.getpid() != self._pid:
            return
        if self._loaded or self._leaving:
            # At any place in its code: nothing more may be written now.
            os._exit(0)
        stack = [each for each in traceback.extract_stack(frame) if not is_hidden(each.filename)]
        self._refuse(Refusal.from_stack("its import did not end", stack, self._files.ours))


def _with(heartbeat: Any, worker_class: Callable[..., Any], *given: Any) -> Any:
    """A worker object whose heartbeat file is the arbiter's."""
    from gunicorn.workers import base

    class Handed(base.WorkerTmp):  # type: ignore[misc]
        def __init__(self, cfg: Any) -> None:
            self._tmp = heartbeat

    own, base.WorkerTmp = base.WorkerTmp, Handed
    try:
        return worker_class(*given)
    finally:
        base.WorkerTmp = own


def _freeze() -> None:
    """Have no garbage collection of a worker look at what is there now: it would write to all of that, and share none.

    An application that has switched the collector off sees to this by itself.
    """
    if gc.isenabled():
        # What is garbage by now would be kept for ever.
        gc.collect()
        gc.freeze()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _follow_moved(log: Any) -> None:
    """Open gunicorn's *log* anew where a USR1 has moved it since the zygote was forked."""
    loggers = [getattr(log, name, None) for name in ("error_log", "access_log")]
    handlers = [handler for each in loggers if isinstance(each, logging.Logger) for handler in each.handlers]
    if any(_has_moved(handler) for handler in handlers):
        with contextlib.suppress(OSError):
            log.reopen_files()


def _has_moved(handler: logging.Handler) -> bool:
    """Whether its file is another one by now, which this process may write to."""
    if not isinstance(handler, logging.FileHandler) or handler.stream is None:
        return False
    try:
        same = os.path.samestat(os.fstat(handler.stream.fileno()), os.stat(handler.baseFilename))
    except (OSError, ValueError):
        return False
    return not same and os.access(handler.baseFilename, os.W_OK)
