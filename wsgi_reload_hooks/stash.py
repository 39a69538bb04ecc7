"""Modules that are loaded already and hidden, until the application imports them: at that moment they are there.

Until then nothing of them can be seen, and when it comes, the process has to be as it was when they were loaded. Where
it is not, they are of no use.
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import importlib.machinery
import locale
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn, Optional

from .files import Files, module_value
from .imports import ImportWitness
from .scanner import Signature, known_signature
from .units import (
    Danger,
    Imported,
    LoggerTree,
    Unit,
    copy_of,
    distributions,
    import_library,
    place_of,
    put_before,
    put_behind,
    set_filters,
    to_hide,
)
from .world import Names, Opened, Situation, Traces, sizes


class Stash:
    """The hidden modules of one process and of those that it forks. None of them may be first-party, as *files* says."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._units: list[Unit] = []
        self._unit_of: dict[str, Unit] = {}
        self._signatures: dict[str, Optional[Signature]] = {}
        self._installed: dict[str, list[tuple[str, Optional[Signature]]]] = {}
        self._loggers: dict[str, logging.Logger] = {}
        self._names: list[Names] = []
        self._finders: list[Any] = []
        self._filters: list[Any] = []
        self._opened = Opened()
        self._first_party = ""
        self._numpy: Any = None
        self._seeded: Any = None
        self._locale = locale.setlocale(locale.LC_ALL)
        self._logger_class = logging.getLoggerClass()

    # -- in the process that loads them ------------------------------------------------------------------------

    def load(self, imported: Imported, begun: Callable[[str], object]) -> None:
        """Load what was *imported*, in that order, and hide it. *begun* is told the name of each, as it begins.

        Raises `Danger`; after that this process is of no use.
        """
        witness = ImportWitness(self._saw, self._read)
        witness.install()
        try:
            for name in imported.library:
                import_library(name)
            self._finders = [each for each in sys.meta_path if each is not witness]
            self._filters = list(warnings.filters)
            before = LoggerTree()
            for name, situation in imported.modules:
                if name not in sys.modules:
                    begun(name)
                    self._load(name, situation)
            # What is left to be finalized may import once more.
            gc.collect()
            self._hide(before)
        finally:
            sys.meta_path.remove(witness)

    def _saw(self, path: str) -> bool:
        if self._files.ours(path):
            self._first_party = path
            raise ImportError(f"{path} is first-party")
        return True

    def _read(self, path: str, found: Optional[Signature]) -> None:
        self._signatures.setdefault(path, found)

    def _load(self, name: str, situation: Situation) -> None:
        loaded, names, loggers = dict(sys.modules), Names(sys.modules), set(logging.Logger.manager.loggerDict)
        filters, finders = list(warnings.filters), list(sys.meta_path)
        unit = Unit(name, situation)
        self._import(unit)
        replaced = next((other for other in loaded if sys.modules.get(other) is not loaded[other]), None)
        if replaced is not None:
            raise Danger(f"it puts another module in the place of {replaced}")
        unit.modules = to_hide({other: module for other, module in sys.modules.items() if other not in loaded})
        hidden = {id(module) for module in unit.modules.values()}
        # A package of Python's own gets another module in it; that stays.
        unit.changes = [
            change
            for change in names.changes()
            if not issubclass(type(change.after), ModuleType) or id(change.after) in hidden
        ]
        with situation.reproduced():
            unit.places = {other: place_of(other) for other in unit.modules if "." not in other}
        unit.loggers = [each for each in logging.Logger.manager.loggerDict if each not in loggers]
        unit.filters = put_before(warnings.filters, filters, "warnings.filters")
        unit.finders = put_behind(sys.meta_path, finders)
        self._units.append(unit)

    def _import(self, unit: Unit) -> None:
        """Import it in its situation, and see what it does. Raises `Danger`."""
        others = self._of_others(unit.name)
        tables = sizes(others)
        try:
            with unit.situation.reproduced():
                unit.zone = time.tzname
                traces = Traces()
                self._opened.on = True
                importlib.import_module(unit.name)
                self._opened.on = False
                danger = traces.danger(unit.situation)
                self._remember_installed()
        except BaseException as error:
            raise Danger(self._reason(error)) from None
        if self._first_party:
            raise Danger(self._reason(None))
        grown = next((table for table, size in sizes(others).items() if tables.get(table) != size), "")
        if danger or grown:
            raise Danger(danger or f"it changes {grown}")

    def _of_others(self, name: str) -> dict[str, Any]:
        """The modules of the units so far, but of the package that *name* lies in."""
        top = name.partition(".")[0]
        return {
            other: module
            for unit in self._units
            for other, module in unit.modules.items()
            if other.partition(".")[0] != top
        }

    def _reason(self, error: Optional[BaseException]) -> str:
        if self._first_party:
            return f"it imports first-party code ({self._files.relative(self._first_party)})"
        text = str(error).strip().splitlines()
        return f"importing it by itself raises {type(error).__name__}" + (f": {text[0]}" if text else "")

    def _hide(self, before: LoggerTree) -> None:
        """As if nothing had been loaded."""
        for unit in reversed(self._units):
            # As it is when it is imported: what comes later may change it.
            unit.names = Names(unit.modules)
            for change in reversed(unit.changes):
                change.undo()
            for name in unit.modules:
                del sys.modules[name]
                self._unit_of[name] = unit
            for finder in unit.finders:
                sys.meta_path.remove(finder)
        manager = logging.Logger.manager
        for unit in self._units:
            for name in unit.loggers:
                each = manager.loggerDict.get(name)
                if isinstance(each, logging.Logger):
                    self._loggers[name] = each
        before.restore()
        set_filters(self._filters)
        self._names = [Names(sys.modules)]

    # -- in the process that loads the application -------------------------------------------------------------

    def outdated(self) -> str:
        """The module among those that are hidden whose files are others by now, in words; nothing where all are as read."""
        for path, found in (*self._signatures.items(), *self._opened.files.items()):
            if known_signature(path) != found:
                return self._files.relative(path)
        for folder, names in self._installed.items():
            if distributions(folder) != names:
                return f"what is installed in {self._files.relative(folder)}"
        return ""

    def offer(self, unfit: Callable[[str, str], NoReturn]) -> None:
        """From now on an import finds them. *unfit* is told the name of one that is of no use, and why."""
        self._unfit = unfit
        # What it knows of folders is as old as this process.
        importlib.invalidate_caches()
        sys.meta_path.insert(0, self)

    def finish(self) -> None:
        """The application is loaded: from now on this process is like any other."""
        for unit in self._units:
            if not unit.shown:
                self._unfit(unit.name, "the application does not import it any more while it is loaded")
        sys.meta_path.remove(self)
        self._reseed_children()

    def find_spec(
        self, name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        """The spec of a hidden module (importlib's protocol)."""
        unit = self._unit_of.get(name)
        if unit is None or unit.shown:
            return None
        module = unit.modules[name]
        return copy_of(name, module_value(module, "__spec__"), _Shown(self, name, module))

    def show(self, name: str) -> None:
        """The application imports the hidden module *name*, now."""
        unit = self._unit_of[name]
        if unit.shown:
            return
        if name != unit.name:
            self._unfit(unit.name, f"{name}, which comes with it, is imported before it: name that, too")
        earlier = next((each.name for each in self._units if not each.shown), name)
        if earlier != name:
            self._unfit(name, f"it is imported before {earlier} now")
        why = self._difference(unit)
        if why:
            self._unfit(name, why)
        self._show(unit)

    def _difference(self, unit: Unit) -> str:
        """What is not as it was when it was loaded."""
        return next(self._differences(unit), "")

    def _differences(self, unit: Unit) -> Iterator[str]:
        changed = unit.situation.difference(Situation.now())
        if changed:
            yield f"{changed} is another one when it is imported"
        if time.tzname != unit.zone or locale.setlocale(locale.LC_ALL) != self._locale:
            yield "the time zone or the locale is another one when it is imported"
        for names in self._names:
            patched = names.patched()
            if patched is not None:
                yield f"{patched} is replaced before it is imported"
        hook = self._foreign_finder()
        if hook:
            yield f"an import hook ({hook}) is there before it is imported"
        if any(each[0] == "error" and each not in self._filters for each in warnings.filters):
            yield "warnings are errors when it is imported"
        known = logging.Logger.manager.loggerDict
        for name in unit.loggers:
            if name in self._loggers and isinstance(known.get(name), logging.Logger):
                yield f"its logger {name} is made before it is imported"
        if unit.loggers and logging.getLoggerClass() is not self._logger_class:
            yield "loggers are of another class when it is imported"
        for name, place in unit.places.items():
            if place_of(name) != place:
                yield f"{name} is found in another place when it is imported"

    def _foreign_finder(self) -> str:
        ours = __name__.partition(".")[0]
        for finder in sys.meta_path:
            if finder is importlib.machinery.PathFinder:
                return ""
            module = type(finder).__module__
            if finder not in self._finders and module.partition(".")[0] != ours:
                return f"{module}.{type(finder).__name__}"
        return "no PathFinder"

    def _show(self, unit: Unit) -> None:
        unit.shown = True
        sys.modules.update(unit.modules)
        for change in unit.changes:
            change.redo()
        for names in self._names:
            names.renew(unit.changes)
        if unit.names is not None:
            self._names.append(unit.names)
        sys.meta_path.extend(unit.finders)
        if unit.filters:
            now = [each for each in warnings.filters if each not in unit.filters]
            set_filters([*unit.filters, *now])
        manager = logging.Logger.manager
        made, usual = self._loggers, manager.loggerClass
        try:
            # The logger that it has already, put in its place as any new one.
            manager.loggerClass = made.__getitem__  # type: ignore[assignment]
            for name in unit.loggers:
                if name in made:
                    logging.getLogger(name)
        finally:
            manager.loggerClass = usual
        # Each remembers what it is to say: by the configuration of before.
        root = logging.getLogger()
        root.setLevel(root.level)
        if "numpy.random" in unit.modules:
            self._reseed()

    # -- random numbers ----------------------------------------------------------------------------------------

    def _reseed(self) -> None:
        """NumPy seeds itself when it is imported; here that has been, once for many."""
        self._numpy = sys.modules["numpy.random"]
        self._numpy.seed()
        self._seeded = _state_of(self._numpy)

    def _reseed_children(self) -> None:
        """Where nobody has drawn or seeded NumPy's random numbers, each worker has others."""
        if self._numpy is not None and _state_of(self._numpy) == self._seeded:
            os.register_at_fork(after_in_child=self._numpy.seed)

    def _remember_installed(self) -> None:
        for entry in sys.path:
            if os.path.isdir(entry) and entry not in self._installed and not self._files.ours(os.path.join(entry, "x")):
                self._installed[entry] = distributions(entry)


class _Shown(importlib.abc.Loader):
    """The loader of a module that is loaded already."""

    def __init__(self, stash: Stash, name: str, module: Any) -> None:
        self._stash = stash
        self._name = name
        self._module = module
        self._spec = module_value(module, "__spec__")

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        self._stash.show(self._name)
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        # importlib has given it the spec of now.
        module.__spec__ = self._spec


def _state_of(numpy_random: Any) -> Any:
    state = numpy_random.get_state()
    # A dictionary is of a generator that somebody has chosen.
    return (state[1].tobytes(), state[2:]) if isinstance(state, tuple) else object()
