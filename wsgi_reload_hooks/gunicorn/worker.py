"""Runs inside a gunicorn worker: reports what it loads, waits at the gate, and ends gracefully."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from ..core.refusal import Refusal
from ..core.settings import Settings
from ..django.reset import DjangoAssets, Folders, Memory
from ..process.counters import Generation
from ..process.linux import NO_ORPHANS, end_with
from ..process.native import Native
from ..process.pipe import Sender
from ..trial import frameworks
from ..trial.warmup import Failed, warm_up
from ..watching.import_hook import ImportHook, Modules, missed_imports
from ..watching.rules import Files
from ..watching.signature import Signature
from .asgi import AsgiStart, LateSockets, without_lifespan
from .close_connections import LameDuck, is_asgi, is_uvicorn, lame_duck
from .error_page import asgi_page, wsgi_page
from .gate import Gate
from .hidden_frames import hidden_folders, is_hidden
from .log import journal
from .request_limit import RequestLimit

_ADOPTED_WITHIN = 10.0


@dataclasses.dataclass
class SpawnSpec:
    """What a worker is born with, decided in the arbiter before it forks.

    *changed*: files whose byte code is not to be believed. *page*: it serves an error page and no application.
    *modules*: what it was born with, whose files were told of as *reported*. *memory*: from when on it may remember
    other files.
    """

    gate: Gate | None = None
    changed: Collection[str] = ()
    page: bool = False
    reuse_port: bool = False
    reported: dict[str, Signature | None] = dataclasses.field(default_factory=dict)
    modules: Modules | None = None
    memory: Memory | None = None


class Worker:
    """The hooks in one worker process, from its `post_fork` on."""

    def __init__(
        self,
        server: Any,
        worker: Any,
        birth: SpawnSpec,
        writer: int,
        files: Files,
        generation: Generation,
        settings: Settings,
    ) -> None:
        self._server = server
        self._warmup = () if birth.page else settings.warmup
        self._worker = worker
        self._birth = birth
        self._files = files
        self._sender = Sender(writer, os.getpid())
        failure = journal(worker.log, files, settings.log_format).failure
        self._django = DjangoAssets(generation, files.ours, self._remembers, failure, birth.memory)
        # No copy: it would write to each entry's memory, which a zygote's workers share.
        self._reported = birth.reported
        self.ready = False
        """Whether it has loaded everything and said so."""
        self._leaving = False
        self._duck: LameDuck | None = lame_duck(worker)
        self._lame = self._ordered = self._warming = False
        self._notify = worker.notify
        self._init_process = worker.init_process
        self._run = worker.run

    def move_in(self, their_post_fork: Callable[[Any, Any], object]) -> None:
        """Put everything in place; called in `post_fork`, before the worker loads anything."""
        worker = self._worker
        if self._birth.gate is not None:
            self._birth.gate.enter()
        signal.signal(signal.SIGURG, self._on_urgent)
        ImportHook(self._files.ours, self._saw, self._birth.changed, self._django.connect).install()
        worker.init_process = self.init_process
        worker.run = self.run
        worker.notify = self.notify
        if self._birth.page:
            worker.app.callable = without_lifespan(asgi_page) if is_asgi(worker) else wsgi_page
        self._hold_max_requests()
        self._told(their_post_fork, self._server, worker)

    def init_process(self) -> None:
        """The worker's own, its failures told to the arbiter instead of being logged by each worker."""
        if os.environ.get(NO_ORPHANS) == str(self._server.pid):
            self._end_with_the_arbiter()
        self._told(self._init_process)

    def _end_with_the_arbiter(self) -> None:
        """Have this worker killed when the arbiter ends; gunicorn's own check waits for the request to end."""
        native = Native()
        deadline = time.monotonic() + _ADOPTED_WITHIN
        while os.getppid() != self._server.pid and time.monotonic() < deadline:
            # A worker of a zygote becomes the arbiter's child when the process that forked it has ended.
            native.sleep(0.01)
        end_with(self._server.pid)

    def run(self) -> None:
        """The worker's own, behind the gate."""
        frameworks.finish()
        if self._birth.reuse_port and is_asgi(self._worker):
            # Nothing to serve on yet: its server asks for the sockets when its lifespan is over.
            self._worker.sockets = LateSockets(self._open)
        start = AsgiStart(self, self._worker, self._duck)
        if not start.put_in_place():
            self._warm_up()
            if not self._pass_gate():
                return
        self._hear_the_order()
        if self._worker.alive:
            self._run()

    @contextlib.contextmanager
    def warming_up(self) -> Iterator[Sequence[str]]:
        """What is to be requested before the first client comes. While the block lasts, a worker that hangs says so."""
        self._warming = bool(self._warmup)
        yield self._warmup
        self._warming = False

    def _warm_up(self) -> None:
        tornado = sys.modules.get("tornado.web")
        if tornado is None or not isinstance(self._worker.wsgi, tornado.Application):
            with self.warming_up() as paths:
                warm_up(self._worker.wsgi, paths)

    def _hear_the_order(self) -> None:
        """Remember an order to leave from now on: tornado's `run` begins by declaring itself alive."""
        theirs = signal.getsignal(signal.SIGTERM)
        if not callable(theirs):
            return

        def ordered(signum: int, frame: FrameType | None) -> None:
            self._ordered = True
            theirs(signum, frame)

        signal.signal(signal.SIGTERM, ordered)

    def notify(self) -> None:
        """The worker's own, and what is to be done now and then."""
        self._notify()
        self._sender.flush()
        if self._ordered or (self._lame and self._duck is not None and self._duck.idle()):
            self._worker.alive = False

    def _told(self, step: Callable[..., object], *arguments: Any) -> None:
        try:
            step(*arguments)
        except SystemExit as leaving:
            if self.ready or self._leaving or not self._worker.alive:
                raise
            self._refuse(leaving)
        except BaseException as error:
            if self.ready:
                raise
            self._refuse(error)

    def _refuse(self, error: BaseException) -> NoReturn:
        """Tell the arbiter and end quietly: with status 0 gunicorn has nothing to add."""
        self._report_refusal(self.why(error))
        sys.exit(0)

    def why(self, error: BaseException) -> Refusal:
        """The refusal that an exception makes, which this worker met before it was ready."""
        if isinstance(error, Failed):
            path = self._app_file()
            return Refusal(str(error), path, files=(path,) if path else ())
        why = Refusal.from_exception(error, hidden_folders(), self._files.ours)
        return why if why.path is not None else dataclasses.replace(why, path=self._app_file())

    def _report_refusal(self, why: Refusal) -> None:
        self._leaving = True
        self._sender.send("refused", **dataclasses.asdict(why))
        self._sender.drain()

    def _app_file(self) -> str | None:
        """The file of the application's module, where gunicorn's own complaint names none."""
        name = str(getattr(self._worker.app, "app_uri", None) or "").partition(":")[0]
        path = getattr(sys.modules.get(name), "__file__", None)
        return path if isinstance(path, str) else None

    def _saw(self, path: str, found: Signature | None) -> None:
        if path not in self._reported:
            self._reported[path] = found
            self._sender.send("loaded", path=path, signature=found)

    def _remembers(self, folders: Folders) -> None:
        self._sender.send("assets", since=self._django.since, folders=folders)

    def _arrive(self) -> None:
        """Loaded and ready: say so, and what has been loaded unseen."""
        for path, found in missed_imports(self._reported, self._files.ours, self._birth.modules):
            self._saw(path, found)
        self._django.connect()
        self._django.look()
        self._leaving = False
        self.ready = True
        self._sender.send("ready", duck=self._duck is not None)
        # A full pipe would hold it back until the next heartbeat.
        self._sender.drain()

    def _pass_gate(self) -> bool:
        """Wait for the gate; whether this worker may serve. Then it does."""
        self._arrive()
        passed = self._birth.gate is None or self._birth.gate.wait(self._worker)
        if passed:
            self._let_in()
        return passed

    def _open(self) -> None:
        if not self._pass_gate():
            raise SystemExit(0)

    async def pass_gate_async(self) -> None:
        """The same in a worker that runs an event loop; raises SystemExit where it may not serve."""
        self._arrive()
        if self._birth.gate is not None and not await self._birth.gate.wait_async(self._worker):
            raise SystemExit(0)
        self._let_in()

    def _let_in(self) -> None:
        """In service from now on."""
        self._birth.gate = None
        if self._birth.reuse_port:
            self._listen()

    def _listen(self) -> None:
        """Bind this worker's own SO_REUSEPORT sockets: bound earlier, they would draw clients to a closed gate."""
        from gunicorn import sock

        self._worker.cfg.set("reuse_port", True)
        self._worker.sockets[:] = sock.create_sockets(self._worker.cfg, self._worker.log)
        self._worker.wait_fds = [*self._worker.sockets, self._worker.PIPE[0]]

    def _on_urgent(self, signum: int, frame: FrameType | None) -> None:
        """Handle SIGURG, whose default action is to ignore it: end, in the way that the worker's state demands.

        While booting: leave at once (asked twice: without a word). In service: become a lame duck.
        """
        if self.ready and self._birth.gate is None:
            if not self._lame and self._duck is not None:
                self._lame = True
                self._duck.enter()
        elif not self.ready:
            if self._leaving:
                os._exit(0)
            stack = [each for each in traceback.extract_stack(frame) if not is_hidden(each.filename)]
            what = f"the warm-up ({', '.join(self._warmup)})" if self._warming else "its import"
            self._report_refusal(Refusal.from_stack(f"{what} did not end", stack, self._files.ours))
            sys.exit(0)

    def _hold_max_requests(self) -> None:
        worker = self._worker
        if not worker.max_requests < sys.maxsize or self._birth.page:
            return
        worker.max_requests = RequestLimit(worker.max_requests, self._recycle)
        if is_uvicorn(worker):
            worker.config.limit_max_requests = worker.max_requests

    def _recycle(self) -> None:
        self._sender.send("recycle")

    def leave(self, why: Refusal) -> NoReturn:
        """Leave from inside an event loop, whose server would swallow or log an exception. As gunicorn does."""
        self._report_refusal(why)
        try:
            self._worker.tmp.close()
            self._server.cfg.worker_exit(self._server, self._worker)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
