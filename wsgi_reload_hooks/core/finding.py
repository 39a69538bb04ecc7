"""Defines `Finding`, one problem that `wsgi-reload doctor` reports: where it is, what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .text import printable

_NAMES_AT_MOST = 3


class Finding(NamedTuple):
    """Describes one problem; each text is one line."""

    id: str
    where: str
    trap: str
    fix: str

    def printable(self) -> Finding:
        """Return a copy in which everything that a terminal would take for a command is escaped."""
        return Finding(*map(printable, self))


def some(names: Sequence[str]) -> str:
    """Return the first few of *names*, and how many more there are."""
    more = len(names) - _NAMES_AT_MOST
    return ", ".join(names[:_NAMES_AT_MOST]) + (f" and {more} more" if more > 0 else "")
