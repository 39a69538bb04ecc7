"""What the doctor finds: where, which trap, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .text import printable

_NAMES_AT_MOST = 3


class Finding(NamedTuple):
    """One of them, each text on one line."""

    id: str
    where: str
    trap: str
    fix: str

    def printable(self) -> Finding:
        """The same, with nothing in it that a terminal would take for a command."""
        return Finding(*map(printable, self))


def some(names: Sequence[str]) -> str:
    """The first few of *names*, and how many more there are."""
    more = len(names) - _NAMES_AT_MOST
    return ", ".join(names[:_NAMES_AT_MOST]) + (f" and {more} more" if more > 0 else "")
