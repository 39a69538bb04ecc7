"""Defines `code_changed()`: call it now and then; it returns 0, or a number for what changed.

CherryPy's autoreload scan, which Django made popular and dropped in 2.2; the two answers are Django's.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import struct
import sys
import threading
from types import ModuleType

from ..core.settings import Settings
from ..process.safe_read import safe_read
from ..watching.import_hook import ImportHook, forget_bytecode
from ..watching.modules import module_file, module_value
from ..watching.rules import ASSET_FOLDERS_AT_MOST, Files
from ..watching.scanner import Folder, Scanner
from ..watching.signature import Signature, known_signature
from ..watching.walks import CachedWalk, locale_folders, mo_files

FILE_MODIFIED = 1
"""A source changed, appeared or vanished: restart."""
I18N_MODIFIED = 2
"""Only translations (``.mo``) changed: resetting them is enough."""


class CodeChanged:
    """Keeps one baseline and compares the files with it. Safe to call from several threads.

    *settings*: default `Settings.load()` at the first call, which may raise `SettingsError`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._files: Files | None = None
        self._scanner = Scanner()
        self._modules: list[str] = []
        self._imported: dict[str, Signature | None] = {}
        self._locales: list[str] = []
        self._translations = CachedWalk(lambda by: mo_files(self._locales, by, ASSET_FOLDERS_AT_MOST))

    def __call__(self) -> int:
        """Return 0, `FILE_MODIFIED` or `I18N_MODIFIED`. Each change is reported once.

        The first call takes the baseline: each file as it was when it was loaded, as far as that can be known.
        """
        with self._lock:
            files = self._files or self._begin()
            self._collect(files)
            changed = self._scanner.tick()
            forget_bytecode(changed)
        if not changed:
            return 0
        return I18N_MODIFIED if all(path.endswith(".mo") for path in changed) else FILE_MODIFIED

    def _begin(self) -> Files:
        self._files = files = Files(self._settings or Settings.load())
        self._scanner.watch_only((), [Folder(each, files.installed) for each in files.install_folders()])
        for listed in self._listed(files):
            self._scanner.watch(listed, known_signature(listed))
        # From now on a file that fails to import is known, too: it is in no `sys.modules`.
        ImportHook(files.ours, self._saw).install()
        return files

    def _listed(self, files: Files) -> set[str]:
        locales = locale_folders(files.ours)
        if locales != self._locales:
            self._locales = locales
            self._translations = CachedWalk(lambda by: mo_files(locales, by, ASSET_FOLDERS_AT_MOST))
        return files.extra() | self._translations.now()

    def _saw(self, path: str, found: Signature | None) -> None:
        self._imported.setdefault(path, found)

    def _collect(self, files: Files) -> None:
        while self._imported:
            self._scanner.watch(*self._imported.popitem())
        for listed in self._listed(files):
            # One that is not watched yet was born since the last call.
            self._scanner.watch(listed, None)
        modules = list(sys.modules)
        if self._modules == modules:
            return
        self._modules = modules
        for module in list(sys.modules.values()):
            path = module_file(module)
            if path is not None and files.ours(path):
                self._scanner.watch(path, _as_loaded(module, path))


def _as_loaded(module: object, path: str) -> Signature | None:
    """The signature of *path* now, or another one where the module's byte code says it was loaded from another text.

    So a save between the import and the first call is seen.
    """
    found = known_signature(path)
    cached = module_value(module, "__cached__")
    if found is None or not isinstance(cached, str) or not _has_fresh_bytecode(module, path, cached):
        return found
    try:
        magic, flags, mtime, size = struct.unpack("<4sIII", safe_read(cached, 16, whole=False))
    except (OSError, struct.error):
        return found
    same = (mtime, size) == (found.mtime_ns // 1_000_000_000 & 0xFFFFFFFF, found.size & 0xFFFFFFFF)
    if magic != importlib.util.MAGIC_NUMBER or flags or same:
        return found
    return found._replace(mtime_ns=-1)


def _has_fresh_bytecode(module: object, path: str, cached: str) -> bool:
    """Whether loading this module has brought its byte code up to date.

    Where it has not, older byte code lies there for good, and would be taken for a change in each new process.
    """
    return (
        type(module) is ModuleType
        and type(module_value(module, "__loader__")) is importlib.machinery.SourceFileLoader
        and path.endswith(".py")
        and not sys.dont_write_bytecode
        and os.access(os.path.dirname(cached), os.W_OK)
    )


code_changed = CodeChanged()
"""The one of this process; `CodeChanged` makes others."""
