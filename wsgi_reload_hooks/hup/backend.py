"""The outside watcher: notices a change, has it tried, and then signals a server that knows nothing of it.

Shape of `leader`, without a ledger and without workers: what is in service is what was on disk when it began, and
what it sent for since.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping

from ..core.log import REFUSED, ReloadLog
from ..core.refusal import Refusal
from ..core.settings import Settings
from ..reload.reloader import Reloader, State
from ..trial.interpreter import Interpreter
from ..trial.sources import compile_sources
from ..trial.trial import Outcome, Target, Trial
from ..watching.checkout import Checkout
from ..watching.debounce import Debouncer, age
from ..watching.engines import Engine, engine
from ..watching.import_hook import forget_bytecode
from ..watching.rules import Files
from ..watching.scanner import Folder, Scanner
from ..watching.signature import Digests, Signature, known_signature
from .pidfile import NoServer, PidFile, Process

COMMAND_AT_MOST = 60.0
"""So many seconds may a command take that runs instead of a signal being sent."""

_BUSY = 0.02
_RETRY = 5.0
_LOOK_AGAIN = 0.5
_LOOK_SOON = 0.05
_PASSES_WITHIN = 1.0
# What the system tells of times is that coarse.
_COARSE = 0.1
# What `compile_sources` does, for an interpreter of another version.
_COMPILE = """\
import warnings
for path in {paths!r}:
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError:
        continue
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(source, path, "exec", dont_inherit=True)
        except ValueError as error:
            raise SyntaxError(str(error), (path, 1, 0, "")) from None
"""


# -- trying ------------------------------------------------------------------------------------------------------------


class TrialSetup:
    """How new code is tried before the server hears of it: *app* is loaded, or the changed files are compiled.

    *surroundings*: those of the server. Raises `Failure` where its interpreter will not do.
    """

    def __init__(self, files: Files, timeout: float, app: Target | None, surroundings: Interpreter) -> None:
        self._files = files
        self._timeout = timeout
        self._app = app
        self._surroundings = surroundings
        self._path: tuple[str, ...] = ()
        if self._app is not None or surroundings.other:
            # Now: what is wrong with the interpreter had better be told at once.
            self._path = surroundings.path

    def installed(self) -> list[Folder]:
        """Where that something was installed could be the repair."""
        return [
            Folder(entry, self._files.installed)
            for entry in self._path
            if os.path.basename(entry) in ("site-packages", "dist-packages")
        ]

    def compiled(self, paths: Iterable[str]) -> Refusal | None:
        """What is wrong with *paths*, if this interpreter can say that."""
        return None if self._surroundings.other else compile_sources(paths)

    def begin(self, paths: Iterable[str]) -> Trial | None:
        """Begin what takes longer; None: there is nothing of that kind. Raises OSError."""
        targets = [] if self._app is None else [self._app]
        if self._surroundings.other:
            code = _COMPILE.format(paths=sorted(path for path in paths if path.endswith(".py")))
            targets.insert(0, Target("code", code, alias="<changed files>"))
        if not targets:
            return None
        return Trial(self._surroundings.plan(targets, self._files.root), self._files, self._timeout)


# -- sending -----------------------------------------------------------------------------------------------------------


class SignalSender:
    """Signals whom the pid file names, or runs *command* instead."""

    def __init__(self, pidfile: PidFile, sig: signal.Signals, command: list[str] | None, journal: ReloadLog) -> None:
        self._pidfile = pidfile
        self._signal = sig
        self._words = command
        self._journal = journal
        self._again_at = 0.0
        self._trouble = ""
        self._began = 0.0
        self._told = False
        self._command: _Command | None = None

    def whom(self) -> str:
        """Who is in the pid file now, or why nobody is."""
        try:
            try:
                with self._pidfile.server(self._needed) as server:
                    return str(server.process)
            except NoServer as why:
                if not why.passing:
                    raise
            # It is, and starts.
            with self._pidfile.server() as server:
                return str(server.process)
        except NoServer as why:
            return f"nobody yet ({why})"

    def step(self, paths: Iterable[str], saved: float, now: float) -> bool:
        """Send it because of *paths*, the last of them *saved* at that time of the steady clock. Whether it is done."""
        if self._command is not None or now < self._again_at:
            return False
        try:
            with self._pidfile.server(self._needed) as server:
                self._trouble = ""
                names = self._journal.names(paths)
                # Not by the clock of now: since its age was taken, time has passed.
                if server.process.age < now - saved - _COARSE:
                    self._journal.info("nothing to send, %s was started after the save: %s", server.process, names)
                    return True
                # While it loaded what was saved before, it may have written the byte code of that, after `proven`.
                forget_bytecode(paths)
                if self._words is not None:
                    self._run(self._words, server.process, names, now)
                    return True
                server.send(self._signal)
                self._journal.info("%s sent to %s: %s", self._signal.name[3:], server.process, names)
                return True
        except NoServer as why:
            self._not_yet(why, now)
            return False

    def look(self, now: float) -> None:
        """See whether the command that runs has ended, and how."""
        complaint = None if self._command is None else self._command.complaint(now)
        if complaint is not None:
            self._command = None
            if complaint:
                self._journal.warning("the command %s", complaint)

    @property
    def busy(self) -> bool:
        """Whether a command runs: to be looked at."""
        return self._command is not None

    def wait(self, now: float) -> float:
        """Seconds until the next `step` is worth it."""
        return max(0.0, self._again_at - now)

    def close(self) -> None:
        """Leave nothing running."""
        if self._command is not None:
            self._command.end()

    @property
    def _needed(self) -> signal.Signals | None:
        return self._signal if self._words is None else None

    def _not_yet(self, why: NoServer, now: float) -> None:
        if str(why) != self._trouble:
            self._trouble, self._began, self._told = str(why), now, False
        soon = why.passing and now - self._began <= _PASSES_WITHIN
        self._again_at = now + (_LOOK_SOON if soon else _LOOK_AGAIN)
        if not self._told and (not why.passing or now - self._began > _PASSES_WITHIN):
            self._told = True
            self._journal.warning("nothing sent yet: %s", why)

    def _run(self, words: list[str], server: Process, names: str, now: float) -> None:
        words = [word.replace("{pid}", str(server.pid)) for word in words]
        try:
            self._command = _Command(words, now)
        except (OSError, ValueError) as error:
            self._journal.warning("the command cannot be started: %s: %s", shlex.join(words), error)
        else:
            self._journal.info("command started for %s: %s", server, names)


class _Command:
    """A command that runs instead of a signal being sent."""

    def __init__(self, words: list[str], now: float) -> None:
        self._until = now + COMMAND_AT_MOST
        self._shown = shlex.join(words)
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)

    def complaint(self, now: float) -> str | None:
        """What is wrong with how it ended, "" if nothing is; None: it still runs."""
        status = self._process.poll()
        if status is None and now < self._until:
            return None
        if status is None:
            self.end()
            return f"did not end within {COMMAND_AT_MOST:g} s, and was killed: {self._shown}"
        return f"ended with exit code {status}: {self._shown}" if status else ""

    def end(self) -> None:
        """Kill it, and what it has started."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


# -- watching ----------------------------------------------------------------------------------------------------------


class OutsideWatcher:
    """One attempt after the other: a change is tried, then sent. Driven by `step`."""

    def __init__(
        self, settings: Settings, files: Files, journal: ReloadLog, trial: TrialSetup, sender: SignalSender
    ) -> None:
        self._files = files
        self._journal = journal
        self._trial = trial
        self._sender = sender
        self._digests = Digests()
        self._scanner = Scanner()
        self._reloader = Reloader(self._digests, journal.debug)
        self._debouncer = Debouncer(settings.step, settings.debounce, Checkout(files.root).unfinished)
        self._rehearsal: Trial | None = None
        self._unsent: set[str] = set()
        self._installed: list[Folder] = []
        self._noticed = self._saved = self._looked = time.monotonic()
        self._again_at = 0.0
        self._told_again = False
        listed = files.extra()
        # The baseline first: a save in between is a change.
        for path in listed:
            self._scanner.watch(path, known_signature(path))
        self._reloader.listed(listed)
        self._engine: Engine = engine(settings, files, self._scanner, journal.warning)
        self._journal.info(
            "watching %d files %s, for %s", len(self._scanner), self._engine.describe(), self._sender.whom()
        )

    def step(self) -> float:
        """Do what is to be done now, never for long. The seconds until the next step."""
        now = time.monotonic()
        found = self._engine.tick(bool(self._debouncer))
        if found:
            since = age(found, now - self._looked)
            self._debouncer.add(found, now, since)
            self._noticed = now - since
        self._looked = now
        changed = self._debouncer.take(now)
        if changed:
            self._changed(changed)
        self._sender.look(now)
        self._decide(now)
        if self._reloader.state is State.PROVING or self._reloader.wanted or self._sender.busy:
            return _BUSY
        wait = self._debouncer.wait(now) if self._debouncer else self._engine.pause()
        return min(wait, self._sender.wait(now)) if self._reloader.state is State.SWITCHING else wait

    @property
    def reader(self) -> int | None:
        """A file descriptor that is readable when a step is due at once."""
        return self._engine.reader

    def close(self) -> None:
        """Leave nothing running."""
        self._withdraw()
        self._sender.close()
        self._engine.close()

    def _changed(self, paths: set[str]) -> None:
        folders = {path for path in paths if os.path.isdir(path)}
        before = self._reloader.state
        if not self._reloader.changed(paths - folders, folders):
            return
        self._saved = self._noticed
        if not self._reloader.wanted and before in (State.PROVING, State.REFUSED):
            self._withdraw()
            self._watch_only_listed()
            self._journal.info(
                "%s: as it is in service again, nothing to load", self._journal.names(paths), event="taken_back"
            )
            if self._unsent:
                self._reloader.resume()

    def _decide(self, now: float) -> None:
        if self._reloader.wanted:
            self._begin(now)
        elif self._rehearsal is not None:
            self._poll(self._rehearsal, now)
        elif self._reloader.state is State.PROVING and now >= self._again_at:
            self._begin(now)
        elif self._reloader.state is State.SWITCHING and self._sender.step(self._unsent, self._saved, now):
            self._unsent = set()
            self._reloader.switched()

    def _begin(self, now: float) -> None:
        self._withdraw()
        # What is installed from now on, this attempt may miss.
        self._installed = self._trial.installed()
        pending = self._reloader.begin()
        for path in pending & self._files.extra():
            # In service with what is tried now, if that is good: no server tells what it loads.
            self._reloader.tried(path, self._reloader.attempt[path])
        why = self._trial.compiled(path for path in pending if not os.path.isdir(path))
        if why is not None:
            self._refuse(why)
            return
        try:
            self._rehearsal = self._trial.begin(pending)
        except OSError as error:
            self._cannot_try(error, now)
            return
        if self._rehearsal is None:
            self._judge(Outcome(None, {}, 0.0), now)

    def _poll(self, rehearsal: Trial, now: float) -> None:
        try:
            outcome = rehearsal.poll()
        except OSError as error:
            self._cannot_try(error, now)
            return
        if outcome is not None:
            self._rehearsal = None
            self._told_again = False
            self._judge(outcome, now)

    def _judge(self, outcome: Outcome, now: float) -> None:
        listed = self._files.extra()
        for path in listed.intersection(outcome.loaded):
            self._reloader.tried(path, self._digests.at(path, outcome.loaded[path]))
        if outcome.refused is not None:
            self._watch(outcome.loaded)
            self._refuse(outcome.refused)
        elif self._reloader.outdated():
            # Saved while it was being tried: what was proven is not what is on disk.
            self._begin(now)
        else:
            done = self._reloader.proven()
            self._reloader.listed(done & listed)
            self._watch_only_listed()
            forget_bytecode(done)
            self._unsent |= done

    def _refuse(self, why: Refusal) -> None:
        # The repair may happen in any of them, wherever they lie.
        self._watch({path: known_signature(path) for path in why.files if os.path.isabs(path)})
        self._scanner.watch_only(self._scanner.watched()[0], self._installed)
        if self._reloader.refused(why):
            self._journal.refusal(REFUSED, why)
        else:
            self._journal.info("still refused: %s", self._journal.place(why))

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

    def _watch(self, found: Mapping[str, Signature | None]) -> None:
        for path, seen in found.items():
            if self._files.ours(path):
                self._scanner.watch(path, seen)

    def _watch_only_listed(self) -> None:
        self._scanner.watch_only(set(self._reloader.service) | self._files.extra())
