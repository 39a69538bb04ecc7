"""Which files count: loaded modules, listed files, and what is never ours.

The walk over ``sys.modules`` is CherryPy's and Django's classic; the rules of what to leave out are ours.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from .generation import KINDS, TEMPLATES, TRANSLATIONS
from .gitignore import GitIgnore, Ignored
from .settings import Settings, project_root

VCS_FOLDERS = frozenset({".git", ".hg", ".svn", ".bzr", "CVS", "_darcs", ".jj"})
IGNORED_FOLDERS = VCS_FOLDERS | {"__pycache__", "node_modules", "site-packages", "dist-packages", ".tox", ".nox"}
# What editors leave beside a file while they save it, and backups of it.
IGNORED_NAMES = re.compile(
    r"""(.*~ | \.\#.* | \#.*\# | \..*\.sw[a-z] | .*\.(tmp|bak|orig|rej|pyc|pyo|part) | .*\$py\.class
      | 4913 | .*___jb_(tmp|old|bak)___ | \.goutputstream-.* | sed[A-Za-z0-9]{6} )\Z""",
    re.VERBOSE | re.DOTALL,
)
_TEMPORARY = "an editor's temporary file"
_INSTALLED = (".dist-info", ".egg-info", ".egg-link", ".pth")
_IMPORTABLE = tuple(importlib.machinery.SOURCE_SUFFIXES + importlib.machinery.EXTENSION_SUFFIXES)
# What may come into the watch without being listed: also archives, and the translations of Django.
_LOADABLE = (*_IMPORTABLE, *importlib.machinery.BYTECODE_SUFFIXES, ".zip", ".egg", ".whl", ".pyz", ".mo")
_GLOB = re.compile(r"(?P<deep>\*\*/?)|(?P<any>\*)|(?P<one>\?)|(?P<set>\[[^]/]+\])|(?P<plain>.)", re.DOTALL)
_NAMESPACE: Any = vars(ModuleType)["__dict__"]
_PACKAGES_DEEP = 3
_COARSE = 2.0
_FOLDERS_AT_MOST = 500
ASSETS_AT_MOST = 10_000
"""So many assets are watched: their folders are told by the application, and may be the root of everything."""
_OURSELVES = os.path.dirname(os.path.abspath(__file__))


def printable(text: str) -> str:
    """*text* on one line: control characters and undecodable bytes are shown escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def under(path: str, folder: str) -> bool:
    """Whether *path* is *folder* or lies in it (``/srv/app2`` does not lie in ``/srv/app``)."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def source_of(path: str) -> str:
    """The file to watch for a ``__file__`` or ``spec.origin``.

    ``.pyc``, ``.pyo`` and Jython's ``$py.class`` become the source where there is one, a module in a zip file or
    an egg becomes the archive (CherryPy, Django).
    """
    source = path
    if path.endswith((".pyc", ".pyo")):
        try:
            source = importlib.util.source_from_cache(path)
        except (ValueError, NotImplementedError):
            source = path[:-1]
    elif path.endswith("$py.class"):
        source = path[: -len("$py.class")] + ".py"
    for candidate in (source, path):
        if os.path.exists(candidate):
            return os.path.abspath(candidate)
    folder = os.path.dirname(path)
    while folder and folder != os.path.dirname(folder):
        if os.path.isfile(folder):
            return os.path.abspath(folder)
        folder = os.path.dirname(folder)
    return os.path.abspath(source)


def module_value(module: object, name: str) -> Any:
    """What *module* has by this *name*, or None. Runs no code of the module, however lazy it is."""
    # Not `isinstance` and not `vars`: both ask the module.
    if issubclass(type(module), ModuleType):
        namespace = _NAMESPACE.__get__(module)
        return namespace.get(name) if isinstance(namespace, dict) else None
    return inspect.getattr_static(module, name, None)


def module_file(module: object) -> str | None:
    """The file a module came from, or None. Runs no code of the module."""
    path = module_value(module, "__file__")
    return source_of(path) if isinstance(path, str) and path else None


def loaded_files(modules: Iterable[object] | None = None) -> set[str]:
    """The files of *modules*; where None are given, of all modules of this process."""
    if modules is None:
        # A copy: another thread may import while we look.
        modules = list(sys.modules.values())
    return {path for module in modules for path in [module_file(module)] if path}


class Walk:
    """What a walk found, until a folder or a file that it went by has changed.

    *walk* makes it: it adds to its argument the paths that its result depends on.
    """

    def __init__(self, walk: Callable[[set[str]], set[str]]) -> None:
        self._walk = walk
        self._by: dict[str, tuple[int, int] | None] = {}
        self._found: set[str] = set()
        self._again = True

    def now(self) -> set[str]:
        """What it finds as of now; a walk only where that may have changed."""
        recent = (time.time() - _COARSE) * 1e9
        if self._again or any(_state(path) != state for path, state in self._by.items()):
            by: set[str] = set()
            self._found = self._walk(by)
            self._by = {path: _state(path) for path in by}
            # The clock of a file system ticks coarsely: what changed just now may change again unseen.
            self._again = any(state is not None and state[0] > recent for state in self._by.values())
        return self._found


def _state(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_ino


def locale_folders(ours: Callable[[str], bool]) -> list[str]:
    """Every locale folder that is *ours* and that a configured Django in this process uses (Django)."""
    conf, registry = sys.modules.get("django.conf"), sys.modules.get("django.apps")
    settings = getattr(conf, "settings", None)
    if settings is None or not settings.configured or not settings.USE_I18N:
        return []
    folders = [os.fspath(folder) for folder in settings.LOCALE_PATHS]
    apps = getattr(registry, "apps", None)
    if apps is not None and apps.ready:
        folders += [os.path.join(config.path, "locale") for config in apps.get_app_configs()]
    return [locale for locale in map(os.path.abspath, folders) if ours(os.path.join(locale, "x"))]


def mo_files(folders: Iterable[str], by: set[str]) -> set[str]:
    """The ``.mo`` files in *folders*; each folder that was looked into is added to *by*."""
    found: set[str] = set()
    for locale in folders:
        by.add(locale)
        for folder, _, names in os.walk(locale):
            by.add(folder)
            found.update(os.path.join(folder, name) for name in names if name.endswith(".mo"))
    return found


class Files:
    """The rules of one project; the same object for every engine.

    *root* is where relative names start and what log lines are relative to (default: the project's folder).
    """

    def __init__(self, settings: Settings, root: str | None = None) -> None:
        self.root = os.path.abspath(root or project_root())
        self._third_party = settings.third_party
        # Compiled here: they are used in a thread that had better do nothing but ask the file system.
        self._exclude = [Entry(text, self.root) for text in settings.exclude if text != "!"]
        self._extra = [Entry(text, self.root) for text in settings.extra_files if text != "!"]
        self._gitignore = GitIgnore(self.root)
        self._walked: frozenset[str] = frozenset()
        self._extra_walk = Walk(self._walk_extra)
        # By kind. Replaced as a whole: a thread walks them while another one adds to them.
        self._asset_folders: dict[str, tuple[str, ...]] = {}
        self._asset_walk = Walk(self._walk_assets)
        self._assets_walked: frozenset[str] = frozenset()
        paths = sysconfig.get_paths()
        libraries = {os.path.abspath(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
        self._libraries = tuple(library for library in libraries if not under(self.root, library))

    def ours(self, path: str) -> bool:
        """Whether a change of this loaded file counts."""
        return not self._not_ours(path)

    def excluded(self, path: str) -> bool:
        """Whether the setting ``exclude`` names this file or a folder above it."""
        return self._excluding(path) is not None

    def path(self, given: str) -> str:
        """The absolute path under which the file *given* (relative to the project) is known."""
        return source_of(os.path.join(self.root, given))

    def explain(self, path: str) -> str:
        """Whether a change of *path* (relative to the project) causes a reload, and the rule that decides: one line."""
        return printable(self._explained(self.path(path)))

    def relative(self, path: str) -> str:
        """*path* for a log line: relative to the project where it lies in it, on one line."""
        return printable(os.path.relpath(path, self.root) if under(path, self.root) else path)

    def extra(self) -> set[str]:
        """The files listed in ``extra_files``, globs expanded as of now; a name without a glob need not exist."""
        return set(self._extra_walk.now())

    def add_assets(self, kind: str, folders: Iterable[str]) -> tuple[str, ...]:
        """What is in *folders* is of that *kind* (see `generation`), too. Those of them that were not known."""
        known = self._asset_folders.get(kind, ())
        new = tuple(folder for folder in dict.fromkeys(folders) if folder not in known)
        if new:
            self._asset_folders = {**self._asset_folders, kind: known + new}
            self._asset_walk = Walk(self._walk_assets)
        return new

    def asset_kind(self, path: str) -> str | None:
        """Of which kind this file is by the folder it lies in: what workers keep of it is reset when it changes."""
        for kind in KINDS:
            for folder in self._asset_folders.get(kind, ()):
                inside = path[len(os.path.join(folder, "")) :] if under(path, folder) else ""
                if inside and _IS_ASSET[kind](inside):
                    return None if self.excluded(path) else kind
        return None

    def assets(self) -> set[str]:
        """The files in the folders of `add_assets`, as of now; `ASSETS_AT_MOST`."""
        return set(self._asset_walk.now())

    def walked(self) -> frozenset[str]:
        """The folders in which `extra` and `assets` looked for files the last time: where a new one may appear."""
        return self._walked | self._assets_walked

    def importable(self, folder: str) -> frozenset[str]:
        """The names in *folder* whose appearing may make a failed import succeed."""
        return frozenset(
            entry.name
            for entry in _entries(folder)
            if not IGNORED_NAMES.match(entry.name)
            and entry.name not in IGNORED_FOLDERS
            and (entry.name.endswith(_IMPORTABLE) or _is_folder(entry))
        )

    def installed(self, folder: str) -> frozenset[str]:
        """The distributions in a site-packages folder: the cheapest witness that something was installed."""
        return frozenset(entry.name for entry in _entries(folder) if entry.name.endswith(_INSTALLED))

    def import_folders(self, loaded: Iterable[str]) -> set[str]:
        """Where a module that a failed import missed could appear: also inside a package that is being written."""
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
        """The site-packages folders this process imports from."""
        return {
            os.path.normpath(os.path.join(_here(), entry))
            for entry in sys.path
            if os.path.basename(entry) in ("site-packages", "dist-packages") and os.path.isdir(entry)
        }

    def _excluding(self, path: str) -> Entry | None:
        """The entry of ``exclude`` that keeps *path* out."""
        last = next((entry for entry in reversed(self._exclude) if entry.pattern.match(path)), None)
        return None if last is None or last.takes_back else last

    def _not_ours(self, path: str) -> str:
        """Why a change of this file would not count though it is loaded; nothing where it would."""
        if under(path, _OURSELVES):
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
        ignored = self._gitignore.now()
        found = {path for path in self._listed(ignored) if not self.excluded(path)}
        by |= self._walked
        by.update(ignored.files())
        by.update(entry.start for entry in self._extra)
        return found

    def _walk_assets(self, by: set[str]) -> set[str]:
        folders = self._asset_folders
        found = {path for path in mo_files(folders.get(TRANSLATIONS, ()), by) if self.asset_kind(path)}
        for start in folders.get(TEMPLATES, ()):
            by.add(start)
            for folder, inside, names in os.walk(start):
                if len(found) >= ASSETS_AT_MOST:
                    break
                by.add(folder)
                inside[:] = [each for each in inside if not _never_entered(folder, each)]
                found.update(path for name in names for path in [os.path.join(folder, name)] if self.asset_kind(path))
        self._assets_walked = frozenset(by)
        return found

    def _listed(self, ignored: Ignored) -> dict[str, Entry]:
        """The files that ``extra_files`` lists, each with the entry that does."""
        found: dict[str, Entry] = {}
        walked: set[str] = set()
        for entry in self._extra:
            if entry.takes_back:
                found = {path: other for path, other in found.items() if not entry.pattern.match(path)}
            else:
                found.update(dict.fromkeys(entry.expanded(ignored, walked), entry))
        self._walked = frozenset(walked)
        return found

    def _explained(self, path: str) -> str:
        excluding, entry, not_ours = (
            self._excluding(path),
            self._listed(self._gitignore.now()).get(path),
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
        """What keeps ``extra_files`` from listing *path*, which is no module either."""
        if os.path.isdir(path):
            return "not watched: a folder; only the files in it can be"
        last = next((entry for entry in reversed(self._extra) if entry.speaks_of(path)), None)
        if last is None:
            temporary = IGNORED_NAMES.match(os.path.basename(path))
            return f"not watched: {_TEMPORARY if temporary else 'no module, and extra_files does not list it'}"
        if last.takes_back:
            return f"not watched: extra_files = {last.text!r}"
        why = last.passed_over(path, self._gitignore.now())
        if not why and not os.path.lexists(path):
            return f"watched once it is there: listed by extra_files = {last.text!r}"
        return f"not watched: {why or 'no file that can be reached'}, so not listed by extra_files = {last.text!r}"


class Entry:
    """One entry of ``exclude`` or ``extra_files``: a glob, or with ``!`` one that takes back what earlier ones matched."""

    def __init__(self, text: str, root: str) -> None:
        self.text = text
        self.takes_back = text.startswith("!")
        glob = text[self.takes_back :]
        glob = glob[glob.startswith("\\!") :]
        self.pattern = _pattern(root, glob)
        anchor, rest = _anchored(root, glob)
        fixed = re.split(r"[*?[]", rest, maxsplit=1)[0]
        self._is_glob = fixed != rest
        self.start = os.path.normpath(os.path.join(anchor, os.path.dirname(fixed) if self._is_glob else fixed))

    def expanded(self, ignored: Ignored, walked: set[str]) -> Iterator[str]:
        """The files it lists as of now; one that is named without a glob need not exist.

        The folders in which it looks for them are added to *walked*.
        """
        if self._names_a_file():
            yield self.start
        elif not ignored.line(self.start, True):
            walked.add(self.start)
            for folder, folders, names in os.walk(self.start):
                walked.add(folder)
                folders[:] = [each for each in folders if not _passed_over(folder, each, True, ignored)]
                for each in names:
                    path = os.path.join(folder, each)
                    if self.pattern.match(path) and not _passed_over(folder, each, False, ignored):
                        yield path

    def speaks_of(self, path: str) -> bool:
        """Whether it lists *path*, or takes it back, unless a walk passes it over."""
        return bool(self.pattern.match(path)) and (self.takes_back or under(path, self.start))

    def passed_over(self, path: str, ignored: Ignored) -> str:
        """Why the walk for this entry passes *path* over, or nothing."""
        folder, *inside = self.start, *os.path.relpath(path, self.start).split(os.sep)
        line = ignored.line(folder, True)
        why = str(line) if line else ""
        for deep, name in enumerate(inside, 1):
            why = why or _passed_over(folder, name, deep < len(inside), ignored)
            folder = os.path.join(folder, name)
        return why

    def _names_a_file(self) -> bool:
        return not self._is_glob and not os.path.isdir(self.start)


def _anchored(root: str, glob: str) -> tuple[str, str]:
    """The folder that *glob* starts from, whose name is no glob whatever is in it, and the glob from there."""
    rest = os.path.normpath(glob)
    if os.path.isabs(rest):
        return os.sep, rest.lstrip(os.sep)
    folder = root
    while rest == os.pardir or rest.startswith(os.pardir + os.sep):
        folder, rest = os.path.dirname(folder), rest[len(os.pardir + os.sep) :]
    return folder, "" if rest == os.curdir else rest


def _pattern(root: str, glob: str) -> re.Pattern[str]:
    """A glob as a regular expression over absolute paths; a folder stands for all in it."""
    folder, rest = _anchored(root, glob if "/" in glob else os.path.join("**", glob))
    name = re.escape(os.path.join(folder, "")) + _GLOB.sub(_as_regex, rest) if rest else re.escape(folder)
    return re.compile(name + r"(?:/.*)?\Z", re.DOTALL)


def _as_regex(token: re.Match[str]) -> str:
    text = token.group()
    if token.lastgroup == "set":
        return _set_as_regex(text)
    return {"deep": "(?:.*/)?" if text.endswith("/") else ".*", "any": "[^/]*", "one": "[^/]"}.get(
        token.lastgroup or "", re.escape(text)
    )


def _set_as_regex(text: str) -> str:
    body = re.sub(r"([\\[&~|]|-(?=-))", r"\\\1", text[1:-1])
    regex = f"[^/{body[1:]}]" if body[0] in "!^" and body[1:] else f"[{body}]"
    try:
        re.compile(regex)
    except re.error:
        # A range from z to a, say: then it is no set.
        return re.escape(text)
    return regex


def _passed_over(folder: str, name: str, is_folder: bool, ignored: Ignored) -> str:
    """Why a walk takes no file *name* or does not enter a folder *name*; nothing where it does."""
    path = os.path.join(folder, name)
    never = _never_entered(folder, name) if is_folder else ""
    if never:
        return never
    if not is_folder and IGNORED_NAMES.match(name):
        return _TEMPORARY
    line = ignored.line(path, is_folder)
    return str(line) if line else ""


def _never_entered(folder: str, name: str) -> str:
    """Why no walk enters this folder, whatever git ignores; nothing where one does."""
    if name in IGNORED_FOLDERS:
        return f"in a folder {name}"
    path = os.path.join(folder, name)
    return f"in a virtual environment, {path}" if os.path.exists(os.path.join(path, "pyvenv.cfg")) else ""


def _is_translation(inside: str) -> bool:
    return inside.endswith(".mo")


def _is_template(inside: str) -> bool:
    # Modules and archives may lie there, too: of those counts what is loaded.
    *folders, name = inside.split(os.sep)
    return not (name.endswith(_LOADABLE) or IGNORED_NAMES.match(name) or IGNORED_FOLDERS.intersection(folders))


_IS_ASSET: dict[str, Callable[[str], bool]] = {TRANSLATIONS: _is_translation, TEMPLATES: _is_template}


def _here() -> str:
    """The working directory, or nothing where that has been deleted."""
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
