"""Writes the log that users read: one line for each reload, one entry for each refusal, nothing twice."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

from .log_line import Line
from .refusal import Refusal
from .text import printable, relative

PREFIX = "reload: "
# The first words of a refusal's entry, the same under every server.
REFUSED = "refused, still serving the previous version"
BROKEN = "the application does not load"
BROKEN_START = "the application does not load, waiting for its repair"
NOT_REPLACED = "a worker could not be replaced, trying again every 5 s"
_EVENTS = {BROKEN: "broken_start", BROKEN_START: "broken_start", NOT_REPLACED: "not_replaced"}
HOOKS_FAILED = "an error in the hooks themselves, the server goes on; please report it"
"""Whatever we do wrong: the server is worth more than a reload."""
_NAMES_TOLD = 3


class ReloadLog:
    """Writes to a server's *log* (`info`, `warning`, `error`, `debug`), with paths relative to the folder *root*.

    *json*: each line is a `Line`, which the log may write as one JSON object: with ``at``, ``level``, ``event``,
    ``message``, and the *fields* of the call. Text has no fields.
    """

    def __init__(self, log: Any, root: str, json: bool = False) -> None:
        self._log = log
        self._root = root
        self._json = json

    def info(self, text: str, *arguments: object, event: str = "info", **fields: object) -> None:
        """Write a line about normal operation."""
        self._write("info", text, arguments, event, fields)

    def warning(self, text: str, *arguments: object, event: str = "warning", **fields: object) -> None:
        """Write a line about a set-up that gets in the way of reloads."""
        self._write("warning", text, arguments, event, fields)

    def debug(self, text: str, *arguments: object) -> None:
        """Write a line that helps to find a fault in the reloader."""
        self._write("debug", text, arguments, "debug", {})

    def failure(self, text: str, error: BaseException) -> None:
        """Write that our code or the user's raised *error*; the server keeps running."""
        trace = "".join(traceback.format_exception(None, error, error.__traceback__)) if self._json else ""
        self._write("error", text, (), "failure", {"traceback": trace.rstrip()}, exc_info=error)

    def refusal(self, about: str, why: Refusal) -> None:
        """Write the entry for a refusal: where, what, and the last lines of the traceback."""
        arguments = (about, self.place(why))
        self._write("error", "%s: %s", arguments, _EVENTS.get(about, "refused"), reasons(why), _trace(why))

    def place(self, why: Refusal) -> str:
        """Return where and what, on one line."""
        return _place(why, self._root)

    def names(self, paths: Iterable[str], first: str | None = None) -> str:
        """Return a few of *paths* and how many more there are; *first* comes before them."""
        names = ([] if first is None else [first]) + sorted(relative(path, self._root) for path in paths)
        more = len(names) - _NAMES_TOLD
        return ", ".join(names[:_NAMES_TOLD]) + (f" and {more} more" if more > 0 else "")

    def _write(
        self,
        level: str,
        text: str,
        arguments: tuple[object, ...],
        event: str,
        fields: dict[str, object],
        more: str = "",
        **options: object,
    ) -> None:
        write = getattr(self._log, level)
        if self._json:
            message = text % arguments if arguments else text
            write(Line(PREFIX + message + more, level, event, message, fields), **options)
        elif more:
            write(PREFIX + text + "%s", *arguments, more, **options)
        else:
            write(PREFIX + text, *arguments, **options)


def reasons(why: Refusal) -> dict[str, Any]:
    """Return *why* for programs: what it is, where (an absolute path), and the last lines of the traceback."""
    return {"reason": why.reason, "path": why.path, "line": why.line, "traceback": why.traceback}


def entry(about: str, why: Refusal, root: str) -> str:
    """Return the text of a refusal: a line that begins with *about*, and the last lines of the traceback."""
    return f"{about}: {_place(why, root)}{_trace(why)}"


def _place(why: Refusal, root: str) -> str:
    where = ""
    if why.path is not None:
        where = relative(why.path, root) + (f", line {why.line}: " if why.line else ": ")
    return where + printable(why.reason)


def _trace(why: Refusal) -> str:
    return "".join("\n  " + printable(line) for line in why.traceback.splitlines())
