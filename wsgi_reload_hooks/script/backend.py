"""Backend of `wsgi-reload run`: tries new code next to the program, then stops the program and starts it again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.log import BROKEN, ReloadLog
from ..core.settings import Settings
from ..process.helper import Helper
from ..reload.backend import Trial as RunningTrial
from ..reload.commands import Attempt, News, Report
from ..trial.compile_first import CompileFirst
from ..trial.plan import Outcome, Target
from ..trial.trial import FinishedTrial, Trial
from ..watching.engines import Engine
from ..watching.import_hook import forget_bytecode
from ..watching.rules import Files
from .candidates import Candidates, Explorer
from .child import Child
from .guard import Guard
from .terminal import Terminal

_RETRY = 5.0


@dataclasses.dataclass(frozen=True)
class Program:
    """Describes the program to run.

    *command*: a path first. *listening*: descriptors of sockets that it is given. *targets*: what to import before it is
    replaced, where that is known. *script*: its own file, if it is one of Python's; *arguments*: that and what follows it.
    """

    command: tuple[str, ...]
    environ: Mapping[str, str]
    listening: tuple[int, ...] = ()
    targets: tuple[Target, ...] = ()
    script: str | None = None
    arguments: tuple[str, ...] = ()


class ProgramBackend:
    """Starts and stops the processes of *program* as the reload loop decides. For the main thread."""

    verb = "restarted"

    def __init__(
        self,
        program: Program,
        settings: Settings,
        files: Files,
        log: ReloadLog,
        engine: Engine,
        guard: Guard,
        terminal: Terminal,
        helper: Helper,
    ) -> None:
        self._program = program
        self._settings = settings
        self._files = files
        self._log = log
        self._engine = engine
        self._guard = guard
        self._terminal = terminal
        self._helper = helper
        self._first = True
        self._start_at = 0.0
        self._own = [] if program.script is None else [program.script]
        self.candidates = Candidates(
            program.targets, program.script, program.arguments, os.getcwd(), files.root, program.environ
        )
        self.explorer = Explorer(self.candidates, files, settings.boot_timeout, log)
        self.serving: Child | None = None
        """The program that runs, None between two of them."""
        self.leaving: list[Child] = []
        """Programs that were told to stop, and still live."""
        self.gave_up = False
        """The first start was refused, and `broken_start` is ``exit``."""

    @property
    def children(self) -> list[Child]:
        """Return all programs that live."""
        return [*([] if self.serving is None else [self.serving]), *self.leaving]

    # -- the backend ---------------------------------------------------------------------------------------------------

    def start_trial(self, attempt: Attempt) -> RunningTrial:
        """See `reload.backend.Backend`. If no program runs, its start is the trial."""
        self.explorer.cancel()
        sources = {path for path in {*attempt.paths, *self._own} if not os.path.isdir(path)}
        about = BROKEN if attempt.first and self._settings.broken_start == "exit" else ""
        compiled = sources if self._is_our_python() else ()
        return CompileFirst(self._helper, compiled, self._import, self._settings.boot_timeout, about)

    def _import(self) -> RunningTrial:
        plan = self.candidates.plan() if self._settings.trial and self.serving is not None else None
        if plan is None:
            return FinishedTrial(Outcome(None, {}, 0.0))
        return Trial(plan, self._files, self._settings.boot_timeout)

    def start_switch(self, attempt: Attempt) -> None:
        """See `reload.backend.Backend`. Tells the running program to stop."""
        forget_bytecode(attempt.paths)
        self._first, self._start_at = attempt.first, 0.0
        old, self.serving = self.serving, None
        if old is not None:
            self.leaving.append(old)
            old.leave(self._settings.kill_after)
            self._terminal.take_back()

    def poll_switch(self, now: float) -> bool:
        """See `reload.backend.Backend`. Once the old program is gone, the new one is started.

        Raises OSError where the first start cannot be made; later ones are tried again.
        """
        if self.leaving or now < self._start_at:
            return False
        program = self._program
        try:
            self.serving = Child(
                self._guard,
                program.command,
                program.environ,
                program.listening,
                self._settings.third_party,
                meet=self._terminal.lend,
            )
        except OSError as error:
            if self._first:
                raise
            if not self._start_at:
                self._log.warning("cannot start the program, retrying every 5 s: %s", error.strerror or error)
            self._start_at = now + _RETRY
            return False
        return True

    def status(self) -> Mapping[str, Any]:
        """See `reload.backend.Backend`."""
        pids = [] if self.serving is None else [self.serving.pid]
        return {"pids": pids, "workers": len(pids), "engine": self._engine.describe()}

    def busy(self) -> bool:
        """See `reload.backend.Backend`."""
        return bool(self.leaving)

    def loaded_by(self, path: str) -> list[int]:
        """See `reload.backend.Backend`."""
        return [child.pid for child in self.children if path in child.loaded]

    def examine(self) -> dict[str, Any]:
        """See `reload.backend.Backend`. The program's own options are not known."""
        return {"findings": [], "application": ""}

    def listed_files(self) -> Iterable[str]:
        """See `reload.backend.Backend`."""
        return self._own

    def serves(self) -> bool:
        """See `reload.backend.Backend`."""
        return self.serving is not None

    def reported(self, report: Report) -> None:
        """See `reload.backend.Backend`."""
        first = report.attempt is not None and report.attempt.first
        if report.news is News.REFUSED and first and self._settings.broken_start == "exit":
            self.gave_up = True

    def _is_our_python(self) -> bool:
        """Tell whether the program's interpreter compiles the same language as this one."""
        if self.candidates.version is not None:
            return self.candidates.version == sys.version_info[:2]
        with contextlib.suppress(OSError):
            return os.path.samefile(self._program.command[0], sys.executable)
        return False
