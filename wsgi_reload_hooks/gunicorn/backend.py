"""gunicorn's part of a reload: new workers boot next to the old ones behind a gate; once all are ready they replace them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..control.channel import Message
from ..core.log import ReloadLog
from ..core.refusal import Refusal
from ..core.settings import Settings
from ..process.helper import Helper
from ..process.sockets import somaxconn
from ..reload.backend import Trial
from ..reload.commands import Attempt, News, Phase, Report
from ..reload.loop import ReloadLoop
from ..report.publisher import Publisher
from ..trial.compile_first import CompileFirst
from ..watching.rules import Files
from ..watching.signature import Digest
from .after_fork import AfterFork
from .batch_trial import BatchTrial
from .config import ConfigurationUpdate, configuration_files
from .pool import WorkerPool
from .rights import rights_of_workers
from .setting_checks import check_settings
from .user_hooks import named
from .watcher import Watcher
from .worker import SpawnSpec
from .worker_handle import Batch, WorkerHandle, WorkerState

# Old workers that have been told to leave look at that once a second.
_STILL_TAKING = 2.0


class GunicornBackend:
    """Implements `reload.backend.Backend` for one arbiter; makes its `ReloadLoop`."""

    verb = "reloaded"

    loop: ReloadLoop
    """Set by the arbiter as soon as it is made."""

    def __init__(
        self,
        server: Any,
        settings: Settings,
        files: Files,
        log: ReloadLog,
        pool: WorkerPool,
        publisher: Publisher,
        watcher: Watcher,
        after_fork: AfterFork,
    ) -> None:
        self.settings = settings
        self.files = files
        self.pool = pool
        self.introduced = False
        """Whether the first start is over: all workers serve."""
        self._server = server
        self._log = log
        self._publisher = publisher
        self._watcher = watcher
        self._after_fork = after_fork
        rights = rights_of_workers(server.cfg)
        self.helper = Helper(sys.executable, None if rights is None else (rights.uid, rights.gid, rights.groups))
        self.configuration = ConfigurationUpdate(server, log, self._content)
        self._trial: BatchTrial | None = None
        self._replaces_more = False

    # -- the trial -----------------------------------------------------------------------------------------------------

    def start_trial(self, attempt: Attempt) -> Trial:
        """See `reload.backend.Backend`."""
        self.withdraw(self.pool.batch())
        self.configuration.restore()
        self._trial = None

        def boot() -> Trial:
            self._trial = BatchTrial(self, attempt)
            return self._trial

        return CompileFirst(self.helper, attempt.paths - self.loop.watched.names, boot, self.settings.boot_timeout)

    def prepare(self, attempt: Attempt) -> Refusal | None:
        """Do what comes before the first fork: load the configuration, call the user's on_reload.

        Why *attempt* is refused, if it is. Raises HookFailed.
        """
        why = self.configuration.load(attempt, self.serves())
        if why is None:
            self.loop.machine.leave_out(attempt, self.configuration.refused_files)
            with named("on_reload"):
                self._server.cfg.on_reload(self._server)
        return why

    def batch_size(self) -> int:
        """How many new workers boot at once."""
        workers = self.pool.target if self.configuration.workers is None else self.configuration.workers
        return min(self.settings.surge or workers, workers)

    def spawn(self, batch: Batch) -> None:
        """Start the workers of *batch*. Raises OSError, and what the user's pre_fork raises."""
        kept = None if batch.attempt is not None else self.pool.zygotes.idle()
        if kept is not None:
            self.pool.zygotes.order(kept, batch)
        elif self.pool.zygotes.wanted and batch.size:
            self.pool.zygotes.load(batch, lambda way, channel: self._after_fork.run_zygote(way, channel, batch))
        else:
            self.pool.spawn(SpawnSpec(gate=batch.gate, changed=batch.changed), batch.size, batch)

    def withdraw(self, batch: Batch | None) -> None:
        """Stop the workers of *batch*, if there is one that boots."""
        if batch is not None and not batch.closed:
            self.pool.withdraw(batch, time.monotonic())

    def withdraw_abandoned(self) -> None:
        """Stop ready workers whose attempt is over: what they loaded was saved again, and a pause holds that back."""
        batch = self.pool.batch()
        if batch is not None and batch.attempt is not None and not self.loop.busy_trying:
            self.withdraw(batch)
            self.configuration.restore()

    # -- the switch ----------------------------------------------------------------------------------------------------

    def start_switch(self, attempt: Attempt) -> None:
        """See `reload.backend.Backend`: let the new workers in, and retire as many old ones."""
        assert self._trial is not None and self._trial.batch is not None
        batch, self._trial = self._trial.batch, None
        if self.configuration.workers is not None:
            self.pool.target = self.configuration.workers
        new = self._new_workers(batch)
        old = [each for each in self.pool.all(WorkerState.SERVING, WorkerState.BOOTING) if each not in new]
        old.sort(key=lambda member: not member.error_page)
        leaving = old[: len(new)] if len(new) < self.pool.target else old
        self.let_in(batch, leaving)
        for member in self.pool.all(WorkerState.SERVING, WorkerState.BOOTING):
            member.wants_replacement = member not in new
        self._replaces_more = len(leaving) < len(old)
        self.configuration.keep()

    def let_in(self, batch: Batch, leaving: Iterable[WorkerHandle]) -> None:
        """Open the gate of *batch*, whose workers are all ready, and retire those that are *leaving*."""
        now, new = time.monotonic(), self._new_workers(batch)
        zygote = next((member for member in self.pool.of(batch) if member.zygote is not None), None)
        if zygote is not None:
            self._keep(zygote)
        elif batch.attempt is not None:
            self.pool.zygotes.dismiss()
        for member in new:
            self.enter_service(member)
        batch.closed = True
        batch.gate.open(len(new))
        for member in leaving:
            self.pool.retire(member, now)

    def poll_switch(self, now: float) -> bool:
        """See `reload.backend.Backend`: with the setting surge, the rest of the old workers is replaced one by one."""
        if self._replaces_more:
            serving = self.pool.all(WorkerState.SERVING, WorkerState.BOOTING)
            old = any(member.wants_replacement or member.error_page for member in serving)
            self._replaces_more = old or bool(self.pool.all(WorkerState.RETIRING))
        return not self._replaces_more

    def enter_service(self, member: WorkerHandle) -> None:
        """*member* serves from now on."""
        machine = self.loop.machine
        member.state, member.batch = WorkerState.SERVING, None
        for path, content in member.loaded.items():
            machine.loaded(path, content)
        self.loop.watched.add(member.loaded)
        member.loaded = {}
        if member.error_page:
            return
        machine.served()
        if not self.introduced and len(self.pool.all(WorkerState.SERVING)) >= self.pool.target:
            self.introduced = True
            if machine.phase is Phase.IDLE:
                # Else a save was faster than the last worker: the files that could repair it are watched, too.
                self.loop.watched.serving()
            self._publisher.record.engine = self._watcher.describe()
            watched = self.loop.status()["watched"]
            self._log.info("watching %d files %s", watched, self._publisher.record.engine, event="watching")

    def _content(self, path: str) -> Digest:
        return self.loop.digests.now(path)

    def _new_workers(self, batch: Batch) -> list[WorkerHandle]:
        return [member for member in self.pool.of(batch) if member.zygote is None]

    def _keep(self, zygote: WorkerHandle) -> None:
        """What *zygote* has loaded is in service: it forks all workers from now on."""
        if not zygote.kept:
            for path, content in zygote.loaded.items():
                self.loop.machine.loaded(path, content)
            self.loop.watched.add(zygote.loaded)
            zygote.loaded = {}
        zygote.kept, zygote.batch = True, None
        self.pool.zygotes.dismiss(but=zygote)

    # -- what the loop asks --------------------------------------------------------------------------------------------

    def status(self) -> Mapping[str, Any]:
        """See `reload.backend.Backend`."""
        workers = [member.pid for member in self.pool.all(WorkerState.SERVING)]
        return {"pids": workers, "workers": len(workers)}

    def busy(self) -> bool:
        """See `reload.backend.Backend`."""
        now = time.monotonic()
        leaving = any(
            not member.terminated or now - member.terminated < _STILL_TAKING
            for member in self.pool.all(WorkerState.RETIRING)
        )
        booting = any(member.batch is not None for member in self.pool.all(WorkerState.BOOTING))
        machine = self.loop.machine
        starting = not self.introduced and machine.phase is not Phase.REFUSED
        # An error page that is about to go.
        replaced = machine.phase in (Phase.IDLE, Phase.SWITCHING) and not machine.held
        page = replaced and any(member.error_page for member in self.pool.all(WorkerState.SERVING))
        return leaving or booting or starting or page

    def loaded_by(self, path: str) -> list[int]:
        """See `reload.backend.Backend`."""
        workers = self.pool.all(WorkerState.SERVING, WorkerState.BOOTING, WorkerState.RETIRING)
        return [member.pid for member in workers if path in member.files or path in member.inherited]

    def examine(self) -> Message:
        """See `reload.backend.Backend`."""
        cfg, place = self._server.cfg, f"process {self._server.pid}"
        given = {"raw_env": cfg.raw_env, "backlog": cfg.backlog, **cfg.post_fork.switched_off}
        share = self.settings.share
        found = check_settings(given, lambda name: place, hooks=True, share=share, somaxconn=somaxconn())
        name = "" if cfg.paste is not None else getattr(self._server.app, "app_uri", None) or cfg.wsgi_app
        return {"findings": [each._asdict() for each in found], "application": name or ""}

    def listed_files(self) -> Iterable[str]:
        """See `reload.backend.Backend`."""
        return configuration_files(self._server)

    def serves(self) -> bool:
        """See `reload.backend.Backend`."""
        return self.loop.machine.ever_served

    def reported(self, report: Report) -> None:
        """See `reload.backend.Backend`. Good code may be in service beside a configuration that is refused."""
        refused = self.configuration.still_refused() if report.news is News.RELOADED else None
        if refused is not None:
            why, is_news = refused
            self._publisher.refused(why, is_news)
