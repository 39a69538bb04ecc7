"""What the user reads: one line for each reload, one entry for each refusal, nothing twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Optional

from .files import Files, printable
from .proof import Refused

PREFIX = "reload hooks: "
# What a refusal is about, the same under every server.
REFUSED = "refused, still serving the previous version"
BROKEN = "the application does not load"
BROKEN_START = "the application does not load, waiting for its repair"
NOT_REPLACED = "a worker could not be replaced, trying again every 5 s"
_NAMES_TOLD = 3


class Journal:
    """Writes to a server's *log* (`info`, `warning`, `error`, `debug`), with paths as *files* shortens them."""

    def __init__(self, log: Any, files: Files) -> None:
        self._log = log
        self._files = files

    def info(self, text: str, *arguments: object) -> None:
        """A line of everyday life."""
        self._log.info(PREFIX + text, *arguments)

    def warning(self, text: str, *arguments: object) -> None:
        """A line about a set-up that will bite."""
        self._log.warning(PREFIX + text, *arguments)

    def debug(self, text: str, *arguments: object) -> None:
        """A line for whoever looks for a fault in the reloader."""
        self._log.debug(PREFIX + text, *arguments)

    def failure(self, text: str, error: BaseException) -> None:
        """Something of ours or of the user's raised *error*, and it goes on."""
        self._log.error(PREFIX + text, exc_info=error)

    def refusal(self, about: str, why: Refused) -> None:
        """The one entry: where, what, and the last lines of the traceback."""
        trace = "".join("\n  " + printable(line) for line in why.traceback.splitlines())
        self._log.error(PREFIX + "%s: %s%s", about, self.place(why), trace)

    def place(self, why: Refused) -> str:
        """Where and what, on one line."""
        where = ""
        if why.path is not None:
            where = self._files.relative(why.path) + (f", line {why.line}: " if why.line else ": ")
        return where + printable(why.reason)

    def names(self, paths: Iterable[str], first: Optional[str] = None) -> str:
        """A few of *paths* and how many more there are; *first* comes before them."""
        names = ([] if first is None else [first]) + sorted(self._files.relative(path) for path in paths)
        more = len(names) - _NAMES_TOLD
        return ", ".join(names[:_NAMES_TOLD]) + (f" and {more} more" if more > 0 else "")
