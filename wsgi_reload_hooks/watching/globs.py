"""Matches and expands the globs of the settings ``exclude`` and ``extra_files``, and says which files a walk skips."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..core.patterns import Patterns, fault
from ..core.settings import SettingsError
from ..core.text import under
from .gitignore import GitIgnore

VCS_FOLDERS = frozenset({".git", ".hg", ".svn", ".bzr", "CVS", "_darcs", ".jj"})

IGNORED_FOLDERS = VCS_FOLDERS | {"__pycache__", "node_modules", "site-packages", "dist-packages", ".tox", ".nox"}

# Temporary files that editors make while they save, and backups.
IGNORED_NAMES = re.compile(
    r"""(.*~ | \.\#.* | \#.*\# | \..*\.sw[a-z] | .*\.(tmp|bak|orig|rej|pyc|pyo|part) | .*\$py\.class
      | 4913 | .*___jb_(tmp|old|bak)___ | \.goutputstream-.* | sed[A-Za-z0-9]{6} )\Z""",
    re.VERBOSE | re.DOTALL,
)

TEMPORARY = "an editor's temporary file"

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class Glob:
    """Matches one entry of ``exclude`` or ``extra_files``; ``!`` takes back what earlier entries matched.

    Raises `SettingsError` if the entry cannot be used.
    """

    def __init__(self, text: str, root: str) -> None:
        self.text = text
        self.takes_back = text.startswith("!")
        glob = text[self.takes_back :]
        self._anchor, rest = _anchored(root, glob)
        line = ("/" if "/" in glob else "/**/") + (rest or "**")
        if why := fault(line):
            raise SettingsError(f"pattern {text!r}: {why}")
        self._pattern = Patterns([line])
        plain = re.match(r"(?:\\.|[^\\*?[])*", rest, re.DOTALL)
        fixed = plain.group() if plain else ""
        self._is_glob = fixed != rest
        start = os.path.dirname(fixed) if self._is_glob else fixed
        self.start = os.path.normpath(os.path.join(self._anchor, _ESCAPED.sub(r"\1", start)))

    def matches(self, path: str) -> bool:
        """Tell whether the entry matches *path* or a folder above it."""
        inside = os.path.join(self._anchor, "")
        return path.startswith(inside) and self._pattern.last(path[len(inside) :]) is not None

    def expanded(self, ignored: GitIgnore, walked: set[str]) -> Iterator[str]:
        """Yield the files that the entry lists now; a file named without a glob need not exist.

        The folders that it searches are added to *walked*.
        """
        if self._names_a_file():
            yield self.start
        elif not ignored.reason(self.start, True):
            walked.add(self.start)
            for folder, folders, names in os.walk(self.start):
                walked.add(folder)
                folders[:] = [each for each in folders if not _passed_over(folder, each, True, ignored)]
                for each in names:
                    path = os.path.join(folder, each)
                    if self.matches(path) and not _passed_over(folder, each, False, ignored):
                        yield path

    def speaks_of(self, path: str) -> bool:
        """Tell whether the entry lists *path*, or takes it back, unless a walk skips it."""
        return self.matches(path) and (self.takes_back or under(path, self.start))

    def passed_over(self, path: str, ignored: GitIgnore) -> str:
        """Return why the walk for this entry skips *path*; empty if it does not."""
        folder, *inside = self.start, *os.path.relpath(path, self.start).split(os.sep)
        why = ignored.reason(folder, True)
        for deep, name in enumerate(inside, 1):
            why = why or _passed_over(folder, name, deep < len(inside), ignored)
            folder = os.path.join(folder, name)
        return why

    def _names_a_file(self) -> bool:
        return not self._is_glob and not os.path.isdir(self.start)


def _anchored(root: str, glob: str) -> tuple[str, str]:
    """Split *glob* into the folder that it starts from, taken literally, and the glob below that folder."""
    rest = os.path.normpath(glob)
    if os.path.isabs(rest):
        return os.sep, rest.lstrip(os.sep)
    folder = root
    while rest == os.pardir or rest.startswith(os.pardir + os.sep):
        folder, rest = os.path.dirname(folder), rest[len(os.pardir + os.sep) :]
    return folder, "" if rest == os.curdir else rest


def _passed_over(folder: str, name: str, is_folder: bool, ignored: GitIgnore) -> str:
    """Return why a walk skips the file *name* or does not enter the folder *name*; empty if it does not skip it."""
    path = os.path.join(folder, name)
    never = never_entered(folder, name) if is_folder else ""
    if never:
        return never
    if not is_folder and IGNORED_NAMES.match(name):
        return TEMPORARY
    return ignored.reason(path, is_folder)


def never_entered(folder: str, name: str) -> str:
    """Return why no walk enters this folder, whatever git ignores; empty if walks do."""
    if name in IGNORED_FOLDERS:
        return f"in a folder {name}"
    path = os.path.join(folder, name)
    return f"in a virtual environment, {path}" if os.path.exists(os.path.join(path, "pyvenv.cfg")) else ""
