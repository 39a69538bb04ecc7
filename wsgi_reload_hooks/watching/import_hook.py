"""Reports every module file just before Python loads it, including those that then fail.

It is the first finder on ``sys.meta_path``; it asks the finders behind it and returns their answer unchanged. So lazily
imported files are known at once, and the signature is that of the content Python is about to read: an edit in
between is not lost.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import itertools
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

from .modules import loaded_files, source_of
from .signature import Signature, signature

Seen = Callable[[str, Signature | None], None]
# Seconds. A .pyc records its source's whole-second mtime and size: for a source younger than this it may be stale.
_FRESH = 2.0


class ImportHook:
    """Calls *seen* with path and signature of each module file for which *ours* is true.

    *changed*: files whose byte code is ignored, whatever its age. *meanwhile* is called before each import.
    """

    def __init__(
        self,
        ours: Callable[[str], bool],
        seen: Seen,
        changed: Collection[str] = (),
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self._ours = ours
        self._meanwhile = meanwhile
        self._seen = seen
        self._changed = changed

    def install(self) -> None:
        """Make this the first finder of the process."""
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec that the finders behind this one find (importlib's protocol)."""
        self._meanwhile()
        finders = list(sys.meta_path)
        # Only those behind: another import hook before this one may be asking it right now.
        behind = next((place for place, finder in enumerate(finders, 1) if finder is self), 0)
        for finder in finders[behind:]:
            spec = _ask(finder, name, path, target)
            if spec is not None:
                self._witness(spec)
                return spec
        return None

    def _witness(self, spec: importlib.machinery.ModuleSpec) -> None:
        if not spec.has_location or not isinstance(spec.origin, str) or not self._ours(spec.origin):
            return
        source = source_of(spec.origin)
        try:
            found = signature(source)
        except OSError:
            found = None
        if found is not None and (source in self._changed or abs(time.time() - found.mtime_ns / 1e9) < _FRESH):
            _without_bytecode(spec.loader)
        self._seen(source, found)


class Modules:
    """Remembers the modules that this process has now, to find newer ones later, also in a forked child."""

    def __init__(self) -> None:
        self._count = len(sys.modules)
        self._last = list(itertools.islice(reversed(sys.modules), 1))

    def newer(self) -> list[object]:
        """Return the modules added since; all modules if older ones were removed or replaced."""
        # Older modules are not touched: a reference count alone writes to memory that forked processes share.
        more = max(0, len(sys.modules) - self._count)
        names = list(itertools.islice(reversed(sys.modules), more + 1))
        if names[more:] == self._last:
            return [sys.modules.get(name) for name in names[:more]]
        return list(sys.modules.values())


def missed_imports(
    reported: Collection[str], ours: Callable[[str], bool], since: Modules | None = None
) -> Iterator[tuple[str, Signature | None]]:
    """Yield files that are *ours* and not *reported*, with signatures: of the modules newer than *since*, or of all."""
    for path in loaded_files(None if since is None else since.newer()):
        if path not in reported and ours(path):
            try:
                found = signature(path)
            except OSError:
                continue
            yield path, found


def _ask(
    finder: Any, name: str, path: Sequence[str] | None, target: ModuleType | None
) -> importlib.machinery.ModuleSpec | None:
    find_spec = getattr(finder, "find_spec", None)
    spec: importlib.machinery.ModuleSpec | None = None
    if find_spec is not None:
        spec = find_spec(name, path, target)
    elif sys.version_info < (3, 12):
        # The older protocol, which Python dropped in 3.12.
        find_module = getattr(finder, "find_module", None)
        loader = None if find_module is None else find_module(name, path)
        spec = None if loader is None else importlib.util.spec_from_loader(name, loader)
    return spec


def _without_bytecode(loader: object) -> None:
    """Have this module compiled from its source, and write no byte code, which could be stale a moment later."""
    if type(loader) is importlib.machinery.SourceFileLoader:
        # importlib then neither reads nor writes byte code for this module.
        setattr(loader, "path_stats", _no_stats)  # noqa: B010


def _no_stats(path: str) -> None:
    raise OSError(f"byte code of {os.path.basename(path)} is not used")


def forget_bytecode(paths: Iterable[str]) -> None:
    """Delete the byte code of *paths*, so that no process, with or without the import hook, loads a stale version."""
    for path in paths:
        if path.endswith(".py"):
            try:
                os.unlink(importlib.util.cache_from_source(path))
            except (OSError, NotImplementedError):
                continue
