"""What git would ignore, asked of the file system alone: no git is started.

Used in a thread of a process that forks: nothing here logs, imports or waits for a lock, and nothing raises.
Names and patterns are compared byte by byte, as git does; a character of the texts here is one byte of a name.
"""

from __future__ import annotations

import os
import re
import stat
import string
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_NAME = ".gitignore"
_WILD = re.compile(r"[*?[\\]")
_CLASSES = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, (*range(32), 127))),
    "digit": string.digits,
    "graph": string.ascii_letters + string.digits + string.punctuation,
    "lower": string.ascii_lowercase,
    "print": string.ascii_letters + string.digits + string.punctuation + " ",
    "punct": string.punctuation,
    "space": " \t\n\r",
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}


class Line(NamedTuple):
    """One pattern, and where it stands."""

    file: str
    number: int
    text: str
    regex: re.Pattern[str]
    takes_back: bool
    only_folders: bool
    whole_path: bool
    """Compared with the path from the file's folder on, not with the last name alone."""

    def __str__(self) -> str:
        return f"line {self.number} {self.text!r} of {self.file}"


class GitIgnore:
    """The rules of the repository that *root* lies in, or of *root* where there is none."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._known: dict[str, tuple[tuple[int, ...], _Lines]] = {}

    def now(self) -> Ignored:
        """The rules as they are at this moment, for one look at the tree."""
        folder = self._root
        while not os.path.lexists(os.path.join(folder, ".git")):
            above = os.path.dirname(folder)
            if above == folder:
                return Ignored(self, self._root, None)
            folder = above
        return Ignored(self, folder, self.lines(_exclude_file(os.path.join(folder, ".git")), folder))

    def lines(self, path: str, folder: str) -> _Lines | None:
        """The patterns in *path*, which speak of what is in *folder*."""
        try:
            # git, too, does not follow a link here. A pipe would have us wait for its other end.
            info = os.lstat(path)
        except (OSError, ValueError):
            info = None
        if info is None or not stat.S_ISREG(info.st_mode):
            self._known.pop(path, None)
            return None
        # The last one for a file that could not be read and now can.
        state = (info.st_mtime_ns, info.st_size, info.st_ino, info.st_ctime_ns)
        known = self._known.get(path)
        if known is None or known[0] != state:
            known = self._known[path] = (state, _Lines(_parsed(path, os.path.relpath(path, self._root)), folder))
        return known[1]


class Ignored:
    """The rules at one moment: what was read once for a folder holds for all in it."""

    def __init__(self, source: GitIgnore, top: str, exclude: _Lines | None) -> None:
        self._source = source
        self._top = top
        self._inside = os.path.join(top, "")
        self._exclude = exclude
        self._lines: dict[str, tuple[_Lines, ...]] = {}
        self._folders: dict[str, Line | None] = {}

    def line(self, path: str, folder: bool) -> Line | None:
        """The line that has git ignore *path*, or a folder above it; None: it is not ignored."""
        if path == self._top or not path.startswith(self._inside):
            return None
        if not folder:
            return self.line(os.path.dirname(path), True) or self._decided(path, False)
        if path not in self._folders:
            # What is in an ignored folder cannot be taken back.
            self._folders[path] = self.line(os.path.dirname(path), True) or self._decided(path, True)
        return self._folders[path]

    def files(self) -> Iterator[str]:
        """The files that were looked at for rules so far, be they there or not."""
        yield os.path.join(self._top, ".git")
        yield _exclude_file(os.path.join(self._top, ".git"))
        for folder in self._lines:
            yield os.path.join(folder, _NAME)

    def _decided(self, path: str, folder: bool) -> Line | None:
        rules = self._of(os.path.dirname(path))
        text = _text(path) if rules else ""
        for lines in reversed(rules):
            line = lines.last(text, folder)
            if line is not None:
                return None if line.takes_back else line
        return None

    def _of(self, folder: str) -> tuple[_Lines, ...]:
        """The rules for what is in *folder*, the deepest last."""
        if folder not in self._lines:
            above = (self._exclude,) if folder == self._top else self._of(os.path.dirname(folder))
            own = self._source.lines(os.path.join(folder, _NAME), folder)
            self._lines[folder] = tuple(lines for lines in (*above, own) if lines is not None)
        return self._lines[folder]


class _Lines:
    """The patterns of one file."""

    def __init__(self, lines: Iterable[Line], folder: str) -> None:
        self._latest_first = list(lines)[::-1]
        self._start = len(_text(os.path.join(folder, "")))
        # One look for the many paths that no line matches.
        self._names = _any(line for line in self._latest_first if not line.whole_path)
        self._paths = _any(line for line in self._latest_first if line.whole_path)

    def last(self, text: str, folder: bool) -> Line | None:
        """The last line that matches the path *text*, be it one that takes back."""
        path = text[self._start :]
        name = path.rpartition("/")[2]
        if not (self._names.match(name) or self._paths.match(path)):
            return None
        for line in self._latest_first:
            if (folder or not line.only_folders) and line.regex.match(path if line.whole_path else name):
                return line
        return None


def _any(lines: Iterable[Line]) -> re.Pattern[str]:
    return re.compile("|".join(line.regex.pattern for line in lines) or "(?!)", re.DOTALL)


def _text(path: str) -> str:
    return os.fsencode(path).decode("latin-1")


def _content(path: str) -> bytes:
    try:
        with open(path, "rb", opener=_no_waiting) as file:
            return file.read() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except (OSError, ValueError):
        return b""


def _no_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _exclude_file(git: str) -> str:
    """``info/exclude`` of the repository; in a worktree or a submodule, ``.git`` is a file that names its folder."""
    if not os.path.isdir(git):
        named = os.fsdecode(_content(git).partition(b"gitdir: ")[2].strip())
        git = os.path.join(os.path.dirname(git), named)
        git = os.path.join(git, os.fsdecode(_content(os.path.join(git, "commondir")).strip()))
    return os.path.join(git, "info", "exclude")


def _parsed(path: str, shown: str) -> Iterator[Line]:
    content = _content(path)
    lines = content[3 * content.startswith(b"\xef\xbb\xbf") :].decode("latin-1").split("\n")
    for number, text in enumerate(lines, 1):
        if not text.startswith("#"):
            line = _line(shown, number, _trimmed(text[:-1] if text.endswith("\r") else text))
            if line is not None:
                yield line


def _trimmed(text: str) -> str:
    """*text* without the spaces at its end; a backslash keeps one."""
    cut = text.rstrip(" ")
    escaped = (len(cut) - len(cut.rstrip("\\"))) % 2
    return text[: len(cut) + escaped]


def _line(file: str, number: int, text: str) -> Line | None:
    takes_back = text.startswith("!")
    glob = text[takes_back:]
    only_folders = glob.endswith("/")
    glob = glob[: len(glob) - only_folders]
    whole_path = "/" in glob
    try:
        regex = re.compile(_as_regex(glob[glob.startswith("/") :]) + r"\Z", re.DOTALL)
    except (LookupError, ValueError, re.error, OverflowError, RecursionError):
        # A set that does not end, or a backslash with nothing behind it: git matches nothing with it.
        return None
    shown = os.fsdecode(text.encode("latin-1"))
    return Line(file, number, shown, regex, takes_back, only_folders, whole_path) if glob else None


def _as_regex(glob: str) -> str:
    """Raises LookupError or ValueError where *glob* is none."""
    done, at = [], 0
    while at < len(glob):
        char, start = glob[at], at
        at += 1
        if char == "*":
            while glob.startswith("*", at):
                at += 1
            # git compares what comes before the first wildcard by itself: after it, too, two stars go down.
            free = glob[start - 1 : start] == "/" or not _WILD.search(glob, 0, start)
            deep = at - start > 1 and free and glob[at : at + 1] in ("", "/")
            done.append(("(?:.*/)?" if at < len(glob) else ".*") if deep else "[^/]*")
            at += deep
        elif char == "?":
            done.append("[^/]")
        elif char == "[":
            part, at = _set_as_regex(glob, at)
            done.append(part)
        else:
            at += char == "\\"
            done.append(re.escape(glob[at - 1]))
    return "".join(done)


def _set_as_regex(glob: str, at: int) -> tuple[str, int]:
    """The set whose inside begins at *at*, and where the pattern goes on."""
    negated = glob[at] in "!^"
    at = first = at + negated
    members: set[str] = set()
    before = ""
    while at == first or glob[at] != "]":
        char = glob[at]
        if char == "-" and before and glob[at + 1] != "]":
            at += 2 if glob[at + 1] == "\\" else 1
            members.update(map(chr, range(ord(before), ord(glob[at]) + 1)))
            before = ""
        elif char == "[" and glob[at + 1] == ":" and glob[(end := glob.index("]", at + 2)) - 1] == ":" and end > at + 2:
            members.update(_CLASSES[glob[at + 2 : end - 1]])
            at, before = end, ""
        else:
            at += char == "\\"
            before = glob[at]
            members.add(before)
        at += 1
    # Never a slash, whatever the set says.
    members = members | {"/"} if negated else members - {"/"}
    inside = "".join(f"\\x{ord(member):02x}" for member in sorted(members))
    return (f"[{'^' * negated}{inside}]" if inside else "(?!)"), at + 1
