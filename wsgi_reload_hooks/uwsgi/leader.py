"""The backend of uWSGI: one worker, the leader, runs the reload loop and has new code loaded by all workers.

A leader may die at any moment, and the next worker takes over: what is in service, what was approved and which workers
are behind is read from the shared state, nothing of it is kept here alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..control.channel import ControlSocket, Message
from ..core.log import ReloadLog
from ..core.settings import Settings
from ..django.assets import Assets
from ..process.counters import Generation
from ..process.helper import Helper
from ..reload.backend import Trial as RunningTrial
from ..reload.commands import Attempt, News, Phase, Report
from ..reload.loop import ReloadLoop
from ..report.callbacks import Callbacks
from ..report.publisher import Publisher
from ..trial import frameworks
from ..trial.compile_first import CompileFirst
from ..trial.plan import Outcome, Plan
from ..trial.sources import compile_sources
from ..trial.trial import FinishedTrial, Trial
from ..watching.engines import Engine
from ..watching.import_hook import forget_bytecode
from ..watching.rules import Files
from ..watching.scanner import Scanner
from ..watching.signature import known_signature
from . import options
from .handover import Handover, refusal_of
from .legacy_gate import is_behind
from .notes import COUNTERS, WorkerNotes, decoded
from .rolling import Progress, RollingRestart
from .server import Server, is_ready
from .shared_state import Note, SharedState

_BUSY = 0.02
_GLANCE = 1.0
_RETRY = 5.0


class Means(NamedTuple):
    """What a leader works with. *plan* makes the plan of a trial, or None where nothing can be tried. *restart* puts
    approved code into service, *on_progress* carries out what its steps ask for. *make_engine* makes what notices changes. *callbacks* are
    the user's own. *control* is where the command line gets in. *executable*: whether uWSGI can execute itself anew.
    """

    plan: Callable[[], Plan | None]
    restart: RollingRestart
    on_progress: Callable[[Progress], bool]
    make_engine: Callable[[Scanner], Engine]
    callbacks: Callbacks
    control: ControlSocket | None
    executable: bool


class Leader:
    """A `reload.backend.Backend` and what feeds its loop. Driven by `step`, from any thread that may block a little."""

    verb = "reloaded"

    def __init__(self, server: Server, settings: Settings, files: Files, state: SharedState, means: Means) -> None:
        self._server = server
        self._settings = settings
        self._files = files
        self._means = means
        self._log = ReloadLog(server.log, files.root, settings.log_format == "json")
        self._handover = Handover(state)
        self._history = self._handover.history()
        self._history.server, self._history.version, self._history.root = "uwsgi", server.version, files.root
        self._history.pid, self._history.started = server.master, self._history.started or time.time()
        publisher = Publisher(settings, self._log, self._history, means.callbacks, self._handover.keep_history)
        self._scanner = Scanner()
        self._assets = Assets(files, self._scanner, self._log, Generation(state.place(COUNTERS)))
        self._assets_of: dict[int, object] = {}
        self._loop = ReloadLoop(self, settings, files, self._scanner, self._log, publisher, self._assets)
        self._loop.answer(means.control)
        self._machine = self._loop.machine
        self._notes = WorkerNotes(state)
        self._began = 0.0
        self._helper: Helper | None = None
        self._failures = 0
        self._failed_at = self._retry_at = 0.0
        try:
            self._take_over(time.monotonic())
            self._engine = means.make_engine(self._scanner)
        except BaseException:
            self._loop.close()
            raise
        self._loop.drive(self._engine)

    def step(self) -> float:
        """Do what is to be done now, never for long. The seconds until the next step."""
        now = time.monotonic()
        self._handover.renew()
        self._read_notes(now)
        self._retry_waiting(now)
        if self._loop.busy_trying:
            self._means.restart.look(now)
        wait = self._loop.step(now)
        self._handover.keep_pause(self._loop.control)
        if self._handover.approved is None and self._machine.phase is Phase.IDLE:
            self._introduce(now)
        if self._notes.waiting:
            return _BUSY
        # Nothing tells of a new note.
        return min(wait, self._settings.interval if self._engine.reader is None else _GLANCE)

    @property
    def readers(self) -> list[int]:
        """File descriptors that are readable when a step is due at once."""
        return self._loop.readers

    def close(self) -> None:
        """End all that runs."""
        self._loop.close()
        if self._helper is not None:
            self._helper.close()
        if self._means.control is not None:
            self._means.control.leave()

    # -- the backend ---------------------------------------------------------------------------------------------------

    def start_trial(self, attempt: Attempt) -> RunningTrial:
        """See `reload.backend.Backend`."""
        self._began = time.monotonic()
        sources = [path for path in attempt.paths if not os.path.isdir(path)]
        timeout, plan = self._settings.boot_timeout, self._means.plan()
        if plan is not None and len(plan.command) == 1:
            self._helper = self._helper or Helper(plan.command[0])
            return CompileFirst(self._helper, sources, lambda: Trial(plan, self._files, timeout), timeout)
        # No interpreter is known that could compile elsewhere: uwsgi --pyrun starts scripts only.
        why = compile_sources(sources)
        if why is not None:
            return FinishedTrial(Outcome(why, {}, 0.0))
        if plan is not None:
            return Trial(plan, self._files, timeout)
        return FinishedTrial(Outcome(None, {path: known_signature(path) for path in self._machine.service}, 0.0))

    def start_switch(self, attempt: Attempt) -> None:
        """See `reload.backend.Backend`. The gates open: workers load the approved code from now on."""
        forget_bytecode(attempt.paths)
        self._handover.approve(self._machine.service, self._began, attempt)

    def poll_switch(self, now: float) -> bool:
        """See `reload.backend.Backend`."""
        approved = self._handover.approved
        if approved is None:
            return False
        if not self._means.on_progress(self._means.restart.step(approved, self._notes.by_pid, now)):
            return False
        self._failures = 0
        self._handover.switched()
        # A trial does not load all that workers do: another application, what a request imports.
        alive = {slot.pid for slot in self._server.workers()}
        for pid, note in self._notes.by_pid.items():
            if pid in alive:
                self._serves(note)
        return True

    def status(self) -> Mapping[str, Any]:
        """See `reload.backend.Backend`."""
        pids = [slot.pid for slot in self._server.workers()]
        return {"pids": pids, "workers": len(pids), "engine": self._engine.describe()}

    def busy(self) -> bool:
        """See `reload.backend.Backend`. A rolling restart is over when every old worker has ended."""
        starting = self._handover.approved is None or self._notes.waiting
        return starting and self._machine.phase is not Phase.REFUSED

    def loaded_by(self, path: str) -> list[int]:
        """See `reload.backend.Backend`."""
        alive = {slot.pid for slot in self._server.workers()}
        return sorted(pid for pid, note in self._notes.by_pid.items() if pid in alive and path in note["files"])

    def examine(self) -> Message:
        """See `reload.backend.Backend`."""
        found = options.findings(self._server, self._means.executable)
        return {"findings": [each._asdict() for each in found], "application": options.application(self._server)}

    def listed_files(self) -> Iterable[str]:
        """See `reload.backend.Backend`. Files besides modules that the targets consist of (an ini file of paste)."""
        plan = self._means.plan()
        return [] if plan is None else [each for target in plan.targets for each in target.files()]

    def serves(self) -> bool:
        """See `reload.backend.Backend`."""
        return self._handover.approved is not None or any(slot.apps for slot in self._server.workers())

    def reported(self, report: Report) -> None:
        """See `reload.backend.Backend`."""
        if report.news in (News.REFUSED, News.NOT_REPLACED):
            self._handover.refused(report.why)
        elif report.news in (News.REVERTED, News.RELOADED):
            self._handover.refused(None)

    # -- the beginning -------------------------------------------------------------------------------------------------

    def _take_over(self, now: float) -> None:
        """Go on where the leader before stopped, or begin with the first start."""
        loop, handover = self._loop, self._handover
        loop.watched.listed(self.listed_files())
        loop.watched.trying()
        service = handover.service()
        for path, (seen, _) in service.items():
            self._scanner.watch(path, seen)
        self._machine.restored(
            {path: content for path, (_, content) in service.items()},
            handover.switching(),
            handover.refusal(),
            served=handover.approved is not None,
        )
        loop.watched.serving()
        handover.restore_pause(loop.control)
        self._notes.read(self._server.workers(), self._note_changed)
        loop.changed(self._machine.service, now)

    def _introduce(self, now: float) -> None:
        """The first start is over when every worker is ready: what they have loaded is as good as tried."""
        slots = self._server.workers()
        notes = self._notes.by_pid
        if not slots or not all(slot.pid in notes and not notes[slot.pid]["held"] and is_ready(slot) for slot in slots):
            return
        if not any(slot.apps for slot in slots):
            return
        self._machine.served()
        self._handover.approve(self._machine.service, now)
        self._loop.watched.serving()
        self._history.engine = self._engine.describe()
        self._log.info("watching %d files %s", len(self._scanner), self._history.engine, event="watching")
        plan = self._means.plan()
        if plan is None:
            return
        apps = max(slot.apps for slot in slots)
        if apps > len(plan.targets):
            self._log.warning("%d applications are loaded, %d known: the others are not tried", apps, len(plan.targets))
        if self._server.has_several_interpreters() or frameworks.unfinished():
            # What another interpreter of the worker has loaded, or a request will, only a trial can tell.
            self._loop.retry(now)

    # -- what workers report ---------------------------------------------------------------------------------------------

    def _read_notes(self, now: float) -> None:
        self._notes.read(self._server.workers(), self._note_changed)
        failure = self._notes.load_failure()
        if failure is not None and failure["at"] > self._handover.approved_at:
            self._load_failed(failure, now)

    def _note_changed(self, number: int, note: Note) -> None:
        assets = note.get("assets")
        if assets and self._assets_of.get(number) != assets:
            self._assets_of[number] = assets
            self._assets.heard(assets["folders"], assets["since"])
        approved = self._handover.approved
        if note["held"] or (approved is not None and is_behind(note, approved)):
            # This worker is about to be replaced.
            return
        self._serves(note)

    def _serves(self, note: Note) -> None:
        for path, (seen, content) in decoded(note["files"]).items():
            self._loop.loaded(path, seen, content=content)

    def _load_failed(self, failure: Note, now: float) -> None:
        """Code did not load in a worker, though its gate was open."""
        why, loaded = refusal_of(failure["why"]), decoded(failure["files"])
        self._failed_at = failure["at"]
        # At once the first time: what was in the way may be gone already.
        self._retry_at = now + _RETRY * bool(self._failures)
        self._failures += 1
        if why.path is None and self._machine.phase in (Phase.TRYING, Phase.REFUSED):
            # Only a trial can tell where.
            return
        if why.path is not None or self._failures > 1:
            self._loop.lost(why, {path: content for path, (_, content) in loaded.items()}, now)
            return
        if not self.serves():
            self._machine.forget(loaded)
            self._loop.changed(loaded, now)
        if not self._loop.busy_trying:
            self._loop.retry(now)

    def _retry_waiting(self, now: float) -> None:
        """A worker waits for good code: try again now and then, the cause may have passed by itself."""
        if not self._notes.waiting or now < self._retry_at or self._loop.busy_trying:
            return
        phase, failed = self._machine.phase, self._failed_at > self._handover.approved_at
        if phase in (Phase.IDLE, Phase.REFUSED) or (phase is Phase.SWITCHING and failed):
            self._retry_at = now + _RETRY
            if phase is not Phase.REFUSED:
                # A save that is not noticed yet may be why the worker waits.
                self._loop.changed(self._machine.service, now)
            if not self._loop.busy_trying:
                self._loop.retry(now)
