"""Writes lines to uWSGI's log, which is its standard error."""

from __future__ import annotations

import os
import traceback

from ..core.log_line import Line

_LINES_AT_MOST = 3000


class Log:
    """The methods that a `ReloadLog` calls. uWSGI knows no levels: debug lines are left out."""

    def info(self, text: str, *arguments: object) -> None:
        self._write("INFO", text, arguments)

    def warning(self, text: str, *arguments: object) -> None:
        self._write("WARNING", text, arguments)

    def error(self, text: str, *arguments: object, exc_info: BaseException | None = None) -> None:
        trace = "" if exc_info is None else "".join(traceback.format_exception(None, exc_info, exc_info.__traceback__))
        self._write("ERROR", text, arguments, "\n" + trace.rstrip() if trace else "")

    def debug(self, text: str, *arguments: object) -> None:
        """Nothing."""

    def _write(self, level: str, text: str, arguments: tuple[object, ...], more: str = "") -> None:
        if isinstance(text, Line):
            entry = text.json()
        else:
            entry = f"[{level}] " + (text % arguments if arguments else text) + more
        lines = f"{entry}\n".encode(errors="backslashreplace")
        # A master that collects the log takes a few kilobytes at a time.
        for start in range(0, len(lines), _LINES_AT_MOST):
            try:
                os.write(2, lines[start : start + _LINES_AT_MOST])
            except OSError:
                return
