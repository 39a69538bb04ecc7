"""Finds the modules of a program that can be imported next to it, so that new code is tried before the old one stops.

A program is no library: it does not say which import is harmless. So it is tried while the code is good: what can be
imported then in a fresh interpreter tells broken code from good later on. A script takes part where it asks whether it
is ``__main__``: `multiprocessing` imports it under the same condition, and by the same name.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping, Sequence

from ..core.log import ReloadLog
from ..process.safe_read import SOURCE_AT_MOST, safe_read
from ..trial.plan import Plan, Target
from ..trial.trial import Trial
from ..watching.rules import Files
from .child import Child

_AS_A_MODULE = "__mp_main__"
_BUSY = 0.05


class Candidates:
    """Chooses what to import, for a program started as *arguments* (a script and what follows) in *folder*.

    *targets*: what the user named; then nothing needs to be tried. *script*: the program's own file, if it is Python's.
    *root*: the project's folder.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        script: str | None,
        arguments: Sequence[str],
        folder: str,
        root: str,
        environ: Mapping[str, str],
    ) -> None:
        self._named = tuple(targets)
        self._script = script
        self._arguments = tuple(arguments) or ("",)
        self._folder = folder
        self._root = root
        self._environ = environ
        self._good: tuple[Target, ...] = self._named
        self._waiting: list[tuple[Target, ...]] = []
        self._tried: set[tuple[Target, ...]] = set()
        self._executable = ""
        self._path: tuple[str, ...] = ()
        self._started: set[str] = set()
        self._places: dict[str, str] = {}
        self.version: tuple[int, int] | None = None
        """Of the interpreter that runs the program, where that is known."""

    def hello(self, executable: str, path: Iterable[str], runs: str, version: tuple[int, int]) -> None:
        """The program runs in this interpreter, with this search path besides its own folder.

        *runs*: what the interpreter was started with, the path of a script or the name of a module (``-m``). Whatever else
        the program starts says hello, too.
        """
        self._started.add(runs)
        if not self._executable:
            first = os.path.dirname(self._script) if self._script else self._folder
            self._executable = executable
            self.version = version
            self._path = tuple(dict.fromkeys([self._folder, *path] if self._named else [first, *path]))

    def runs(self, loaded: Iterable[str]) -> None:
        """The program was started, runs well, and has *loaded* these files, in this order.

        What could not be tried in the life before may be now; what is known to be good is not tried again.
        """
        if self._named:
            return
        self._tried.clear()
        modules = tuple(Target("module", name) for name in self._names(loaded))
        script = () if self._script is None or not _asks_whether_it_is_main(self._script) else (self._script_target(),)
        self._waiting = []
        for each in ((*script, *modules), modules, script):
            if each == self._good:
                return
            if each and each not in self._tried and each not in self._waiting:
                self._waiting.append(each)

    def next(self) -> Plan | None:
        """Return a plan to try while the code is good, or None."""
        return self._plan(self._waiting[0]) if self._waiting else None

    def tried(self, good: bool) -> None:
        """Record the result of the plan that `next` returned."""
        targets = self._waiting.pop(0)
        self._tried.add(targets)
        if good:
            self._good = targets
            self._waiting = []

    def plan(self) -> Plan | None:
        """Return the plan that tells whether new code is good; None if nothing can be tried."""
        # A module that is gone has been renamed, and is imported by its new name where it is needed.
        good = tuple(each for each in self._good if os.path.exists(self._places.get(each.name, os.sep)))
        return self._plan(good) if good else None

    def _plan(self, targets: tuple[Target, ...]) -> Plan | None:
        if not os.path.isabs(self._executable):
            return None
        return Plan(
            command=(self._executable,),
            path=self._path,
            folder=self._folder,
            root=self._root,
            targets=targets,
            environ=self._environ,
            modules={},
            argv=self._arguments,
        )

    def _script_target(self) -> Target:
        assert self._script is not None
        return Target("file", self._script, alias=_AS_A_MODULE)

    def _names(self, loaded: Iterable[str]) -> list[str]:
        """Return the names of the modules that are *loaded* from these files, by the search path."""
        names = []
        for path in loaded:
            stem, suffix = os.path.splitext(path)
            if suffix != ".py" or path == self._script:
                continue
            folders = [entry for entry in self._path if path.startswith(os.path.join(entry, ""))]
            if folders:
                parts = os.path.relpath(stem, max(folders, key=len)).split(os.sep)
                package = parts[-1] == "__init__"
                parts = parts[:-1] if package else parts
                if not parts or parts[-1] == "__main__" or not all(part.isidentifier() for part in parts):
                    continue
                name = ".".join(parts)
                if package or not {path, name} & self._started or _asks_whether_it_is_main(path):
                    names.append(name)
                    self._places[name] = path
        return names


class Explorer:
    """Tries the *candidates* while the program runs well; once in its life, because an import may have effects.

    *timeout*: seconds for each trial. For one thread.
    """

    def __init__(self, candidates: Candidates, files: Files, timeout: float, log: ReloadLog) -> None:
        self._candidates = candidates
        self._files = files
        self._timeout = timeout
        self._log = log
        self._trial: Trial | None = None
        self._explored: Child | None = None

    @property
    def wait(self) -> float:
        """Return the seconds until `step` has something to do by itself."""
        return float("inf") if self._trial is None else _BUSY

    def step(self, child: Child, now: float, quiet: bool) -> None:
        """Continue with the program *child*, without waiting. *quiet*: its code is good, and nothing changes."""
        if self._trial is not None:
            self._poll(self._trial)
        elif quiet and child.has_settled(now):
            if child is not self._explored:
                self._explored = child
                self._candidates.runs(child.loaded)
            self._begin()

    def cancel(self) -> None:
        """Stop the trial. May be called at any time."""
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.cancel()

    def _begin(self) -> None:
        plan = self._candidates.next()
        if plan is not None:
            try:
                self._trial = Trial(plan, self._files, self._timeout)
            except OSError:
                self._candidates.tried(False)

    def _poll(self, trial: Trial) -> None:
        try:
            outcome = trial.poll()
        except OSError:
            self._trial = None
            self._candidates.tried(False)
            return
        if outcome is not None:
            self._trial = None
            self._candidates.tried(outcome.refused is None)
            if outcome.refused is None:
                self._log.debug("new code can be imported before the program is stopped")
            else:
                self._log.debug("cannot be imported next to the program: %s", outcome.refused.reason)


def _asks_whether_it_is_main(path: str) -> bool:
    """Tell whether the script compares ``__name__`` with ``__main__``, so that importing it only defines things."""
    try:
        tree = ast.parse(safe_read(path, SOURCE_AT_MOST))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return any(
        isinstance(node, ast.Name) and node.id == "__name__"
        for statement in tree.body
        if isinstance(statement, ast.If)
        for node in ast.walk(statement.test)
    )
