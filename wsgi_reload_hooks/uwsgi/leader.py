"""The one worker that watches: it notices a save, has it proven in a fresh interpreter, and rolls the workers.

A leader may die at any moment, and the next worker takes over: what is in service, what was proven and who is behind
is read from the ledger, nothing of it is kept here alone.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

from ..control.channel import ControlSocket, Message
from ..control.service import ControlService
from ..core.log import BROKEN_START, NOT_REPLACED, REFUSED, ReloadLog
from ..core.refusal import Refusal
from ..core.settings import Settings
from ..django.assets import Assets
from ..process.counters import Generation
from ..reload.reloader import Reloader, ReloaderSource, State
from ..reload.watchlist import WatchList
from ..report.callbacks import Callbacks
from ..report.history import History
from ..report.publisher import Publisher
from ..trial import frameworks
from ..trial.sources import compile_sources
from ..trial.trial import Outcome, Plan, Trial
from ..uwsgi import option_checks
from ..watching.checkout import Checkout
from ..watching.debounce import Debouncer, ScanRequests, age
from ..watching.engines import Engine
from ..watching.import_hook import forget_bytecode
from ..watching.rules import Files
from ..watching.scanner import Scanner
from ..watching.signature import Digests, known_signature
from .rolling import RollingRestart
from .server import Server, is_ready
from .shared_state import Note, SharedState, Stamp
from .worker import GENERATION, TROUBLE, VERDICT, Loaded, understood, worker_note, written

_REFUSAL = "refusal"
_PAUSE = "pause"
_RECORD = "record"
_BUSY = 0.02
_GLANCE = 1.0
_RETRY = 5.0


@dataclasses.dataclass(frozen=True)
class Means:
    """What a leader works with. *plan* makes the plan of a rehearsal, or None where nothing can be rehearsed. *exchange*
    puts what was proven into service. *make_engine* makes what notices changes. *callbacks* are the user's own; *control*
    is where the command line gets in. *executable*: whether uWSGI can execute itself anew.
    """

    plan: Callable[[], Plan | None]
    exchange: RollingRestart
    make_engine: Callable[[Scanner], Engine]
    callbacks: Callbacks
    control: ControlSocket | None
    executable: bool


class Leader:
    """One attempt after the other. Driven by `step`, from whatever thread may block a little."""

    def __init__(self, server: Server, settings: Settings, files: Files, ledger: SharedState, means: Means) -> None:
        self._server = server
        self._settings = settings
        self._files = files
        self._ledger = ledger
        self._plan = means.plan
        self._exchange = means.exchange
        self._journal = ReloadLog(server.log, files.root, settings.log_format == "json")
        self._record = History.from_note(ledger.read(_RECORD))
        self._record.server, self._record.version, self._record.root = "uwsgi", server.version, files.root
        self._record.pid, self._record.started = server.master, self._record.started or time.time()
        self._chronicle = Publisher(settings, self._journal, self._record, means.callbacks, self._keep)
        self._digests = Digests()
        self._scanner = Scanner()
        self._reloader = Reloader(self._digests, self._journal.debug)
        self._watch = WatchList(self._scanner, files, self._reloader)
        self._assets = Assets(files, self._scanner, self._journal, Generation(ledger.place(GENERATION)))
        self._heard_assets: dict[int, object] = {}
        self._debouncer = Debouncer(settings.step, settings.debounce, Checkout(files.root).unfinished)
        self._rehearsal: Trial | None = None
        self._heard: dict[str, tuple[Stamp, Note | None]] = {}
        self._heard_trouble: Stamp = None
        self._verdict: Note | None = None
        self._began = self._retry_at = 0.0
        self._looked = time.monotonic()
        self._asked_at: float | None = None
        self._again_at = 0.0
        self._troubles = 0
        self._held = self._told_again = self._failed_start = False
        self._looks = ScanRequests()
        self._control = means.control
        self._executable = means.executable
        self._desk = (
            None
            if means.control is None
            else ControlService(means.control, ReloaderSource(self._reloader, self), files, self._looks)
        )
        self._take_over()
        # Last: it may start a process, which nobody would end if this raised.
        self._engine = means.make_engine(self._scanner)

    def step(self) -> float:
        """Do what is to be done now, never for long. The seconds until the next step."""
        now = time.monotonic()
        if self._verdict is not None:
            self._ledger.restore(VERDICT, self._verdict)
        self._hear(now)
        ordered = self._looks.begin(self._engine)
        found = self._engine.tick(bool(self._debouncer))
        if found:
            self._debouncer.add(found, now, age(found, now - self._looked))
        self._looked = now
        changed = self._debouncer.take(now)
        if changed:
            self._changed(changed, now)
        self._looks.end(self._engine, ordered, bool(self._debouncer))
        self._serve_desk()
        self._decide(now)
        self._chronicle.look(len(self._scanner), len(self._server.workers()))
        if self._reloader.state in (State.PROVING, State.SWITCHING) or self._held or self._looks.due:
            return _BUSY
        wait = self._debouncer.wait(now) if self._debouncer else self._engine.pause()
        # Workers write to the ledger, which nobody tells of.
        return min(wait, self._settings.interval if self._engine.reader is None else _GLANCE)

    @property
    def readers(self) -> list[int]:
        """File descriptors that are readable when a step is due at once."""
        control = None if self._control is None else self._control.reader
        return [each for each in (self._engine.reader, control) if each is not None]

    def close(self) -> None:
        """Leave nothing running."""
        self._withdraw()
        self._engine.close()
        if self._control is not None:
            self._control.leave()

    # -- what the command line asks --------------------------------------------------------------------------------

    def _serve_desk(self) -> None:
        if self._desk is None or self._control is None:
            return
        self._desk.take(self._control.receive())
        before = self._desk.paused_until
        self._desk.step()
        self._record.paused = self._desk.paused_until is not None
        until = self._desk.paused_until
        if until is None and before is not None:
            self._ledger.remove(_PAUSE)
        elif until is not None and until != before:
            self._ledger.write(_PAUSE, {"until": until})
        elif until is not None:
            self._ledger.restore(_PAUSE, {"until": until})

    def _keep(self, note: Note) -> None:
        self._ledger.write(_RECORD, note)

    def status(self) -> Message:
        """See `control.service.StatusSource`."""
        pids = [slot.pid for slot in self._server.workers()]
        known = {"pids": pids, "workers": len(pids), "watched": len(self._scanner), "engine": self._engine.describe()}
        return {**self._record.as_note(), **known}

    def busy(self) -> bool:
        """See `control.service.StatusSource`. A roll is over when every old worker has ended."""
        starting = self._verdict is None or self._held
        return starting and self._reloader.state is not State.REFUSED

    def loaded_by(self, path: str) -> list[int]:
        """See `control.service.StatusSource`."""
        alive = {slot.pid for slot in self._server.workers()}
        return sorted(pid for pid, note in self._notes().items() if pid in alive and path in note["files"])

    def examine(self) -> Message:
        """See `control.service.StatusSource`."""
        found = option_checks.findings(self._server, self._executable)
        return {"findings": [each._asdict() for each in found], "application": option_checks.application(self._server)}

    # -- what is known ---------------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        now = time.monotonic()
        self._watch.listed(self._plan_files())
        self._watch.trying()
        self._verdict = self._ledger.read(VERDICT)
        if self._verdict is not None:
            for path, (found, digest) in understood(self._verdict["files"]).items():
                self._reloader.serves(path, digest)
                self._scanner.watch(path, found)
            if not self._verdict["done"]:
                self._asked_at = self._verdict["asked"]
                self._reloader.resume()
        self._watch.serving()
        self._hear(now)
        refusal = self._ledger.read(_REFUSAL)
        if self._reloader.service:
            self._changed(set(self._reloader.service), now)
        if refusal is not None:
            self._reloader.news(_refused(refusal))
        pause = self._ledger.read(_PAUSE)
        if pause is not None and self._desk is not None:
            self._desk.pause(pause["until"])

    def _plan_files(self) -> list[str]:
        """Files besides modules that the targets are made of (an ini of paste)."""
        plan = self._plan()
        return [] if plan is None else [each for target in plan.targets for each in target.files()]

    def _hear(self, now: float) -> None:
        """Read what workers have written since the last time."""
        slots = self._server.workers()
        # None at all: the master itself waits.
        self._held = not slots
        for slot in slots:
            name = worker_note(slot.number)
            stamp = self._ledger.stamp(name)
            if name not in self._heard or self._heard[name][0] != stamp:
                note = self._ledger.read(name)
                self._heard[name] = stamp, note
                if note is not None and note["pid"] == slot.pid:
                    self._heard_note_assets(slot.number, note)
                    self._heard_loaded(note, now)
            note = self._heard[name][1]
            self._held = self._held or bool(note and note["pid"] == slot.pid and note["held"])
        stamp = self._ledger.stamp(TROUBLE)
        if stamp != self._heard_trouble:
            self._heard_trouble = stamp
            trouble = self._ledger.read(TROUBLE)
            if trouble is not None and trouble["at"] > (self._verdict["began"] if self._verdict else 0.0):
                self._in_trouble(trouble, now)

    def _heard_note_assets(self, number: int, note: Note) -> None:
        assets = note.get("assets")
        if assets and self._heard_assets.get(number) != assets:
            self._heard_assets[number] = assets
            self._assets.heard(assets["folders"], assets["since"])

    def _heard_loaded(self, note: Note, now: float) -> None:
        if note["held"] or (self._verdict is not None and self._exchange.is_behind(note, self._verdict)):
            # What that one has loaded is on its way out.
            return
        stale = set()
        for path, (found, digest) in understood(note["files"]).items():
            if path not in self._reloader.service:
                self._scanner.watch(path, found)
            self._reloader.serves(path, digest)
            if self._digests.now(path) != self._reloader.service[path]:
                stale.add(path)
        if self._reloader.state is not State.SWITCHING:
            self._debouncer.add(stale, now)

    def _in_trouble(self, trouble: Note, now: float) -> None:
        """Code that was let in did not load in a worker."""
        why = _refused(trouble["why"])
        nothing_serves = self._verdict is None and not any(slot.apps for slot in self._server.workers())
        if nothing_serves:
            self._failed_start = True
            self._reloader.failed_start({path: digest for path, (_, digest) in understood(trouble["files"]).items()})
        # At once the first time: what was in the way may be gone already.
        self._retry_at = now + _RETRY * bool(self._troubles)
        self._troubles += 1
        if why.path is None and self._troubles == 1:
            # Nobody knows where: a rehearsal will tell.
            self._reloader.retry()
            return
        news = self._reloader.refused(why)
        self._watch.refused(why, trouble["files"])
        self._chronicle.refused(why, news)
        if news:
            self._journal.refusal(BROKEN_START if nothing_serves else NOT_REPLACED, why)

    def _changed(self, found: set[str], now: float) -> None:
        paths = self._assets.changed(found, self._watch.reloading(found))
        if not paths:
            return
        folders = {path for path in paths if os.path.isdir(path)}
        before = self._reloader.state
        if not self._reloader.changed(paths - folders, folders):
            return
        if self._reloader.wanted:
            self._asked_at = self._asked_at or now
        elif before in (State.PROVING, State.REFUSED):
            self._asked_at = None
            self._ledger.remove(_REFUSAL)
            self._watch.serving()
            if self._verdict is not None and not self._verdict["done"]:
                # Saved in the middle of a roll, and taken back: the roll goes on.
                self._reloader.resume()
            self._chronicle.idle()
            self._journal.info(
                "%s: as it is in service again, nothing to load", self._journal.names(paths), event="taken_back"
            )

    # -- deciding --------------------------------------------------------------------------------------------------

    def _decide(self, now: float) -> None:
        state = self._reloader.state
        if self._reloader.wanted:
            self._withdraw()
        if self._reloader.due:
            self._begin(now)
        elif self._rehearsal is not None and state is State.IDLE:
            # Taken back while it was being tried.
            self._withdraw()
        elif self._rehearsal is not None:
            self._exchange.look(now)
            try:
                outcome = self._rehearsal.poll()
            except OSError as error:
                self._cannot_try(error, now)
                return
            if outcome is not None:
                self._rehearsal = None
                self._told_again = False
                self._judge(outcome, now)
        elif state is State.PROVING and now >= self._again_at and not self._reloader.wanted:
            self._begin(now)
        elif state is State.SWITCHING:
            self._switch(now)
        elif self._held and now >= self._retry_at:
            self._retry_at = now + _RETRY
            self._reloader.retry()
        elif self._verdict is None:
            self._introduce()

    def _introduce(self) -> None:
        """The first start is over when every worker is ready: what they have loaded is as good as proven."""
        slots = self._server.workers()
        notes = self._notes()
        if slots and all(slot.pid in notes and not notes[slot.pid]["held"] and is_ready(slot) for slot in slots):
            if not any(slot.apps for slot in slots) or self._reloader.state is State.REFUSED:
                return
            self._pronounce(set(), done=True)
            self._watch.serving()
            self._record.engine = self._engine.describe()
            self._journal.info("watching %d files %s", len(self._scanner), self._record.engine, event="watching")
            plan = self._plan()
            if plan is None:
                return
            apps = max(slot.apps for slot in slots)
            if apps > len(plan.targets):
                self._journal.warning(
                    "%d applications are loaded, %d known: the others are not rehearsed", apps, len(plan.targets)
                )
            if self._server.has_several_interpreters() or frameworks.unfinished():
                # What another interpreter of the worker has loaded, or a request will, only a rehearsal can tell.
                self._reloader.retry()

    def _notes(self) -> dict[int, Note]:
        """What each worker wrote down, by pid."""
        return {note["pid"]: note for _, note in self._heard.values() if note is not None}

    def _begin(self, now: float) -> None:
        self._began = now
        self._watch.trying()
        requested = self._reloader.request is not None
        pending = self._reloader.begin()
        self._chronicle.begins(pending, requested)
        why = compile_sources(path for path in pending if not os.path.isdir(path))
        if why is not None:
            self._refuse(why, {})
            return
        plan = self._plan()
        if plan is None:
            self._judge(Outcome(None, {path: known_signature(path) for path in self._reloader.service}, 0.0), now)
            return
        try:
            self._rehearsal = Trial(plan, self._files, self._settings.boot_timeout)
        except OSError as error:
            self._cannot_try(error, now)

    def _cannot_try(self, error: OSError, now: float) -> None:
        """No process, no temporary file: that says nothing about the code."""
        self._rehearsal = None
        self._again_at = now + _RETRY
        if not self._told_again:
            self._told_again = True
            self._journal.warning("new code cannot be tried, trying again every 5 s: %s", error)

    def _withdraw(self) -> None:
        rehearsal, self._rehearsal = self._rehearsal, None
        if rehearsal is not None:
            rehearsal.cancel()

    def _judge(self, outcome: Outcome, now: float) -> None:
        for path, found in outcome.loaded.items():
            self._scanner.watch(path, found)
            self._reloader.tried(path, self._digests.at(path, found))
        if outcome.refused is not None:
            self._refuse(outcome.refused, outcome.loaded)
        elif self._reloader.outdated():
            # Saved while it was being imported: what was proven is not what is on disk.
            self._begin(now)
        else:
            request = self._reloader.request
            pending = self._reloader.proven()
            forget_bytecode(pending)
            self._pronounce(pending, done=False, request=request)

    def _refuse(self, why: Refusal, loaded: Any) -> None:
        news = self._reloader.refused(why)
        self._watch.refused(why, loaded)
        self._ledger.write(_REFUSAL, dataclasses.asdict(why))
        self._chronicle.refused(why, news)
        if news:
            self._asked_at = None
            serves = self._verdict is not None or any(slot.apps for slot in self._server.workers())
            self._journal.refusal(REFUSED if serves else BROKEN_START, why)

    def _pronounce(self, pending: set[str], *, done: bool, request: str | None = None) -> None:
        """Write down what is good from now on; the gates open. *request*: who wants all workers anew, if somebody does."""
        if self._verdict is not None and not self._verdict["done"]:
            # The one before did not get through to all workers: this one brings its changes, too.
            pending = pending.union(self._verdict["changed"])
            request = request or self._verdict.get("request")
        files: Loaded = {path: (known_signature(path), digest) for path, digest in self._reloader.service.items()}
        self._verdict = {
            "began": self._began or time.monotonic(),
            "asked": self._asked_at or self._began,
            "files": written(files),
            "changed": sorted(pending),
            "request": request,
            "done": done,
        }
        self._ledger.write(VERDICT, self._verdict)
        self._ledger.remove(_REFUSAL)

    def _switch(self, now: float) -> None:
        verdict = self._verdict
        assert verdict is not None
        if not self._exchange.step(verdict, self._notes(), now):
            return
        self._troubles = 0
        self._verdict = {**verdict, "done": True}
        self._ledger.write(VERDICT, self._verdict)
        self._reloader.switched()
        self._watch.serving()
        seconds, self._asked_at = time.monotonic() - (self._asked_at or now), None
        changed = verdict["changed"]
        count = len(self._server.workers())
        # Repaired while it was being tried, nobody can say what was saved.
        cause = "the repaired start" if self._failed_start and not changed else None
        request = verdict.get("request") or cause
        names = self._journal.names(changed, request)
        self._failed_start = False
        if names:
            text = "reloaded in %.2f s: %s; %d worker" + ("s" if count != 1 else "")
            told = {"seconds": seconds, "files": changed, "workers": count}
            self._journal.info(text, seconds, names, count, event="reloaded", **told)
            self._chronicle.reloaded(changed, seconds, count, request)


def _refused(note: Note) -> Refusal:
    return Refusal(**{**note, "files": tuple(note["files"])})
