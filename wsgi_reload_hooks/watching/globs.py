"""The globs of the settings ``exclude`` and ``extra_files``, and the files that a walk passes over."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..core.text import under
from .gitignore import Ignored

VCS_FOLDERS = frozenset({".git", ".hg", ".svn", ".bzr", "CVS", "_darcs", ".jj"})

IGNORED_FOLDERS = VCS_FOLDERS | {"__pycache__", "node_modules", "site-packages", "dist-packages", ".tox", ".nox"}

# What editors leave beside a file while they save it, and backups of it.
IGNORED_NAMES = re.compile(
    r"""(.*~ | \.\#.* | \#.*\# | \..*\.sw[a-z] | .*\.(tmp|bak|orig|rej|pyc|pyo|part) | .*\$py\.class
      | 4913 | .*___jb_(tmp|old|bak)___ | \.goutputstream-.* | sed[A-Za-z0-9]{6} )\Z""",
    re.VERBOSE | re.DOTALL,
)

TEMPORARY = "an editor's temporary file"

_GLOB = re.compile(r"(?P<deep>\*\*/?)|(?P<any>\*)|(?P<one>\?)|(?P<set>\[[^]/]+\])|(?P<plain>.)", re.DOTALL)


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
    never = never_entered(folder, name) if is_folder else ""
    if never:
        return never
    if not is_folder and IGNORED_NAMES.match(name):
        return TEMPORARY
    line = ignored.line(path, is_folder)
    return str(line) if line else ""


def never_entered(folder: str, name: str) -> str:
    """Why no walk enters this folder, whatever git ignores; nothing where one does."""
    if name in IGNORED_FOLDERS:
        return f"in a folder {name}"
    path = os.path.join(folder, name)
    return f"in a virtual environment, {path}" if os.path.exists(os.path.join(path, "pyvenv.cfg")) else ""
