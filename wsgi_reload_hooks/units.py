"""What was seen of imports, and what came with each of them: told from Python's own, and from what was there before."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import logging
import os
import sys
import sysconfig
import warnings
from collections.abc import Collection, Sequence
from types import ModuleType
from typing import Any, Optional, cast

from .files import module_value, under
from .scanner import Signature, known_signature
from .world import Change, Names, Situation

_INSTALLED = (".dist-info", ".egg-info")
_LIBRARIES = tuple({os.path.abspath(sysconfig.get_paths()[key]) for key in ("stdlib", "platstdlib")})


class Danger(Exception):
    """A module cannot be had before the application imports it. The text says why, after its name."""


@dataclasses.dataclass
class Imported:
    """What was seen of an application while it was loaded: the modules asked for, and what it imported of Python's own."""

    modules: list[tuple[str, Situation]] = dataclasses.field(default_factory=list)
    library: list[str] = dataclasses.field(default_factory=list)


class Recorder:
    """A finder that finds nothing, and notes in which order and situation the modules in *names* are imported."""

    def __init__(self, names: Collection[str]) -> None:
        self.seen = Imported()
        self._left = set(families(names))

    def find_spec(
        self, name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        if name in self._left:
            self._left.discard(name)
            self.seen.modules.append((name, Situation.now()))
        return None

    def finish(self) -> Imported:
        """It has been loaded. What was seen."""
        self.seen.library = [name for name, module in list(sys.modules.items()) if _is_library(module)]
        return self.seen


def families(names: Collection[str]) -> list[str]:
    """*names*, each after the packages that it lies in."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        found.update(dict.fromkeys(".".join(parts[:count]) for count in range(1, len(parts) + 1)))
    return list(found)


@dataclasses.dataclass
class Unit:
    """One module that the user named, and all that came with it."""

    name: str
    situation: Situation
    zone: tuple[str, ...] = ()
    modules: dict[str, Any] = dataclasses.field(default_factory=dict)
    changes: list[Change] = dataclasses.field(default_factory=list)
    loggers: list[str] = dataclasses.field(default_factory=list)
    filters: list[Any] = dataclasses.field(default_factory=list)
    finders: list[Any] = dataclasses.field(default_factory=list)
    places: dict[str, tuple[Optional[str], list[str]]] = dataclasses.field(default_factory=dict)
    names: Optional[Names] = None
    shown: bool = False


class LoggerTree:
    """The loggers that are known, each below another one."""

    def __init__(self) -> None:
        known = logging.Logger.manager.loggerDict
        self._known = dict(known)
        self._above = {each: each.parent for each in known.values() if isinstance(each, logging.Logger)}
        self._below = {each: dict(each.loggerMap) for each in known.values() if isinstance(each, logging.PlaceHolder)}

    def restore(self) -> None:
        """Those that came since are not known any more."""
        known = logging.Logger.manager.loggerDict
        known.clear()
        known.update(self._known)
        for each, parent in self._above.items():
            each.parent = parent
        for place, below in self._below.items():
            place.loggerMap.clear()
            place.loggerMap.update(below)


def _file(module: object) -> str:
    path = module_value(module, "__file__")
    return path if isinstance(path, str) else ""


def _is_library(module: object) -> bool:
    """Whether it is of Python's own."""
    path = _file(module)
    parts = path.split(os.sep)
    inside = any(under(path, folder) for folder in _LIBRARIES)
    return inside and "site-packages" not in parts and "dist-packages" not in parts


def _is_installed(module: object) -> bool:
    """Whether it comes from a file or a folder that is not Python's own."""
    if _file(module):
        return not _is_library(module)
    # A package without a file of its own.
    return module_value(module, "__path__") is not None


def to_hide(new: dict[str, Any]) -> dict[str, Any]:
    """Those of the *new* modules that are not Python's own, nor made by code that several packages have in them."""
    tops = {name.partition(".")[0] for name, module in new.items() if _is_installed(module)}
    return {
        name: module
        for name, module in new.items()
        if _is_installed(module) or (name.partition(".")[0] in tops and not _is_library(module))
    }


def import_library(name: str) -> None:
    """Import a module of Python's own, if it can be."""
    try:
        importlib.import_module(name)
    except Exception:
        # Whatever is wrong with it: who imports it will be told.
        return


def put_before(now: Sequence[Any], before: Sequence[Any], title: str) -> list[Any]:
    """What was put at the head of the list *before*. Raises `Danger` where it was changed otherwise."""
    new = [each for each in now if each not in before]
    if list(now) != new + [each for each in before if each not in new]:
        raise Danger(f"it changes {title}")
    return new


def put_behind(now: Sequence[Any], before: Sequence[Any]) -> list[Any]:
    """The finders that were put at the end. Raises `Danger` where they were changed otherwise."""
    if list(now[: len(before)]) != list(before):
        raise Danger("it puts an import hook before all others")
    return list(now[len(before) :])


def set_filters(filters: Collection[Any]) -> None:
    """Have these filters of warnings and no others."""
    kept, known = list(filters), cast("list[Any]", warnings.filters)
    # It tells C code, too, that they are others.
    warnings.resetwarnings()
    known[:] = kept


def copy_of(
    name: str, spec: Optional[importlib.machinery.ModuleSpec], loader: importlib.abc.Loader
) -> importlib.machinery.ModuleSpec:
    """*spec* with another loader."""
    copy = importlib.machinery.ModuleSpec(name, loader)
    if spec is not None:
        copy.origin, copy.has_location, copy.cached = spec.origin, spec.has_location, spec.cached
        copy.submodule_search_locations = spec.submodule_search_locations
    return copy


def place_of(name: str) -> tuple[Optional[str], list[str]]:
    """Where a module of that name is found now."""
    spec = importlib.machinery.PathFinder.find_spec(name)
    return (None, []) if spec is None else (spec.origin, list(spec.submodule_search_locations or ()))


def distributions(folder: str) -> list[tuple[str, Optional[Signature]]]:
    """What is installed there, and when."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith((*_INSTALLED, ".pth")))
    except OSError:
        return []
    return [(name, known_signature(os.path.join(folder, name))) for name in names]
