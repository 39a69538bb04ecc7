"""Reads ``.gitignore`` files and finds the line that makes git ignore a path. No git is started.

Runs in the watcher thread of a process that forks: nothing here logs or raises.
"""

from __future__ import annotations

import functools
import os
import stat

from ..core.patterns import Patterns
from ..core.text import under

_BYTES_AT_MOST = 100_000


class GitIgnore:
    """Holds the rules of the repository around *root* at one moment; without one, those in *root* and below."""

    def __init__(self, root: str) -> None:
        self._root = self._top = root
        while not os.path.lexists(os.path.join(self._top, ".git")):
            above = os.path.dirname(self._top)
            if above == self._top:
                self._top = root
                break
            self._top = above
        self._files: dict[str, Patterns] = {}
        self._folders: dict[str, list[tuple[str, int]]] = {}
        self._reasons: dict[str, str] = {}

    def reason(self, path: str, is_folder: bool) -> str:
        """Return the line that makes git ignore *path* or a folder above it, for people; empty if none does."""
        if path == self._top or not under(path, self._top):
            return ""
        if path not in self._reasons:
            # git does not let a later line re-include a file in an ignored folder.
            above = self.reason(os.path.dirname(path), True)
            self._reasons[path] = above or self._own_reason(path, is_folder)
        return self._reasons[path]

    def files(self) -> set[str]:
        """Return the files in which rules were looked for, existing or not."""
        return {os.path.join(self._top, ".git"), *self._files}

    def unused(self) -> set[str]:
        """Return the lines that git would use and we do not, each with the reason."""
        found = ((file, *each) for file, rules in self._files.items() for each in rules.unused.items())
        return {
            f"line {number} of {os.path.relpath(file, self._root)} is not used: {why}" for file, number, why in found
        }

    def _own_reason(self, path: str, is_folder: bool) -> str:
        for file, start in self._of(os.path.dirname(path)):
            rules = self._files[file]
            decided = rules.last(path[start:] + "/" * is_folder)
            if decided is not None:
                number, ignores = decided
                text = rules.lines[number - 1].strip()
                # It ignores everything in a folder, not the folder itself: other lines may re-include files in it.
                if not ignores or (is_folder and text.endswith("/**")):
                    return ""
                return f"line {number} {text!r} of {os.path.relpath(file, self._root)}"
        return ""

    def _of(self, folder: str) -> list[tuple[str, int]]:
        """Return the files with rules for *folder*, the deepest first, and where in a path their patterns begin."""
        if folder not in self._folders:
            start = len(os.path.join(folder, ""))
            own = [(os.path.join(folder, ".gitignore"), start)]
            if folder == self._top:
                own.append((os.path.join(folder, ".git", "info", "exclude"), start))
            self._files.update((file, _compiled(_content(file))) for file, _ in own)
            above = [] if folder == self._top else self._of(os.path.dirname(folder))
            self._folders[folder] = [each for each in own if any(self._files[each[0]].lines)] + above
        return self._folders[folder]


@functools.lru_cache(maxsize=256)
def _compiled(content: bytes) -> Patterns:
    return Patterns(os.fsdecode(content.removeprefix(b"\xef\xbb\xbf")).split("\n"))


def _content(path: str) -> bytes:
    """Return the content of *path*; nothing if it is no regular file: git follows no link here, a FIFO would block."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            return file.read(_BYTES_AT_MOST) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except (OSError, ValueError):
        return b""
