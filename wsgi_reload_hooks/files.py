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
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, Optional

from .settings import Settings, project_root

VCS_FOLDERS = frozenset({".git", ".hg", ".svn", ".bzr", "CVS", "_darcs", ".jj"})
IGNORED_FOLDERS = VCS_FOLDERS | {"__pycache__", "node_modules", "site-packages", "dist-packages", ".tox", ".nox"}
# What editors leave beside a file while they save it, and backups of it.
IGNORED_NAMES = re.compile(
    r"""(.*~ | \.\#.* | \#.*\# | \..*\.sw[a-z] | .*\.(tmp|bak|orig|rej|pyc|pyo|part) | .*\$py\.class
      | 4913 | .*___jb_(tmp|old|bak)___ | \.goutputstream-.* | sed[A-Za-z0-9]{6} )\Z""",
    re.VERBOSE | re.DOTALL,
)
_INSTALLED = (".dist-info", ".egg-info", ".egg-link", ".pth")
_IMPORTABLE = tuple(importlib.machinery.SOURCE_SUFFIXES + importlib.machinery.EXTENSION_SUFFIXES)
_GLOB = re.compile(r"(?P<deep>\*\*/?)|(?P<any>\*)|(?P<one>\?)|(?P<set>\[[^]/]+\])|(?P<plain>.)", re.DOTALL)
_NAMESPACE: Any = vars(ModuleType)["__dict__"]
_PACKAGES_DEEP = 3
_FOLDERS_AT_MOST = 500
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


def module_file(module: object) -> Optional[str]:
    """The file a module came from, or None. Runs no code of the module."""
    path = module_value(module, "__file__")
    return source_of(path) if isinstance(path, str) and path else None


def loaded_files() -> set[str]:
    """The files of all modules of this process."""
    # A copy first: another thread may import while we look.
    return {path for module in list(sys.modules.values()) for path in [module_file(module)] if path}


def mo_files(ours: Callable[[str], bool]) -> set[str]:
    """The ``.mo`` files of every locale folder that is *ours* and that a configured Django in this process uses (Django)."""
    conf, registry = sys.modules.get("django.conf"), sys.modules.get("django.apps")
    settings = getattr(conf, "settings", None)
    if settings is None or not settings.configured or not settings.USE_I18N:
        return set()
    folders = [os.fspath(folder) for folder in settings.LOCALE_PATHS]
    apps = getattr(registry, "apps", None)
    if apps is not None and apps.ready:
        folders += [os.path.join(config.path, "locale") for config in apps.get_app_configs()]
    return {
        os.path.join(folder, name)
        for locale in map(os.path.abspath, folders)
        if ours(os.path.join(locale, "x"))
        for folder, _, names in os.walk(locale)
        for name in names
        if name.endswith(".mo")
    }


class Files:
    """The rules of one project; the same object for every engine.

    *root* is where relative names start and what log lines are relative to (default: the project's folder).
    """

    def __init__(self, settings: Settings, root: Optional[str] = None) -> None:
        self.root = os.path.abspath(root or project_root())
        self._third_party = settings.third_party
        # Compiled here: they are used in a thread that had better do nothing but ask the file system.
        self._exclude = [self._pattern(pattern) for pattern in settings.exclude]
        self._extra = [(*self._anchored(pattern), self._pattern(pattern)) for pattern in settings.extra_files]
        paths = sysconfig.get_paths()
        libraries = {os.path.abspath(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
        self._libraries = tuple(library for library in libraries if not under(self.root, library))

    def ours(self, path: str) -> bool:
        """Whether a change of this loaded file counts."""
        if under(path, _OURSELVES) or self.excluded(path):
            return False
        if self._third_party:
            return True
        inside = os.path.relpath(path, self.root) if under(path, self.root) else path
        if any(part in IGNORED_FOLDERS for part in inside.split(os.sep)[:-1]):
            return False
        return not any(under(path, library) for library in self._libraries)

    def excluded(self, path: str) -> bool:
        """Whether the setting ``exclude`` names this file or a folder above it."""
        return any(pattern.match(path) for pattern in self._exclude)

    def relative(self, path: str) -> str:
        """*path* for a log line: relative to the project where it lies in it, on one line."""
        return printable(os.path.relpath(path, self.root) if under(path, self.root) else path)

    def extra(self) -> set[str]:
        """The files listed in ``extra_files``, globs expanded as of now; a name without a glob need not exist."""
        found = {path for each in self._extra for path in _expanded(*each)}
        return {path for path in found if not self.excluded(path)}

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
        start = {self.root, os.getcwd(), *map(os.path.dirname, loaded)}
        start.update(os.path.abspath(entry) for entry in sys.path if self.ours(os.path.join(entry, "x")))
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
            os.path.abspath(entry)
            for entry in sys.path
            if os.path.basename(entry) in ("site-packages", "dist-packages") and os.path.isdir(entry)
        }

    def _anchored(self, pattern: str) -> tuple[str, str]:
        """The folder that *pattern* starts from, whose name is no glob whatever is in it, and the pattern from there."""
        rest = os.path.normpath(pattern)
        if os.path.isabs(rest):
            return os.sep, rest.lstrip(os.sep)
        folder = self.root
        while rest == os.pardir or rest.startswith(os.pardir + os.sep):
            folder, rest = os.path.dirname(folder), rest[len(os.pardir + os.sep) :]
        return folder, "" if rest == os.curdir else rest

    def _pattern(self, pattern: str) -> re.Pattern[str]:
        """A glob as a regular expression over absolute paths; a folder stands for all in it."""
        folder, rest = self._anchored(pattern if "/" in pattern else os.path.join("**", pattern))
        name = re.escape(os.path.join(folder, "")) + _GLOB.sub(_as_regex, rest) if rest else re.escape(folder)
        return re.compile(name + r"(?:/.*)?\Z", re.DOTALL)


def _expanded(anchor: str, rest: str, pattern: re.Pattern[str]) -> Iterator[str]:
    fixed = re.split(r"[*?[]", rest, maxsplit=1)[0]
    name = os.path.normpath(os.path.join(anchor, fixed if fixed == rest else os.path.dirname(fixed)))
    if fixed == rest and not os.path.isdir(name):
        yield name
        return
    for folder, folders, names in os.walk(name):
        folders[:] = [each for each in folders if not _skipped(folder, each)]
        for each in names:
            path = os.path.join(folder, each)
            if not IGNORED_NAMES.match(each) and pattern.match(path):
                yield path


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


def _skipped(folder: str, name: str) -> bool:
    return name in IGNORED_FOLDERS or os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))


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
