"""A program as a child: watched from outside, replaced when it changes, waited for when it is broken.

Bottle's and Django's protocol (exit code 3 means "start me again", an environment variable tells the child), turned
round: the parent watches, for a child that cannot import cannot watch itself. The three ways on from an end, EXIT, RELOAD
and WAIT, are hupper's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType

from ..control.channel import ControlSocket
from ..control.channel import Message as Answer
from ..control.service import ControlService, control_or_none
from ..core.log import BROKEN, BROKEN_START, REFUSED, ReloadLog
from ..core.refusal import Refusal
from ..core.settings import Settings
from ..core.streams import Console, occupy
from ..core.text import under
from ..process.pipe import Message
from ..reload.reloader import Reloader, ReloaderSource, State
from ..reload.watchlist import WatchList
from ..report.callbacks import Callbacks
from ..report.history import History
from ..report.publisher import Publisher
from ..trial.sources import compile_sources
from ..trial.trial import Outcome, Target, Trial
from ..watching.checkout import Checkout
from ..watching.debounce import Debouncer, ScanRequests, age
from ..watching.engines import engine
from ..watching.import_hook import forget_bytecode
from ..watching.rules import Files
from ..watching.scanner import Scanner
from ..watching.signature import Digests, Signature, known_signature
from .candidates import Candidates
from .child import Child, in_words
from .guard import Guard
from .terminal import Terminal

START_AGAIN = 3
"""The exit code by which a program asks to be started again (Django, Bottle, Werkzeug)."""

_RETRY = 5.0
_AT_ONCE = 3.0
_AT_ONCE_AT_MOST = 3
_LOADED_AFTER = 0.5
_SILENT_AFTER = 5.0
_ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# Somebody wanted it to end, or wants to read no more of it: with it, so do we. 130 and 143 are what shells make of the
# first two.
_ENDED = (0, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGQUIT, -signal.SIGPIPE, 130, 143)


@dataclasses.dataclass(frozen=True)
class Program:
    """What is run.

    *command*: a path first. *listening*: descriptors of sockets that it is given. *targets*: what to import before it is
    replaced, where that is known. *script*: its own file, if it is one of Python's; *arguments*: that and what follows it.
    """

    command: tuple[str, ...]
    environ: Mapping[str, str]
    listening: tuple[int, ...] = ()
    targets: tuple[Target, ...] = ()
    script: str | None = None
    arguments: tuple[str, ...] = ()


class _Way(enum.Enum):
    """Where an end leads to (hupper)."""

    EXIT = "exit"
    RELOAD = "reload"
    WAIT = "wait"


class Supervisor:
    """Runs *program* and puts its changes into service. For the main thread.

    Raises OSError where nothing can be started.
    """

    def __init__(self, program: Program, settings: Settings, console: Console) -> None:
        occupy()
        self._program = program
        self._settings = settings
        self._files = Files(settings)
        self._journal = ReloadLog(console, self._files.root, settings.log_format == "json")
        self._digests = Digests()
        self._scanner = Scanner()
        self._reloader = Reloader(self._digests, self._journal.debug)
        self._watch = WatchList(self._scanner, self._files, self._reloader)
        self._debouncer = Debouncer(settings.step, settings.debounce, Checkout(self._files.root).unfinished)
        self._terminal = Terminal()
        self._guard = Guard()
        self._serving: Child | None = None
        self._going: list[Child] = []
        self._rehearsal: Trial | None = None
        self._trial: Trial | None = None
        self._quiet_with: Child | None = None
        self._trials = Candidates(
            program.targets, program.script, program.arguments, os.getcwd(), self._files.root, program.environ
        )
        self._own = [] if program.script is None else [program.script]
        self._saved: set[str] = set()
        self._cause = ""
        self._heard_at = self._looked = time.monotonic()
        self._asked_at: float | None = None
        self._retry_at = 0.0
        self._at_once = 0
        self._introduced = self._crashed = self._has_served = self._told_again = False
        self._ordered: signal.Signals | None = None
        self._status: int | None = None
        self._signals: deque[int] = deque()
        self._looks = ScanRequests()
        self._record = History("run", "", os.getpid(), self._files.root, time.time())
        callbacks = Callbacks(settings, self._journal, self._files.root)
        self._chronicle = Publisher(settings, self._journal, self._record, callbacks)
        self._control: ControlSocket | None = None
        self._desk: ControlService | None = None
        self._engine = engine(settings, self._files, self._scanner, lambda line: self._journal.warning("%s", line))

    def run(self) -> int:
        """Run until the program ends or we are told to: the exit code, or a signal below 0.

        Raises OSError where the program cannot be run at all.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self._guard.close)
            undo.callback(self._engine.close)
            woken = undo.enter_context(self._signals_at_hand())
            # Only now: what a signal ends before that leaves its folder behind.
            self._control = control_or_none(self._record.server, os.getpid(), self._journal.warning)
            if self._control is not None:
                undo.callback(self._control.close)
                self._desk = ControlService(
                    self._control, ReloaderSource(self._reloader, self), self._files, self._looks
                )
            undo.callback(self._terminal.take_back)
            undo.callback(self._end_all)
            self._watch.listed(self._own)
            self._watch.trying()
            self._reloader.asked("start")
            while not self._step(time.monotonic()):
                self._sleep(woken)
        return -self._ordered if self._status is None and self._ordered is not None else self._status or 0

    # -- one step ----------------------------------------------------------------------------------------------------

    def _step(self, now: float) -> bool:
        """All that is to do now; never waits. Whether it is over."""
        while self._signals:
            self._take(self._signals.popleft())
        for child in self._children():
            self._hear(child)
        self._notice(now)
        for child in self._children():
            if child.poll(functools.partial(self._stopped, child)):
                self._bury(child, now)
            elif child.status is not None:
                # Its descendants do not outlive it.
                child.leave(self._settings.kill_after)
        if self._is_over:
            self._withdraw()
            for child in self._children():
                child.leave(self._settings.kill_after, _order(self._ordered))
            return not self._children()
        if self._desk is not None and self._control is not None:
            self._desk.take(self._control.receive())
            self._desk.step()
            self._record.paused = self._desk.paused_until is not None
        self._chronicle.look(len(self._scanner), int(self._serving is not None))
        self._decide(now)
        if self._reloader.state is State.SWITCHING and self._serving is None and not self._going:
            self._start(now)
        self._introduce(now)
        self._try(now)
        return False

    def _sleep(self, woken: int) -> None:
        now = time.monotonic()
        children = self._children()
        wait = self._debouncer.wait(now) if self._debouncer else self._engine.pause()
        wait = min([wait, *(child.wait() for child in children)])
        if self._rehearsal is not None:
            wait = min(wait, 0.01)
        elif self._trial is not None:
            wait = min(wait, 0.05)
        if self._reloader.due and not self._is_over:
            wait = 0.0 if now >= self._retry_at else min(wait, self._retry_at - now)
        if self._looks.due:
            wait = min(wait, 0.02)
        if self._desk is not None:
            wait = min(wait, self._desk.wait())
        if self._serving is not None and not self._introduced:
            wait = min(wait, 0.1)
        control = None if self._control is None else self._control.reader
        told = [each for each in (self._engine.reader, control) if each is not None]
        readers = [woken, *(child.reports.reader for child in children), *told]
        ready = select.select(readers, [], [], wait)[0]
        if woken in ready:
            os.read(woken, 4096)

    @property
    def _is_over(self) -> bool:
        """Whether all that is still to do is to see them leave."""
        return self._ordered is not None or self._status is not None

    def _children(self) -> list[Child]:
        return [child for child in (self._serving, *self._going) if child is not None]

    @contextlib.contextmanager
    def _signals_at_hand(self) -> Iterator[int]:
        """While it lasts, signals are kept in `_signals`. The descriptor that is readable when there are some."""
        reader, writer = os.pipe()
        for number in (reader, writer):
            os.set_blocking(number, False)
        # What is ignored stays ignored: a shell does so for what it starts in the background, `nohup` for all.
        caught = [each for each in _ORDERS if signal.getsignal(each) is not signal.SIG_IGN]
        before = {each: signal.signal(each, self._caught) for each in (*caught, signal.SIGCHLD, signal.SIGCONT)}
        # Where the terminal stops background jobs that write (stty tostop), we write all the same.
        before[signal.SIGTTOU] = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        woken_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(woken_before)
            for each, handler in before.items():
                signal.signal(each, handler)
            os.close(reader)
            os.close(writer)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _take(self, number: int) -> None:
        if number == signal.SIGCONT and self._serving is not None:
            self._terminal.lend(self._serving.pid)
        elif number in _ORDERS:
            if self._ordered is not None:
                # Asked twice: at once.
                for child in self._children():
                    child.kill()
            self._ordered = signal.Signals(number)

    def _stopped(self, child: Child, number: int) -> None:
        if child is self._serving:
            self._terminal.stop_with(child.pid, number)
        elif child in self._going and number in (signal.SIGTTIN, signal.SIGTTOU):
            # It was told to leave, and tidies up the terminal.
            self._terminal.lend(child.pid)
            child.go_on()

    def _end_all(self) -> None:
        """Something went wrong here: nothing of what we have started outlives us."""
        self._withdraw()
        self._end_trial()
        for child in self._children():
            child.kill()
            while not child.poll():
                time.sleep(0.01)
            child.close()

    # -- what is known -----------------------------------------------------------------------------------------------

    def _hear(self, child: Child) -> None:
        for message in child.heard():
            try:
                self._understand(child, message)
            except (KeyError, TypeError, ValueError) as error:
                self._journal.debug("not a report of ours, from the program: %r", error)

    def _understand(self, child: Child, message: Message) -> None:
        kind = message.pop("kind")
        if kind == "loaded":
            self._heard_loaded(child, message["path"], message["signature"])
        elif kind == "hello":
            major, minor = message["version"]
            self._trials.hello(
                str(message["executable"]), map(str, message["path"]), str(message["runs"]), (int(major), int(minor))
            )

    def _heard_loaded(self, child: Child, path: str, found: list[int] | None) -> None:
        if not self._files.ours(path):
            return
        seen = None if found is None else Signature(*found)
        if seen is not None and known_signature(path) is None:
            # A temporary one, gone already: that is no save.
            return
        content = self._digests.at(path, seen)
        child.loaded[path] = content
        self._heard_at = time.monotonic()
        if child is self._serving:
            self._scanner.watch(path, seen)
            self._reloader.serves(path, content)
            if self._digests.now(path) != self._reloader.service[path]:
                # Saved between its being loaded and our hearing of it.
                self._debouncer.add({path}, self._heard_at)

    def _notice(self, now: float) -> None:
        ordered = self._looks.begin(self._engine)
        found = self._engine.tick(bool(self._debouncer))
        if found:
            self._debouncer.add(found, now, age(found, now - self._looked))
        self._looked = now
        changed = self._debouncer.take(now)
        if changed:
            self._changed(changed, now)
        self._looks.end(self._engine, ordered, bool(self._debouncer))

    def _changed(self, paths: set[str], now: float) -> None:
        paths -= self._temporary(paths)
        if not paths:
            return
        folders = {path for path in paths if os.path.isdir(path)}
        self._end_trial()
        before = self._reloader.state
        news = self._reloader.changed(paths - folders, folders)
        if self._crashed:
            # What made it end may have been something else: a save is a wish to try again, whatever it changed.
            self._reloader.retry()
        elif not news:
            return
        self._saved |= paths
        if self._reloader.wanted:
            self._asked_at = self._asked_at or now
            self._retry_at = min(self._retry_at, now)
        elif before in (State.PROVING, State.REFUSED):
            self._asked_at, self._saved = None, set()
            self._watch.serving()
            self._chronicle.idle()
            self._journal.info(
                "%s: as it is in service again, nothing to load", self._journal.names(paths), event="taken_back"
            )

    def _temporary(self, paths: set[str]) -> set[str]:
        """Those of *paths* that are gone and no part of the project: what a program has made, run and removed."""
        gone = {path for path in paths if not under(path, self._files.root) and not os.path.lexists(path)}
        gone -= self._watch.names
        for path in gone:
            self._reloader.service.pop(path, None)
        if gone and self._reloader.state is State.IDLE:
            self._watch.serving()
        return gone

    def _introduce(self, now: float) -> None:
        """Say once what is watched, when the program has loaded what it loads."""
        child = self._serving
        if self._introduced or child is None or child.status is not None:
            return
        if child.said_hello and now - max(self._heard_at, child.began) > _LOADED_AFTER:
            self._introduced = True
            self._record.engine = self._engine.describe()
            self._journal.info("watching %d files %s", len(self._scanner), self._record.engine, event="watching")
        elif not child.said_hello and now - child.began > _SILENT_AFTER:
            self._introduced = True
            self._journal.warning(
                "the program does not tell what it loads (no Python, or one with -E, -I or -S): watching %d files, those "
                "that extra_files lists and those of its command",
                len(self._scanner),
            )

    def _try(self, now: float) -> None:
        """While all is well and quiet: find out what can be imported beside the program."""
        child = self._serving
        if self._trial is not None:
            try:
                outcome = self._trial.poll()
            except OSError:
                self._trial = None
                self._trials.tried(False)
                return
            if outcome is not None:
                self._trial = None
                self._trials.tried(outcome.refused is None)
                if outcome.refused is None:
                    self._journal.debug("new code can be imported before the program is stopped")
                else:
                    self._journal.debug("not to be imported beside the program: %s", outcome.refused.reason)
            return
        if (
            not self._settings.trial
            or child is None
            or child.status is not None
            or self._reloader.state is not State.IDLE
            or self._debouncer
            or now - max(self._heard_at, child.began) <= _LOADED_AFTER
        ):
            return
        if child is not self._quiet_with:
            # Once in its life: an import may have effects, and what is loaded later is loaded again and again.
            self._quiet_with = child
            self._trials.runs(child.loaded)
        plan = self._trials.next()
        if plan is not None:
            try:
                self._trial = Trial(plan, self._files, self._settings.boot_timeout)
            except OSError:
                self._trials.tried(False)

    # -- deciding ----------------------------------------------------------------------------------------------------

    def _decide(self, now: float) -> None:
        if self._reloader.due:
            if now >= self._retry_at:
                self._withdraw()
                self._begin(now)
        elif self._reloader.wanted or self._reloader.state is State.IDLE:
            # Taken back while it was being tried.
            self._withdraw()
        elif self._rehearsal is not None:
            self._rehearse(now)

    def _begin(self, now: float) -> None:
        self._end_trial()
        self._watch.trying()
        request = self._reloader.request
        pending = self._reloader.begin()
        if self._has_served:
            self._asked_at = self._asked_at or now
            self._cause = self._cause or request or ""
            self._chronicle.begins(pending, request is not None)
        why = None
        if self._is_our_python():
            why = compile_sources(path for path in {*pending, *self._own} if not os.path.isdir(path))
        if why is not None:
            self._refuse(why, ())
            return
        try:
            plan = self._trials.plan() if self._settings.trial else None
            if plan is not None and self._serving is not None:
                self._rehearsal = Trial(plan, self._files, self._settings.boot_timeout)
            else:
                # Nothing to lose, or nothing known that could be tried.
                self._proven()
        except OSError as error:
            self._cannot_start(error, now)

    def _is_our_python(self) -> bool:
        """Whether what we can compile is what the program's interpreter can."""
        if self._trials.version is not None:
            return self._trials.version == sys.version_info[:2]
        with contextlib.suppress(OSError):
            return os.path.samefile(self._program.command[0], sys.executable)
        return False

    def _rehearse(self, now: float) -> None:
        assert self._rehearsal is not None
        try:
            outcome = self._rehearsal.poll()
        except OSError as error:
            self._rehearsal = None
            self._cannot_start(error, now)
            return
        if outcome is not None:
            self._rehearsal = None
            self._judge(outcome, now)

    def _judge(self, outcome: Outcome, now: float) -> None:
        for path, found in outcome.loaded.items():
            if found is not None and known_signature(path) is None:
                continue
            self._scanner.watch(path, found)
            self._reloader.tried(path, self._digests.at(path, found))
        if outcome.refused is not None:
            self._refuse(outcome.refused, outcome.loaded)
        elif self._reloader.outdated():
            # Saved while it was being imported: what was proven is not what is on disk.
            self._begin(now)
        else:
            self._proven()

    def _proven(self) -> None:
        """The new code is good as far as can be told: stop the program, so that `_start` can start it again."""
        forget_bytecode(self._reloader.proven())
        old, self._serving = self._serving, None
        if old is not None:
            self._going.append(old)
            old.leave(self._settings.kill_after)
            self._terminal.take_back()

    def _start(self, now: float) -> None:
        program, settings = self._program, self._settings
        try:
            self._serving = Child(
                self._guard,
                program.command,
                program.environ,
                program.listening,
                settings.third_party,
                meet=self._terminal.lend,
            )
        except OSError as error:
            self._reloader.failed_start({})
            self._cannot_start(error, now)
            return
        self._in_service()

    def _in_service(self) -> None:
        now = time.monotonic()
        again, self._has_served = self._has_served, True
        self._crashed = self._told_again = False
        self._reloader.switched()
        # What was listed and has appeared since the last time.
        self._watch.listed(self._own)
        self._watch.serving()
        if again:
            what = self._cause or self._journal.names(self._saved)
            seconds = now - (self._asked_at or now)
            told = {"seconds": seconds, "files": sorted(self._saved), "workers": 1}
            self._journal.info("restarted in %.2f s: %s", seconds, what, event="reloaded", **told)
            self._chronicle.reloaded(self._saved, seconds, 1, self._cause or None)
        elif self._record.refused:
            # A start that was broken, and is repaired.
            self._chronicle.idle()
        self._asked_at, self._saved, self._cause = None, set(), ""

    def _cannot_start(self, error: OSError, now: float) -> None:
        """No process, no temporary file: that says nothing about the code."""
        if not self._has_served:
            raise error
        self._retry_at = now + _RETRY
        self._reloader.retry()
        if not self._told_again:
            self._told_again = True
            self._journal.warning("new code cannot be tried, trying again every 5 s: %s", error)

    def _withdraw(self) -> None:
        """Nobody is interested in the attempt any more."""
        rehearsal, self._rehearsal = self._rehearsal, None
        if rehearsal is not None:
            rehearsal.cancel()

    def _end_trial(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.cancel()

    def _refuse(self, why: Refusal, loaded: Iterable[str]) -> None:
        news = self._reloader.refused(why)
        self._watch.refused(why, loaded)
        self._chronicle.refused(why, news)
        self._asked_at, self._cause = None, ""
        gives_up = not self._has_served and self._settings.broken_start == "exit"
        if news:
            about = REFUSED if self._serving is not None else BROKEN if gives_up else BROKEN_START
            self._journal.refusal(about, why)
        if gives_up:
            self._status = 1

    # -- what the command line asks --------------------------------------------------------------------------------

    def status(self) -> Answer:
        """See `control.service.StatusSource`."""
        pids = [] if self._serving is None else [self._serving.pid]
        known = {"pids": pids, "workers": len(pids), "watched": len(self._scanner), "engine": self._engine.describe()}
        return {**self._record.as_note(), **known}

    def busy(self) -> bool:
        """See `control.service.StatusSource`."""
        starting = self._serving is None and self._reloader.state is not State.REFUSED
        return starting or bool(self._going)

    def loaded_by(self, path: str) -> list[int]:
        """See `control.service.StatusSource`."""
        return [child.pid for child in self._children() if path in child.loaded]

    def examine(self) -> Answer:
        """See `control.service.StatusSource`. The program's own options are not known."""
        return {"findings": [], "application": ""}

    # -- ends --------------------------------------------------------------------------------------------------------

    def _bury(self, child: Child, now: float) -> None:
        """Nothing of *child* lives any more."""
        self._hear(child)
        child.close()
        status = child.status or 0
        if child is self._serving:
            self._serving = None
            self._terminal.take_back()
            if self._ordered is None:
                self._ended(child, status, now)
            else:
                self._status = status
        else:
            self._going.remove(child)
            if self._serving is None:
                self._terminal.take_back()
            if self._ordered is not None and self._status is None and self._serving is None:
                self._status = status

    def _ended(self, child: Child, status: int, now: float) -> None:
        """The program has ended by itself."""
        way = self._way(child, status, now)
        if way is _Way.EXIT:
            self._status = status
            return
        self._withdraw()
        self._reloader.failed_start(child.loaded)
        if way is _Way.RELOAD:
            self._cause = in_words(status)
            self._reloader.asked(self._cause)
            self._asked_at = now
            return
        ended = in_words(status)
        if status == START_AGAIN:
            ended += f", {self._at_once} times at once"
            self._at_once = 0
        why = Refusal(f"the program ended ({ended})", files=tuple(child.loaded))
        self._chronicle.refused(why, self._reloader.refused(why))
        self._watch.refused(why, child.loaded)
        self._crashed = True
        self._journal.warning("the program ended (%s): waiting for a change", ended)

    def _way(self, child: Child, status: int, now: float) -> _Way:
        if status == START_AGAIN:
            self._at_once = self._at_once + 1 if now - child.began < _AT_ONCE else 0
            return _Way.WAIT if self._at_once >= _AT_ONCE_AT_MOST else _Way.RELOAD
        if status in _ENDED or (self._settings.broken_start == "exit" and not self._introduced):
            return _Way.EXIT
        return _Way.WAIT


def _order(ordered: signal.Signals | None) -> signal.Signals:
    """What a child is told to leave with."""
    return signal.SIGINT if ordered is signal.SIGINT else signal.SIGTERM


def die_of(status: int) -> int:
    """What to exit with after a program that ended with *status*; ended by a signal, so are we (Django)."""
    if status < 0:
        number = -status
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)
        status = 128 - status
    return status
