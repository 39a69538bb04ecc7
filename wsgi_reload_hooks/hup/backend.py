"""Backend of `wsgi-reload hup`: tries a change outside of the server, then has a signal sent to it.

What is in service is what was on disk when the command began, and what it has sent a signal for since.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.log import ReloadLog
from ..core.settings import Settings
from ..process.helper import Helper
from ..reload.backend import Trial as RunningTrial
from ..reload.loop import ReloadLoop
from ..reload.machine import Attempt, Phase, Report
from ..report.callbacks import Callbacks
from ..report.history import History
from ..report.publisher import Publisher
from ..trial.compile_first import CompileFirst, NextTrial
from ..trial.interpreter import Interpreter
from ..trial.plan import Outcome, Target
from ..trial.trial import FinishedTrial, Trial
from ..watching.engines import engine
from ..watching.import_hook import forget_bytecode
from ..watching.rules import Files
from ..watching.scanner import Scanner
from .sender import SignalSender

_BUSY = 0.02
# What the helper process does, for an interpreter of another version.
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

    def install_folders(self) -> set[str]:
        """The site-packages folders of the server: what is installed there could be the repair."""
        return {each for each in self._path if os.path.basename(each) in ("site-packages", "dist-packages")}

    @property
    def other_python(self) -> bool:
        """Whether the server's interpreter is another one, whose compiler counts."""
        return self._surroundings.other

    def begin(self, paths: Iterable[str]) -> Trial | None:
        """Begin what takes longer; None: there is nothing of that kind. Raises OSError."""
        targets = [] if self._app is None else [self._app]
        if self._surroundings.other:
            code = _COMPILE.format(paths=sorted(path for path in paths if path.endswith(".py")))
            targets.insert(0, Target("code", code, alias="<changed files>"))
        if not targets:
            return None
        return Trial(self._surroundings.plan(targets, self._files.root), self._files, self._timeout)


class HupBackend:
    """One attempt after the other: a change is tried, then sent. Driven by `step`, in the main thread."""

    verb = ""

    def __init__(
        self, settings: Settings, files: Files, log: ReloadLog, trials: TrialSetup, sender: SignalSender
    ) -> None:
        self._files = files
        self._trials = trials
        self._sender = sender
        self._timeout = settings.boot_timeout
        self._helper = Helper(sys.executable)
        scanner = Scanner()
        # It may have more rights than the server's workers, so it runs no callbacks and writes no file.
        quiet = dataclasses.replace(settings, on_change="", on_reloaded="", on_refused="", metrics_file="")
        history = History("hup", "", os.getpid(), files.root, time.time())
        publisher = Publisher(quiet, log, history, Callbacks(quiet, log, files.root))
        self._loop = ReloadLoop(self, settings, files, scanner, log, publisher, install_folders=trials.install_folders)
        self._loop.watched.listed(())
        self._loop.machine.served()
        engine_ = engine(settings, files, scanner, log.warning)
        self._loop.drive(engine_)
        log.info("watching %d files %s, for %s", len(scanner), engine_.describe(), sender.server_name())

    def step(self) -> float:
        """Do what is to be done now, without waiting. The seconds until the next step."""
        now = time.monotonic()
        self._sender.look(now)
        wait = self._loop.step(now)
        if self._loop.machine.phase is Phase.SWITCHING:
            wait = max(wait, self._sender.wait(now))
        return min(wait, _BUSY) if self._sender.busy else wait

    @property
    def readers(self) -> list[int]:
        """File descriptors that are readable when a step is due at once."""
        return self._loop.readers

    def close(self) -> None:
        """End all that runs."""
        self._loop.close()
        self._helper.close()
        self._sender.close()

    # -- the backend ---------------------------------------------------------------------------------------------------

    def start_trial(self, attempt: Attempt) -> RunningTrial:
        """See `reload.backend.Backend`."""
        machine, tried = self._loop.machine, self._loop.machine.tried
        for path in attempt.paths & self._files.extra() & tried.keys():
            # In service with what is tried now, if that is good: no server tells what it loads.
            machine.loaded(path, tried[path], attempt)
        paths = [path for path in attempt.paths if not os.path.isdir(path)]

        def load() -> NextTrial:
            trial = self._trials.begin(paths)
            return FinishedTrial(Outcome(None, {}, 0.0)) if trial is None else _ListedOnly(trial, self._files)

        return CompileFirst(self._helper, () if self._trials.other_python else paths, load, self._timeout)

    def start_switch(self, attempt: Attempt) -> None:
        """See `reload.backend.Backend`."""
        forget_bytecode(attempt.paths)

    def poll_switch(self, now: float) -> bool:
        """See `reload.backend.Backend`. The signal is sent, or the command has started."""
        attempt = self._loop.machine.attempt
        return attempt is not None and self._sender.step(attempt.paths, self._loop.saved_at, now)

    def status(self) -> Mapping[str, Any]:
        """See `reload.backend.Backend`."""
        return {}

    def busy(self) -> bool:
        """See `reload.backend.Backend`."""
        return False

    def loaded_by(self, path: str) -> list[int]:
        """See `reload.backend.Backend`. No server tells what it loads."""
        return []

    def examine(self) -> dict[str, Any]:
        """See `reload.backend.Backend`."""
        return {"findings": [], "application": ""}

    def listed_files(self) -> Iterable[str]:
        """See `reload.backend.Backend`."""
        return ()

    def serves(self) -> bool:
        """See `reload.backend.Backend`."""
        return True

    def reported(self, report: Report) -> None:
        """See `reload.backend.Backend`."""


class _ListedOnly:
    """*trial*, whose good outcome tells of the listed files only: the others do not count for `hup`."""

    def __init__(self, trial: Trial, files: Files) -> None:
        self._trial = trial
        self._files = files

    def poll(self) -> Outcome | None:
        outcome = self._trial.poll()
        if outcome is None or outcome.refused is not None:
            # The repair may happen in any of them, wherever they lie.
            return outcome
        listed = self._files.extra()
        loaded = {path: seen for path, seen in outcome.loaded.items() if path in listed}
        return dataclasses.replace(outcome, loaded=loaded)

    def cancel(self) -> None:
        self._trial.cancel()
