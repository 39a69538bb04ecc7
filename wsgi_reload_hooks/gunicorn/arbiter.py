"""A gunicorn arbiter that rolls: new workers boot beside the old ones, and take over together or not at all.

Everything is put on the one arbiter object, nothing on gunicorn's classes: `manage_workers` does our step and then
its own, `reload` only asks (from any thread), `setup` chains our hooks again, `stop` sends new workers away first.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ..control.service import ControlService, control_or_none
from ..core.log import BROKEN, BROKEN_START, NOT_REPLACED, REFUSED, reasons
from ..core.refusal import Refusal
from ..core.settings import Settings
from ..core.text import printable
from ..django.assets import Assets
from ..process import linux
from ..process.counters import Generation
from ..process.pipe import Message
from ..reload.reloader import Reloader, ReloaderSource, State
from ..reload.watchlist import WatchList
from ..report.callbacks import Callbacks, Rights
from ..report.history import History
from ..report.publisher import Publisher
from ..trial.sources import compile_sources
from ..watching.rules import Files
from ..watching.scanner import Scanner
from ..watching.signature import Digest, Digests, Signature
from .after_fork import AfterFork
from .config import Configuration, configuration_files
from .gate import Gate
from .log import journal, version
from .pool import Batch, Role, WorkerHandle, WorkerPool
from .status_source import ArbiterStatus
from .watcher import Watcher
from .worker import SpawnSpec

_RETRY = 5.0
_DIED = "the new worker ended without a word"
_CONFIGURATION_REFUSED = "configuration refused, still running with the previous one"


class RollingArbiter:
    """The hooks on one arbiter. Methods run in its main thread, but those that say otherwise."""

    def __init__(self, server: Any, settings: Settings) -> None:
        self._server = server
        self._settings = settings
        self._files = Files(settings)
        self._journal = journal(server.log, self._files, settings.log_format)
        self._digests = Digests()
        self._scanner = Scanner()
        self._reloader = Reloader(self._digests, self._journal.debug)
        self._watch = WatchList(self._scanner, self._files, self._reloader)
        # The workers are forked from this process: what they compare with has to be there before.
        self._generation = Generation()
        self._assets = Assets(self._files, self._scanner, self._journal, self._generation)
        self._crew = WorkerPool(server)
        self._started = self._active = self._stopping = False
        self._served = self._introduced = self._held = False
        self._told_no_share = False
        self._unheard: list[tuple[int, Message]] = []
        self._desk: ControlService | None = None
        self._record = History(server="gunicorn", version=version(), root=self._files.root)
        callbacks = Callbacks(settings, self._journal, self._files.root, rights=_rights(server.cfg))
        self._chronicle = Publisher(settings, self._journal, self._record, callbacks)
        self._target = self._set = 0
        self._retry_at = self._restart_at = 0.0
        self._asked_at: float | None = None
        self._rolling: tuple[float, str | None, set[str]] | None = None
        self._configuration: Configuration | None = None
        self._refused_configuration: dict[str, Digest] = {}
        self._configuration_why: Refusal | None = None
        self._configuration_news = False

    # -- being put in place ------------------------------------------------------------------------------------

    def chain(self, cfg: Any) -> None:
        """Put our hooks before the user's own in *cfg*; what they set against us is switched off, and told."""
        if getattr(cfg.post_fork, "chained", False):
            return
        their_when_ready, their_post_fork, their_on_exit = cfg.when_ready, cfg.post_fork, cfg.on_exit
        their_pre_fork = cfg.pre_fork

        def when_ready(server: Any) -> None:
            self.start()
            their_when_ready(server)

        def pre_fork(server: Any, worker: Any) -> None:
            their_pre_fork(server, worker)
            if self._active:
                self._crew.about_to_fork()

        def post_fork(server: Any, worker: Any) -> None:
            self._crew.born()
            if self._active:
                self._offspring.begin_worker(worker, their_post_fork)
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
            # A zygote does it, from the first generation on: the arbiter stays clean.
            cfg.set("preload_app", False)
        if cfg.reload and (self._active or not cfg.preload_app):
            cfg.set("reload", False)
            self._journal.warning("gunicorn's own reload is switched off, these hooks do its work: remove --reload")

    @property
    def _share(self) -> bool:
        """Whether workers are forked by a zygote, by the configuration of now."""
        return bool(getattr(self._server.cfg.post_fork, "shares", False))

    def _shares(self, cfg: Any) -> bool:
        """Whether workers are forked by a zygote."""
        wanted = self._settings.share == "always" or (self._settings.share == "auto" and bool(cfg.preload_app))
        if wanted and not linux.available():
            if not self._told_no_share:
                self._told_no_share = True
                self._journal.warning("no import is shared on this system: each worker imports by itself")
            return False
        return wanted

    def start(self) -> None:
        """Take the arbiter over and start the watcher thread."""
        if self._started:
            return
        self._started = True
        server = self._server
        if server.cfg.preload_app:
            self._journal.warning(
                "the application was loaded before these hooks, saves are not served: workers are copies of code "
                "that was loaded once. Import wsgi_reload_hooks.gunicorn_conf in gunicorn's configuration, or remove "
                "preload_app"
            )
            return
        if getattr(server.cfg, "dirty_workers", 0) and getattr(server.cfg, "dirty_apps", None):
            self._journal.warning("dirty workers are not reloaded on a save: restart gunicorn for them")
        self._active = True
        self._record.pid, self._record.started = server.pid, time.time()
        control = control_or_none("gunicorn", server.pid, self._journal.warning)
        self._lookout = Watcher(server, self._settings, self._files, self._scanner, control)
        if control is not None:
            under_way, share = self._is_under_way, self._settings.share
            clerk = ArbiterStatus(server, self._crew, self._scanner, self._record, under_way, share)
            self._desk = ControlService(control, ReloaderSource(self._reloader, clerk), self._files, self._lookout)
        self._offspring = AfterFork(
            server, self._settings, self._files, self._generation, self._crew, self._lookout, self._chronicle
        )
        self._target = self._set = server.num_workers
        # Exit statuses are 0 to 255: no failed boot halts the arbiter any more.
        server.WORKER_BOOT_ERROR = server.APP_LOAD_ERROR = -1
        self._theirs_manage_workers = server.manage_workers
        self._theirs_setup = server.setup
        self._theirs_stop = server.stop
        self._theirs_reap_workers = server.reap_workers
        self._crew.take_over()
        server.manage_workers = self._manage_workers
        server.setup = self._setup
        server.stop = self._stop
        server.reap_workers = self._reap_workers
        server.reload = self.reload
        for name, source in self._settings.sources.items():
            self._journal.debug("setting %s = %r from %s", name, getattr(self._settings, name), printable(source))
        self._watch.listed(configuration_files(server))
        self._watch.trying()
        self._lookout.start()

    def close(self) -> None:
        """Stop the watcher thread."""
        if self._active:
            self._active = False
            self._lookout.close()

    def reload(self, changed: Iterable[str] | None = None) -> None:
        """Ask for a reload; safe from any thread and from a signal handler. The main loop carries it out.

        *changed*: paths that may have changed; they decide whether there is anything to do. None (a HUP, `gunicornc
        reload`, one's own code): configuration and code are loaded anew whatever the files say.
        """
        self._lookout.ask(changed)

    # -- the step ----------------------------------------------------------------------------------------------

    def _manage_workers(self) -> None:
        if not self._stopping:
            try:
                self._step(time.monotonic())
            except Exception as error:
                # Whatever we did wrong: the server is worth more than a reload.
                self._journal.failure("an error in the hooks themselves, the server goes on; please report it", error)
        if self._stopping:
            self._theirs_manage_workers()
        elif self._share or not self._held:
            # Before 24 workers are reaped in a signal handler. Not between our counting and gunicorn's: it would replace
            # one that has retired, and end one that serves for that.
            with self._crew.nobody_reaped():
                self._count()
                self._theirs_manage_workers()
        # Held, not even asked: before 24 a death at this moment would have it fork a worker outside every gate.

    def _step(self, now: float) -> None:
        """All that is to do in the arbiter's main loop; never waits."""
        # TTIN, TTOU and WINCH change the number we set: the difference is what the user wants.
        self._target = max(0, self._target + self._server.num_workers - self._set)
        self._lookout.pump()
        while self._lookout.inbox:
            self._take(*self._lookout.inbox.popleft(), now)
        if 0 < self._restart_at < now:
            self._restart_at = 0.0
            self._lookout.start()
        for member in self._crew.bury():
            self._lookout.reports.forget(member.pid)
            if member.role is Role.BOOTING or (member.role is Role.ZYGOTE and member.batch is not None):
                self._failed(member, now)
        if self._desk is not None:
            self._desk.step()
            self._record.paused = self._desk.paused_until is not None
        self._decide(now)
        self._chronicle.look(len(self._scanner), len(self._crew.all(Role.SERVING)))
        self._crew.press(now)
        self._dismiss_surplus(now)
        self._set_num_workers(now)
        self._lookout.look()

    def _take(self, kind: str, what: Any, now: float) -> None:
        if kind == "said":
            for pid, message in self._lookout.reports.decode(what):
                member = self._crew.get(pid)
                try:
                    if member is not None:
                        self._heard(member, message)
                    elif self._share:
                        # A worker may speak before its zygote has told of its birth.
                        self._unheard.append((pid, message))
                except (KeyError, TypeError, ValueError) as error:
                    self._journal.debug("not a report of ours, from worker %d: %r", pid, error)
        elif kind == "changed":
            self._changed(what, now)
        elif kind == "asked":
            self._asked_at = self._asked_at or now
            self._reloader.asked("HUP")
        elif kind == "told":
            self._journal.warning("%s", what)
        elif kind == "called" and self._desk is not None:
            self._desk.take(what)
        elif kind == "crashed":
            self._journal.failure("the watcher failed and starts again in 5 s", what)
            self._restart_at = now + _RETRY

    def _heard(self, member: WorkerHandle, message: Message) -> None:
        kind = message.pop("kind")
        if kind == "loaded":
            self._heard_loaded(member, message["path"], message["signature"])
        elif kind == "ready":
            if member.zygote is not None:
                self._loaded_all(member)
                return
            member.ready, member.duck = True, message["duck"]
            if member.batch is None and member.role is Role.BOOTING:
                self._in_service(member)
        elif kind == "forked":
            self._born(member, message["age"], message["worker"])
        elif kind == "delivered":
            self._delivered(member, message["ages"])
        elif kind == "refused":
            member.why = Refusal(**{**message, "files": tuple(message["files"])})
        elif kind == "recycle":
            member.recycle = True
        elif kind == "assets":
            self._assets.heard(message["folders"], message["since"])

    def _loaded_all(self, member: WorkerHandle) -> None:
        """A zygote has loaded: it forks the workers it was made for."""
        member.loaded_all = True
        batch = member.batch
        if batch is None:
            return
        if batch.of_reload and self._reloader.outdated():
            # Saved again while it was being loaded: no worker need be forked of it.
            self._reloader.changed(self._reloader.outdated())
            self._reloader.wanted = True
            self._lookout.wake()
        else:
            try:
                self._crew.order(member, batch, batch.size)
            except OSError as error:
                self._refuse(_no_room(error), batch)

    def _delivered(self, zygote: WorkerHandle, ages: Sequence[int]) -> None:
        complete = self._crew.delivered(zygote, ages)
        if not self._crew.delivering():
            # Whoever is not known by now never will be.
            self._unheard.clear()
        why, zygote.why = zygote.why, None
        if not complete and zygote.batch is not None:
            self._refuse(why or Refusal("a new worker could not be forked"), zygote.batch)

    def _born(self, zygote: WorkerHandle, age: int, pid: int) -> None:
        self._crew.adopt(zygote, age, pid)
        waiting, self._unheard = self._unheard, []
        for other, message in waiting:
            member = self._crew.get(other)
            if member is None:
                self._unheard.append((other, message))
            else:
                self._heard(member, message)

    def _heard_loaded(self, member: WorkerHandle, path: str, found: list[int] | None) -> None:
        seen = None if found is None else Signature(*found)
        content = self._digests.at(path, seen)
        member.last_loaded = path
        member.files.add(sys.intern(path))
        self._scanner.watch(path, seen)
        if member.role is Role.SERVING:
            self._reloader.serves(path, content)
        elif member.batch is not None and member.batch.of_reload:
            self._reloader.tried(path, content)
        else:
            member.loaded[path] = content

    def _in_service(self, member: WorkerHandle) -> None:
        member.role, member.batch = Role.SERVING, None
        for path, content in member.loaded.items():
            self._reloader.serves(path, content)
        self._watch.add(member.loaded)
        member.loaded = {}
        if member.page:
            return
        if not self._served and self._reloader.state is State.REFUSED:
            self._reloader.served_after_all()
        self._served = True
        if not self._introduced and len(self._crew.all(Role.SERVING)) >= self._target:
            self._introduced = True
            if self._reloader.state is State.IDLE:
                # Else a save was faster than the last worker: what could repair it is watched, too.
                self._watch.serving()
            self._record.engine = self._lookout.describe()
            self._journal.info("watching %d files %s", len(self._scanner), self._record.engine, event="watching")

    def _changed(self, found: frozenset[str], now: float) -> None:
        paths = self._assets.changed(set(found), self._watch.reloading(set(found)))
        if not paths:
            return
        folders = {path for path in paths if os.path.isdir(path)}
        before = self._reloader.state
        if not self._reloader.changed(paths - folders, folders):
            return
        if self._reloader.wanted:
            self._asked_at = self._asked_at or now
        elif before is not State.IDLE:
            self._asked_at = None
            self._watch.serving()
            self._chronicle.idle()
            self._journal.info(
                "%s: as it is in service again, nothing to load", self._journal.names(paths), event="taken_back"
            )

    def _failed(self, member: WorkerHandle, now: float) -> None:
        """A worker died before it was ready."""
        why = member.why or self._without_a_word(member)
        if member.batch is not None:
            self._refuse(why, member.batch, loaded=member.loaded)
        elif member.page:
            self._retry_at = now + _RETRY
        elif not self._served:
            self._failed_start(why, member.loaded)
        elif self._disk_is_good():
            self._not_replaced(why, member.loaded, now)

    def _not_replaced(self, why: Refusal, loaded: Iterable[str], now: float) -> None:
        """A worker that was to take another one's place, with the same code, did not boot."""
        if self._reloader.changed(set(self._reloader.service)):
            # A save that it met before we did: the attempt that follows will tell.
            return
        # The disk is as loaded: what this worker met may pass by itself.
        self._retry_at = now + _RETRY
        self._watch.refused(why, loaded)
        if self._reloader.news(why):
            self._journal.refusal(NOT_REPLACED, why)

    def _without_a_word(self, member: WorkerHandle) -> Refusal:
        """Nobody can say where it was: most likely in what was saved, after what it had loaded."""
        saved = sorted(path for path in self._reloader.pending if member.batch is not None and not os.path.isdir(path))
        last = member.last_loaded
        after = "" if last is None else f"; the last file it loaded is {self._files.relative(last)}"
        reason = f"{_DIED} ({member.ended or 'os._exit, a crash, or killed'}){after}"
        return Refusal(reason, saved[0] if saved else None, files=tuple(path for path in (last, *saved) if path))

    def _failed_start(self, why: Refusal, loaded: dict[str, Digest]) -> None:
        if self._settings.broken_start == "exit":
            from gunicorn.errors import HaltServer

            self._journal.refusal(BROKEN, why)
            raise HaltServer("Worker failed to boot.", 3)
        self._reloader.failed_start(loaded)
        news = self._reloader.refused(why)
        self._watch.refused(why, self._reloader.attempt)
        self._chronicle.refused(why, news)
        if news:
            self._journal.refusal(BROKEN_START, why)

    # -- deciding ----------------------------------------------------------------------------------------------

    def _decide(self, now: float) -> None:
        batch = self._crew.batch()
        # In a pause whoever replaces a worker, by a zygote that has the code in service, goes on.
        if batch is not None and (self._reloader.due or (self._reloader.wanted and batch.of_reload)):
            self._crew.withdraw(batch, now)
            self._restore_configuration()
            batch = None
        if self._reloader.due:
            if len(self._crew.all(Role.RETIRING)) <= 2 * max(self._target, 1):
                self._begin(now)
            else:
                self._crew.end_pile_up(now)
        elif batch is not None and batch.of_reload and self._reloader.state is State.IDLE:
            # Taken back while it was being tried.
            self._crew.withdraw(batch, now)
            self._restore_configuration()
        elif batch is not None:
            self._advance(batch, now)
        elif now < self._retry_at:
            return
        elif self._disk_is_good() or self._crew.zygote() is not None:
            self._recycle(now)
            self._fill_up(now)
        elif self._served and self._target and not self._crew.all(Role.SERVING, Role.BOOTING):
            self._journal.warning("no worker is left that has the application: an error page answers until a repair")
            self._crew.spawn(SpawnSpec(page=True), 1)

    def _begin(self, now: float) -> None:
        """Start an attempt: all workers anew, or as many as may boot beside the old ones."""
        requested = self._reloader.request is not None
        paths = self._reloader.begin()
        self._chronicle.begins(paths, requested)
        self._watch.trying()
        self._asked_at = self._asked_at or now
        configured = configuration_files(self._server) & paths
        why = self._load_configuration(configured, requested)
        if why is not None and (requested or paths == configured):
            self._refuse(why, about=_CONFIGURATION_REFUSED)
            return
        if why is not None and self._reloader.news(why):
            # Good code beside it need not wait: it gets the configuration of before.
            self._journal.refusal(_CONFIGURATION_REFUSED, why)
            self._configuration_news = True
        why = compile_sources(paths - self._watch.names)
        if why is not None:
            self._refuse(why)
            return
        workers = self._configuration.workers if self._configuration else self._target
        batch = Batch(Gate(), now + self._settings.boot_timeout)
        self._spawn(batch, min(self._settings.surge or workers, workers), paths, now)

    def _load_configuration(self, configured: set[str], requested: bool) -> Refusal | None:
        """Load it where it changed, but not once more what was refused, unless that is asked for."""
        found = {path: self._digests.now(path) for path in configured}
        if not requested and (not configured or found == self._refused_configuration):
            return None
        self._configuration = Configuration(self._server)
        why = self._configuration.load()
        self._refused_configuration = {} if why is None else found
        self._configuration_why = why
        if why is not None:
            self._configuration = None
        return why

    def _recycle(self, now: float) -> None:
        """Replace, one for one, the workers that asked for it, those a reload with `surge` has left, and the error page."""
        tired = [member for member in self._crew.all(Role.SERVING) if member.recycle or member.page]
        retiring = len(self._crew.all(Role.RETIRING))
        room = (self._settings.surge or max(self._target, 1)) - retiring
        if tired and room > 0:
            tired = tired[:room]
            victims = frozenset(member.pid for member in tired)
            batch = Batch(Gate(), now + self._settings.boot_timeout, victims)
            self._spawn(batch, len(tired), (), now)
        elif not tired and not retiring:
            self._tell_reloaded(now)

    def _fill_up(self, now: float) -> None:
        """With a zygote it is ours to keep the number of workers, from the first on."""
        missing = self._target - len(self._crew.all(Role.SERVING, Role.BOOTING))
        if self._share and missing > 0 and self._crew.batch() is None:
            batch = Batch(Gate(), now + self._settings.boot_timeout, frozenset())
            self._spawn(batch, missing, (), now)

    def _spawn(self, batch: Batch, size: int, changed: Iterable[str], now: float) -> None:
        changed = frozenset(changed)
        batch.size, batch.changed = size, changed
        kept = None if batch.of_reload else self._crew.zygote()
        try:
            if kept is not None:
                self._crew.order(kept, batch, size)
            elif self._share and size:
                self._crew.load(batch, lambda way: self._offspring.live(way, batch))
            else:
                self._crew.spawn(SpawnSpec(gate=batch.gate, changed=changed), size, batch)
        except OSError as error:
            self._refuse(_no_room(error), batch)
        if size == 0:
            self._switch(batch, [], now)

    def _advance(self, batch: Batch, now: float) -> None:
        crew = self._crew.of(batch)
        late = [member for member in crew if not member.ready]
        crew = [member for member in crew if member.zygote is None]
        if not late:
            outdated = self._reloader.outdated() if batch.of_reload else set()
            if outdated:
                # Saved again while it was being loaded.
                self._reloader.changed(outdated)
                self._reloader.wanted = True
                self._lookout.wake()
            else:
                self._switch(batch, crew, now)
        elif now > batch.deadline and not batch.overdue:
            # Asked where they are, late workers leave; the answer is the refusal.
            batch.overdue, batch.deadline = True, now + 1.0
            for member in late:
                self._crew.urge(member)
        elif now > batch.deadline:
            self._refuse(Refusal("a new worker was not ready", late[0].last_loaded), batch)

    def _switch(self, batch: Batch, crew: list[WorkerHandle], now: float) -> None:
        """Let the new workers in and the old ones go."""
        old = [member for member in self._crew.all(Role.SERVING, Role.BOOTING) if member not in crew]
        request = self._reloader.request
        paths = self._proven() if batch.of_reload else set()
        if batch.victims is None:
            old.sort(key=lambda member: not member.page)
            leaving = old[: len(crew)] if len(crew) < self._target else old
        else:
            leaving = [member for member in old if member.pid in batch.victims]
        zygote = next((member for member in self._crew.of(batch) if member.zygote is not None), None)
        if zygote is not None:
            self._keep(zygote)
        elif batch.of_reload:
            self._crew.dismiss_zygotes()
        for member in crew:
            self._in_service(member)
        batch.gate.open(len(crew))
        for member in leaving:
            self._crew.retire(member, now)
        if batch.of_reload:
            for member in self._crew.all(Role.SERVING, Role.BOOTING):
                member.recycle = member not in crew
            self._rolling = (self._asked_at or now, request, paths)
            self._reloader.switched()
            self._asked_at = now if self._reloader.wanted else None
            if len(leaving) == len(old):
                self._tell_reloaded(now)

    def _keep(self, zygote: WorkerHandle) -> None:
        """What it has loaded is in service: it forks whoever is needed from now on."""
        if not zygote.kept:
            for path, content in zygote.loaded.items():
                self._reloader.serves(path, content)
            self._watch.add(zygote.loaded)
            zygote.loaded = {}
        zygote.kept, zygote.batch = True, None
        self._crew.dismiss_zygotes(but=zygote)

    def _proven(self) -> set[str]:
        """The new code is good. What was changed."""
        paths = self._reloader.proven() - set(self._refused_configuration)
        if self._configuration is not None:
            self._target = self._configuration.workers
            self._configuration.keep()
            self._configuration = None
        try:
            self._server.cfg.on_reload(self._server)
        except Exception as error:
            self._journal.failure("the hook on_reload raised, the reload goes on", error)
        self._watch.listed(configuration_files(self._server))
        self._watch.serving()
        return paths

    def _tell_reloaded(self, now: float) -> None:
        if self._rolling is not None:
            since, request, paths = self._rolling
            names = self._journal.names(paths, request)
            self._rolling = None
            workers = len(self._crew.all(Role.SERVING))
            told = {"seconds": now - since, "files": sorted(paths), "workers": workers}
            text = "reloaded in %.2f s: %s; %d worker" + ("s" if workers != 1 else "")
            self._journal.info(text, now - since, names, workers, event="reloaded", **told)
            self._chronicle.reloaded(paths, now - since, workers, request)
            self._tell_configuration()

    def _tell_configuration(self) -> None:
        """Where good code went in beside a configuration that is refused: so it is, still."""
        refused, why = self._refused_configuration, self._configuration_why
        if why is not None and all(self._digests.now(path) == content for path, content in refused.items()):
            self._chronicle.refused(why, self._configuration_news)
        self._configuration_news = False

    def _refuse(
        self,
        why: Refusal,
        batch: Batch | None = None,
        about: str = REFUSED,
        loaded: dict[str, Digest] | None = None,
    ) -> None:
        """The new code is no good: send the new workers away, keep the old ones, tell it."""
        now = time.monotonic()
        loaded = dict(loaded or {})
        if batch is not None:
            for member in self._crew.of(batch):
                loaded.update(member.loaded)
            if batch.overdue:
                why = dataclasses.replace(why, reason=f"{why.reason} within {self._settings.boot_timeout:g} s")
            self._crew.withdraw(batch, now)
        if batch is not None and not batch.of_reload:
            if self._served:
                self._not_replaced(why, (), now)
            else:
                self._failed_start(why, loaded)
            return
        self._restore_configuration()
        self._asked_at = None
        news = self._reloader.refused(why)
        self._watch.refused(why, self._reloader.attempt)
        self._chronicle.refused(why, news)
        if news:
            self._journal.refusal(about if self._served else BROKEN_START, why)
        else:
            self._journal.info("still refused: %s", self._journal.place(why), event="still_refused", **reasons(why))

    def _restore_configuration(self) -> None:
        if self._configuration is not None:
            self._configuration.restore()
            self._configuration = None

    # -- how many ----------------------------------------------------------------------------------------------

    def _dismiss_surplus(self, now: float) -> None:
        """After a TTOU: ours to choose, for gunicorn would signal those who retire already."""
        if self._reloader.state is State.IDLE and self._crew.batch() is None:
            serving = self._crew.all(Role.SERVING)
            for member in serving[: max(0, len(serving) - self._target)]:
                self._crew.retire(member, now)

    def _set_num_workers(self, now: float) -> None:
        """How many workers gunicorn is to keep: it fills up from the disk, so only while the disk is good."""
        self._held = not self._disk_is_good() or now < self._retry_at
        self._count()
        under_way = self._crew.extra() > 0 or self._crew.batch() is not None or self._rolling is not None
        self._lookout.busy = self._held or under_way

    def _count(self) -> None:
        alive = self._held or self._share
        self._set = self._server._num_workers = self._crew.alive() if alive else self._target + self._crew.extra()

    def _disk_is_good(self) -> bool:
        """Whether a worker forked now would load what is in service: nothing is pending but configuration."""
        if self._reloader.state is State.REFUSED and self._served:
            return not self._reloader.pending - configuration_files(self._server)
        return self._reloader.state is State.IDLE and not self._reloader.wanted

    def _is_under_way(self) -> bool:
        """Whether what has begun is not over: the start, a reload, an error page that is about to go."""
        starting = not self._introduced and self._reloader.state is not State.REFUSED
        page = self._disk_is_good() and any(member.page for member in self._crew.all(Role.SERVING))
        return bool(self._rolling or starting or page)

    # -- what gunicorn does, with ours around it ---------------------------------------------------------------

    def _setup(self, app: Any) -> None:
        self.chain(app.cfg)
        self._theirs_setup(app)

    def _reap_workers(self) -> None:
        # On gunicorn before 24 this runs in a signal handler.
        self._crew.note_ends()
        self._theirs_reap_workers()

    def _stop(self, graceful: bool = True) -> None:
        self._stopping = True
        self._crew.stop()
        self._theirs_stop(graceful)
        self._crew.end_zygotes()


def _rights(cfg: Any) -> Rights | None:
    """Those of the workers, where the arbiter has more."""
    if os.geteuid() != 0 or cfg.uid == 0:
        return None
    groups = os.getgrouplist(pwd.getpwuid(cfg.uid).pw_name, cfg.gid) if cfg.initgroups else [cfg.gid]
    return Rights(cfg.uid, cfg.gid, tuple(groups))


def _no_room(error: OSError) -> Refusal:
    return Refusal(f"no new worker can be made: {error.strerror}; see the setting surge")
