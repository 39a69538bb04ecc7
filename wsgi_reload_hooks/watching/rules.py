"""Decides which files are watched (loaded modules of the project, listed files, assets), and says why."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable

from ..core.settings import Settings, project_root
from ..core.text import PACKAGE_ROOT, printable, relative, under
from ..process.counters import KINDS, TEMPLATES, TRANSLATIONS
from .gitignore import GitIgnore
from .globs import IGNORED_FOLDERS, IGNORED_NAMES, TEMPORARY, Glob, never_entered
from .modules import source_of
from .walks import CachedWalk, mo_files

_INSTALLED = (".dist-info", ".egg-info", ".egg-link", ".pth")

_IMPORTABLE = tuple(importlib.machinery.SOURCE_SUFFIXES + importlib.machinery.EXTENSION_SUFFIXES)

# Suffixes of files that are watched without being listed: modules, archives, and Django's translations.
_LOADABLE = (*_IMPORTABLE, *importlib.machinery.BYTECODE_SUFFIXES, ".zip", ".egg", ".whl", ".pyz", ".mo")

_PACKAGES_DEEP = 3

_FOLDERS_AT_MOST = 500

ASSETS_AT_MOST = 10_000
ASSET_FOLDERS_AT_MOST = 10_000
"""So many assets are watched: their folders are told by the application, and may be the root of everything."""


class Files:
    """Holds the rules of one project; every engine uses the same object.

    Relative names start at *root*, and paths in log lines are relative to it (default: the project's folder).
    """

    def __init__(self, settings: Settings, root: str | None = None) -> None:
        self.root = os.path.abspath(root or project_root())
        self._third_party = settings.third_party
        # Compiled here: the thread that uses them should do nothing but ask the file system.
        self._exclude = [Glob(text, self.root) for text in settings.exclude if text != "!"]
        self._extra = [Glob(text, self.root) for text in settings.extra_files if text != "!"]
        self.unused: set[str] = set()
        """Lines of ``.gitignore`` files that the last walk of `extra` could not use, each with the reason."""
        self._walked: frozenset[str] = frozenset()
        self._extra_walk = CachedWalk(self._walk_extra)
        # By kind. Replaced as a whole: one thread walks them while another adds folders.
        self._asset_folders: dict[str, tuple[str, ...]] = {}
        self._asset_walk = CachedWalk(self._walk_assets)
        self._assets_walked: frozenset[str] = frozenset()
        paths = sysconfig.get_paths()
        libraries = {os.path.abspath(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
        self._libraries = tuple(library for library in libraries if not under(self.root, library))

    def ours(self, path: str) -> bool:
        """Tell whether a change of this loaded file counts."""
        return not self._not_ours(path)

    def excluded(self, path: str) -> bool:
        """Tell whether the setting ``exclude`` names this file or a folder above it."""
        return self._excluding(path) is not None

    def path(self, given: str) -> str:
        """Return the absolute path under which the file *given* (relative to the project) is watched."""
        return source_of(os.path.join(self.root, given))

    def explain(self, path: str) -> str:
        """Return one line: whether a change of *path* (relative to the project) causes a reload, and by which rule."""
        return printable(self._explained(self.path(path)))

    def relative(self, path: str) -> str:
        """Return *path* for a log line: relative to the project if it lies in it, on one line."""
        return relative(path, self.root)

    def extra(self) -> set[str]:
        """Return the files listed in ``extra_files``, globs expanded now; a name without a glob need not exist."""
        return set(self._extra_walk.now())

    def add_assets(self, kind: str, folders: Iterable[str]) -> tuple[str, ...]:
        """Add *folders* whose files are assets of *kind* (see `counters`). Returns those that are new."""
        known = self._asset_folders.get(kind, ())
        new = tuple(folder for folder in dict.fromkeys(folders) if folder not in known)
        if new:
            self._asset_folders = {**self._asset_folders, kind: known + new}
            self._asset_walk = CachedWalk(self._walk_assets)
        return new

    def asset_kind(self, path: str) -> str | None:
        """Return the kind of the asset *path* by its folder: workers reset their cache of that kind when it changes."""
        for kind in KINDS:
            for folder in self._asset_folders.get(kind, ()):
                inside = path[len(os.path.join(folder, "")) :] if under(path, folder) else ""
                if inside and _IS_ASSET[kind](inside):
                    return None if self.excluded(path) else kind
        return None

    def assets(self) -> set[str]:
        """Return the files that are in the folders of `add_assets` now; `ASSETS_AT_MOST` of them, in
        `ASSET_FOLDERS_AT_MOST` folders."""
        return set(self._asset_walk.now())

    def walked(self) -> frozenset[str]:
        """Return the folders that `extra` and `assets` searched the last time: where a new file may appear."""
        return self._walked | self._assets_walked

    def importable(self, folder: str) -> frozenset[str]:
        """Return the names in *folder* that may make a failed import succeed when they appear."""
        return frozenset(
            entry.name
            for entry in _entries(folder)
            if not IGNORED_NAMES.match(entry.name)
            and entry.name not in IGNORED_FOLDERS
            and (entry.name.endswith(_IMPORTABLE) or _is_folder(entry))
        )

    def installed(self, folder: str) -> frozenset[str]:
        """Return the distributions in a site-packages folder: the cheapest sign that something was installed."""
        return frozenset(entry.name for entry in _entries(folder) if entry.name.endswith(_INSTALLED))

    def import_folders(self, loaded: Iterable[str]) -> set[str]:
        """Return the folders where the module of a failed import could appear, including packages being written."""
        here = _here() or self.root
        start = {self.root, here, *map(os.path.dirname, loaded)}
        entries = [os.path.normpath(os.path.join(here, entry)) for entry in sys.path]
        start.update(entry for entry in entries if self.ours(os.path.join(entry, "x")))
        folders: set[str] = set()
        for folder in start:
            for path, inside, _ in os.walk(folder):
                folders.add(path)
                known = self.importable(path)
                deep = os.path.relpath(path, folder).count(os.sep) >= _PACKAGES_DEEP
                inside[:] = (
                    [] if deep or len(folders) > _FOLDERS_AT_MOST else [each for each in inside if each in known]
                )
        return folders

    def install_folders(self) -> set[str]:
        """Return the site-packages folders that this process imports from."""
        return {
            os.path.normpath(os.path.join(_here(), entry))
            for entry in sys.path
            if os.path.basename(entry) in ("site-packages", "dist-packages") and os.path.isdir(entry)
        }

    def _excluding(self, path: str) -> Glob | None:
        """Return the entry of ``exclude`` that excludes *path*, or None."""
        last = next((entry for entry in reversed(self._exclude) if entry.matches(path)), None)
        return None if last is None or last.takes_back else last

    def _not_ours(self, path: str) -> str:
        """Return why a change of this loaded file would not count; empty if it would."""
        if under(path, PACKAGE_ROOT):
            return "part of these hooks"
        excluding = self._excluding(path)
        if excluding is not None:
            return f"exclude = {excluding.text!r}"
        if self._third_party:
            return ""
        inside = os.path.relpath(path, self.root) if under(path, self.root) else path
        for part in inside.split(os.sep)[:-1]:
            if part in IGNORED_FOLDERS:
                return f"third-party (in a folder {part}); third_party = true would"
        for library in self._libraries:
            if under(path, library):
                return f"third-party (in {library}); third_party = true would"
        return ""

    def _walk_extra(self, by: set[str]) -> set[str]:
        ignored = GitIgnore(self.root)
        found = {path for path in self._listed(ignored) if not self.excluded(path)}
        by |= self._walked
        by.update(ignored.files())
        self.unused = ignored.unused()
        by.update(entry.start for entry in self._extra)
        return found

    def _walk_assets(self, by: set[str]) -> set[str]:
        folders = self._asset_folders
        found = {
            path for path in mo_files(folders.get(TRANSLATIONS, ()), by, ASSET_FOLDERS_AT_MOST) if self.asset_kind(path)
        }
        for start in folders.get(TEMPLATES, ()):
            by.add(start)
            for folder, inside, names in os.walk(start):
                if len(found) >= ASSETS_AT_MOST or len(by) >= ASSET_FOLDERS_AT_MOST:
                    break
                by.add(folder)
                inside[:] = [each for each in inside if not never_entered(folder, each)]
                found.update(path for name in names for path in [os.path.join(folder, name)] if self.asset_kind(path))
        self._assets_walked = frozenset(by)
        return found

    def _listed(self, ignored: GitIgnore) -> dict[str, Glob]:
        """Return the files that ``extra_files`` lists, each with its entry."""
        found: dict[str, Glob] = {}
        walked: set[str] = set()
        for entry in self._extra:
            if entry.takes_back:
                found = {path: other for path, other in found.items() if not entry.matches(path)}
            else:
                found.update(dict.fromkeys(entry.expanded(ignored, walked), entry))
        self._walked = frozenset(walked)
        return found

    def _explained(self, path: str) -> str:
        excluding, entry, not_ours = (
            self._excluding(path),
            self._listed(GitIgnore(self.root)).get(path),
            self._not_ours(path),
        )
        if entry is not None and excluding is None:
            return f"watched: listed by extra_files = {entry.text!r}"
        kind = self.asset_kind(path)
        if kind is not None:
            return f"watched: {kind} of Django are reset, no reload"
        if excluding is None and not path.endswith(_LOADABLE):
            return self._unlisted(path)
        if not_ours:
            return f"not watched: {not_ours}"
        return f"watched when it is loaded: it lies in {'the project' if under(path, self.root) else 'no library'}"

    def _unlisted(self, path: str) -> str:
        """Return why ``extra_files`` does not list *path*, which is no module either."""
        if os.path.isdir(path):
            return "not watched: a folder; only the files in it can be"
        last = next((entry for entry in reversed(self._extra) if entry.speaks_of(path)), None)
        if last is None:
            temporary = IGNORED_NAMES.match(os.path.basename(path))
            return f"not watched: {TEMPORARY if temporary else 'no module, and extra_files does not list it'}"
        if last.takes_back:
            return f"not watched: extra_files = {last.text!r}"
        why = last.passed_over(path, GitIgnore(self.root))
        if not why and not os.path.lexists(path):
            return f"watched once it is there: listed by extra_files = {last.text!r}"
        return f"not watched: {why or 'no file that can be reached'}, so not listed by extra_files = {last.text!r}"


def _is_translation(inside: str) -> bool:
    return inside.endswith(".mo")


def _is_template(inside: str) -> bool:
    # Modules and archives may lie there too; those count only if they are loaded.
    *folders, name = inside.split(os.sep)
    return not (name.endswith(_LOADABLE) or IGNORED_NAMES.match(name) or IGNORED_FOLDERS.intersection(folders))


_IS_ASSET: dict[str, Callable[[str], bool]] = {TRANSLATIONS: _is_translation, TEMPLATES: _is_template}


def _here() -> str:
    """Return the working directory; empty if it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
