"""Zero-downtime reloads in gunicorn's arbiter: new workers boot next to the old ones and replace them once all are ready.

Everything is put on the one arbiter object, nothing on gunicorn's classes: `manage_workers` runs our step before its
own, `reload` only requests (from any thread), `setup` chains our hooks again, `stop` ends new workers first.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from ..control.service import control_or_none
from ..core.log import HOOKS_FAILED
from ..core.settings import Settings
from ..core.text import printable
from ..django.assets import Assets
from ..process import linux
from ..process.counters import Generation
from ..reload.commands import Phase
from ..reload.loop import ReloadLoop
from ..report.callbacks import Callbacks
from ..report.history import History
from ..report.publisher import Publisher
from ..watching.rules import Files
from ..watching.scanner import Scanner
from .after_fork import AfterFork
from .backend import GunicornBackend
from .channels import Channels
from .legacy_held import RETRY, HeldWorkers
from .log import journal, version
from .pool import WorkerPool
from .rights import rights_of_workers
from .user_hooks import named
from .watcher import Watcher
from .worker_reports import WorkerReports


class RollingArbiter:
    """The hooks on one arbiter. Methods run in its main thread unless they say otherwise."""

    def __init__(self, server: Any, settings: Settings) -> None:
        self._server = server
        self._settings = settings
        self._files = Files(settings)
        self._log = journal(server.log, self._files, settings.log_format)
        self._channels = Channels()
        self._pool = WorkerPool(server, self._channels)
        self._started = self._active = self._stopping = False
        self._told_no_share = False
        self._restart_at = 0.0

    # -- being put in place --------------------------------------------------------------------------------------------

    def chain(self, cfg: Any) -> None:
        """Put our hooks before the user's own in *cfg*; settings that work against ours are switched off and reported."""
        if getattr(cfg.post_fork, "chained", False):
            return
        their_when_ready, their_post_fork, their_on_exit = cfg.when_ready, cfg.post_fork, cfg.on_exit
        their_pre_fork = cfg.pre_fork

        def when_ready(server: Any) -> None:
            self.start()
            their_when_ready(server)

        def pre_fork(server: Any, worker: Any) -> None:
            if not self._active:
                their_pre_fork(server, worker)
                return
            with named("pre_fork"):
                their_pre_fork(server, worker)
            self._pool.before_fork()

        def post_fork(server: Any, worker: Any) -> None:
            self._pool.init_child()
            if self._active:
                self._after_fork.begin_worker(worker, their_post_fork)
            else:
                their_post_fork(server, worker)

        def on_exit(server: Any) -> None:
            self.close()
            their_on_exit(server)

        post_fork.chained = True  # type: ignore[attr-defined]
        for hook in (when_ready, pre_fork, post_fork, on_exit):
            cfg.set(hook.__name__, hook)
        post_fork.shares = self._shares(cfg)  # type: ignore[attr-defined]
        # As the user set them, for `wsgi-reload doctor`.
        post_fork.switched_off = {"preload_app": cfg.preload_app, "reload": cfg.reload}  # type: ignore[attr-defined]
        if cfg.preload_app and not getattr(self._server.app, "callable", None):
            # A zygote imports the application, from the first generation on: the arbiter stays clean.
            cfg.set("preload_app", False)
        if cfg.reload and (self._active or not cfg.preload_app):
            cfg.set("reload", False)
            self._log.warning("gunicorn's own reload is switched off, these hooks do its work: remove --reload")

    def _shares(self, cfg: Any) -> bool:
        """Whether workers are forked by a zygote."""
        wanted = self._settings.share == "always" or (self._settings.share == "auto" and bool(cfg.preload_app))
        if wanted and not linux.available():
            if not self._told_no_share:
                self._told_no_share = True
                self._log.warning("no import is shared on this system: each worker imports by itself")
            return False
        return wanted

    def start(self) -> None:
        """Take the arbiter over and start the watcher thread."""
        if self._started:
            return
        self._started = True
        server = self._server
        if server.cfg.preload_app:
            self._log.warning(
                "the application was loaded before these hooks, saves are not served: workers are copies of code "
                "that was loaded once. Import wsgi_reload_hooks.gunicorn_conf in gunicorn's configuration, or remove "
                "preload_app"
            )
            return
        if getattr(server.cfg, "dirty_workers", 0) and getattr(server.cfg, "dirty_apps", None):
            self._log.warning("dirty workers are not reloaded on a save: restart gunicorn for them")
        self._active = True
        self._assemble()
        # Exit statuses are 0 to 255: no failed boot halts the arbiter any more.
        server.WORKER_BOOT_ERROR = server.APP_LOAD_ERROR = -1
        self._theirs_manage_workers = server.manage_workers
        self._theirs_setup = server.setup
        self._theirs_stop = server.stop
        self._theirs_reap_workers = server.reap_workers
        self._pool.take_over()
        server.manage_workers = self._manage_workers
        server.setup = self._setup
        server.stop = self._stop
        server.reap_workers = self._reap_workers
        server.reload = self.reload
        for name, source in self._settings.sources.items():
            self._log.debug("setting %s = %r from %s", name, getattr(self._settings, name), printable(source))
        self._loop.watched.listed(self._backend.listed_files())
        self._loop.watched.trying()
        self._watcher.start()

    def _assemble(self) -> None:
        server, settings, files, log = self._server, self._settings, self._files, self._log
        scanner = Scanner()
        # Workers compare with it; it has to exist before the first one is forked.
        generation = Generation()
        assets = Assets(files, scanner, log, generation)
        record = History(server="gunicorn", version=version(), root=files.root, pid=server.pid, started=time.time())
        rights = rights_of_workers(server.cfg)
        publisher = Publisher(settings, log, record, Callbacks(settings, log, files.root, rights=rights), rights=rights)
        control = control_or_none("gunicorn", server.pid, log.warning)
        self._watcher = Watcher(server, settings, files, scanner, self._channels, control)
        leave = [self._watcher.leave, publisher.leave]
        self._after_fork = AfterFork(server, settings, files, generation, self._pool, leave)
        self._backend = GunicornBackend(
            server, settings, files, log, self._pool, publisher, self._watcher, self._after_fork
        )
        leave.append(self._backend.helper.leave)
        self._loop = self._backend.loop = ReloadLoop(self._backend, settings, files, scanner, log, publisher, assets)
        self._loop.answer(control, self._watcher)
        self._held = HeldWorkers(server, self._backend, log)
        self._reports = WorkerReports(self._backend, self._held, assets, log)

    def close(self) -> None:
        """Stop the watcher thread."""
        if self._active:
            self._active = False
            self._watcher.close()
            self._backend.helper.close()

    def reload(self, changed: Iterable[str] | None = None) -> None:
        """Request a reload; safe from any thread and from a signal handler. The main loop carries it out.

        *changed*: paths that may have changed; they decide whether there is anything to do. None (a HUP, `gunicornc
        reload`, the user's code): configuration and code are loaded anew whatever the files say.
        """
        self._watcher.ask(changed)

    # -- the step ------------------------------------------------------------------------------------------------------

    def _manage_workers(self) -> None:
        if not self._stopping:
            try:
                self._step(time.monotonic())
            except Exception as error:
                self._log.failure(HOOKS_FAILED, error)
        if self._stopping:
            self._theirs_manage_workers()
        elif self._pool.zygotes.wanted or not self._held.held:
            # Before 24 workers are reaped in a signal handler. Not between our counting and gunicorn's: it would replace
            # one that has retired, and end one that serves for that.
            with self._pool.reaping_blocked():
                self._held.count()
                self._theirs_manage_workers()
        # Held, not even asked: before 24 a death at this moment would have it fork a worker outside every gate.

    def _step(self, now: float) -> None:
        """Do all that is due in the arbiter's main loop, without waiting."""
        self._held.follow()
        self._channels.pump()
        self._reports.take()
        while self._watcher.inbox:
            self._take(*self._watcher.inbox.popleft(), now)
        if 0 < self._restart_at < now:
            self._restart_at = 0.0
            self._watcher.start()
        for member in self._pool.reap():
            self._reports.died(member, now)
        self._loop.step(now)
        self._backend.withdraw_abandoned()
        self._held.step(now)
        self._pool.escalate(now)
        self._held.dismiss_surplus(now)
        self._held.set_num_workers(now)
        under_way = self._loop.busy_trying or self._loop.machine.phase is Phase.SWITCHING
        waiting = self._pool.extra() > 0 or self._pool.batch() is not None
        self._watcher.busy = self._held.held or under_way or waiting
        self._watcher.look()

    def _take(self, kind: str, what: Any, now: float) -> None:
        if kind == "changed":
            self._loop.changed(what, now)
        elif kind == "request":
            self._loop.request_now("HUP", now)
        elif kind == "log":
            self._log.warning("%s", what)
        elif kind == "control" and self._loop.control is not None:
            self._loop.control.take(what)
        elif kind == "crashed":
            self._log.failure("the watcher failed and starts again in 5 s", what)
            self._restart_at = now + RETRY

    # -- what gunicorn does, with ours around it -----------------------------------------------------------------------

    def _setup(self, app: Any) -> None:
        self.chain(app.cfg)
        self._theirs_setup(app)

    def _reap_workers(self) -> None:
        # On gunicorn before 24 this runs in a signal handler.
        self._pool.note_ends()
        self._theirs_reap_workers()

    def _stop(self, graceful: bool = True) -> None:
        self._stopping = True
        self._pool.stop()
        self._theirs_stop(graceful)
        self._pool.zygotes.end()
