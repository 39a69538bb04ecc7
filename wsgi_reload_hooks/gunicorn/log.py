"""gunicorn's log for a journal that writes JSON: the whole line is the object, without gunicorn's time and level before it.

gunicorn makes new handlers whenever its configuration is loaded, so they are looked at before each line.
"""

from __future__ import annotations

import logging
from typing import Any

from ..core.log import ReloadLog
from ..core.log_line import Line
from ..watching.rules import Files


def version() -> str:
    """gunicorn's."""
    import gunicorn

    return str(gunicorn.__version__)


def journal(log: Any, files: Files, shape: str) -> ReloadLog:
    """A journal that writes to *log*; *shape*: the setting ``log_format``."""
    return ReloadLog(GunicornLog(log), files.root, json=True) if shape == "json" else ReloadLog(log, files.root)


class GunicornLog:
    """What a journal asks for, in front of *log*, the server's or a worker's.

    A `Line` is written as JSON where gunicorn has made the handler. Elsewhere (a ``logconfig``, a logger class of the
    user's, syslog) it stays text, and where a `logging.Logger` writes it, its fields are attributes of the record.
    """

    def __init__(self, log: Any) -> None:
        self._log = log

    def info(self, text: str, *arguments: object) -> None:
        self._write("info", text, arguments)

    def warning(self, text: str, *arguments: object) -> None:
        self._write("warning", text, arguments)

    def error(self, text: str, *arguments: object, exc_info: BaseException | None = None) -> None:
        self._write("error", text, arguments, {} if exc_info is None else {"exc_info": exc_info})

    def debug(self, text: str, *arguments: object) -> None:
        self._write("debug", text, arguments)

    def _write(
        self, level: str, text: str, arguments: tuple[object, ...], options: dict[str, Any] | None = None
    ) -> None:
        options = options or {}
        logger = getattr(self._log, "error_log", None)
        if isinstance(text, Line) and isinstance(logger, logging.Logger):
            for handler in logger.handlers:
                _have_lines_whole(handler)
            options = {**options, "extra": {"event": text.event, **text.fields}}
        getattr(self._log, level)(text, *arguments, **options)


class _Whole(logging.Formatter):
    """Lines of ours as they are, all others as *theirs* formats them."""

    def __init__(self, theirs: logging.Formatter) -> None:
        super().__init__()
        self._theirs = theirs

    def format(self, record: logging.LogRecord) -> str:
        return record.msg.json() if isinstance(record.msg, Line) else self._theirs.format(record)


def _have_lines_whole(handler: logging.Handler) -> None:
    # A line for syslog begins with a tag.
    of_gunicorn = getattr(handler, "_gunicorn", False) and isinstance(handler, logging.StreamHandler)
    if of_gunicorn and handler.formatter is not None and not isinstance(handler.formatter, _Whole):
        handler.setFormatter(_Whole(handler.formatter))
