"""Compiles patterns in gitignore's format with ``pathspec``, an optional package that is imported for the first pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# `re` backtracks: with more asterisks beside other characters, or more "**" before others, the time that one path takes
# grows from a tenth of a second to hours (names of 255 bytes, a thousand folders deep).
_STARS_AT_MOST = 3
_DEEP_AT_MOST = 2

MISSING = "pathspec is not installed; pip install pathspec"

# Python's `re` reads these in a set as nested sets and set operations some day, and warns of them today.
_ODD_SET = re.compile(r"\[[^]]*(?:\[|--|&&|~~|\|\|)")

# The dot in pathspec's expressions does not match a newline; no path has a null byte in it.
_NEWLINE = "\0"


def fault(text: str) -> str:
    """Return why the line *text* cannot be used as a pattern; empty where it can."""
    try:
        import pathspec
    except ImportError:
        return MISSING
    names = text.split("/")
    stars = sum(name.count("*") for name in names if name not in ("*", "**"))
    if stars > _STARS_AT_MOST or names[:-1].count("**") > _DEEP_AT_MOST:
        return "too many asterisks: 3 beside other characters and 2 of `**/` at most"
    try:
        if not _ODD_SET.search(text):
            pathspec.GitIgnoreSpec.from_lines([text])
            return ""
    except (ValueError, re.error, OverflowError, RecursionError):
        pass
    return "not a pattern"


class Patterns:
    """Matches paths against *lines* in gitignore's format. *unused*: numbers of unusable lines, and what is wrong."""

    def __init__(self, lines: Sequence[str]) -> None:
        import pathspec

        self.lines = lines
        faults = ["" if line.startswith("#") else fault(line) for line in lines]
        self.unused = {number: why for number, why in enumerate(faults, 1) if why}
        # pathspec does not count empty lines.
        usable = [
            "#" if why or not line else line.replace("\n", _NEWLINE) for line, why in zip(lines, faults, strict=True)
        ]
        self._spec: Any = pathspec.GitIgnoreSpec.from_lines(usable)
        # One search for the many paths that no line matches. A group's name may be there once only.
        regexes = [each.regex.pattern for each in self._spec.patterns if each.regex is not None]
        self._any = re.compile("|".join(re.sub(r"\(\?P<\w+>", "(?:", regex) for regex in regexes) or "(?!)")

    def last(self, path: str) -> tuple[int, bool] | None:
        """Return the number of the line that decides on the relative *path*, and whether it matches or takes back.

        A folder's path ends with a slash.
        """
        path = path.replace("\n", _NEWLINE)
        if not self._any.search(path):
            return None
        found = self._spec.check_file(path)
        return None if found.include is None else (found.index + 1, found.include)
