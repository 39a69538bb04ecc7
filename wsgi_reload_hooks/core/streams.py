"""Writes to standard output and standard error for our own commands: answers, errors, log lines."""

from __future__ import annotations

import os
import select
import sys
import time
import traceback
from typing import TextIO

from .log_line import Line

_PATIENCE = 0.5


def occupy() -> None:
    """Open those of the descriptors 0, 1 and 2 that are closed.
    Otherwise a file that we open would get such a number, and our output would be written to it. A program that we
    start finds them closed, as they were."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def say(text: str) -> None:
    """Print an answer to standard output; do nothing if that is closed."""
    _write(sys.stdout, text)


def complain(text: str) -> None:
    """Print an error to standard error."""
    _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    """Write and flush, with characters escaped that the stream's encoding does not have."""
    if stream is not None:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()


class Console:
    """Writes a log to standard error, with the methods that `ReloadLog` calls. *verbose*: debug lines, too."""

    def __init__(self, verbose: bool = False) -> None:
        self._verbose = verbose

    def info(self, text: str, *arguments: object) -> None:
        self._write("INFO", text, arguments)

    def warning(self, text: str, *arguments: object) -> None:
        self._write("WARNING", text, arguments)

    def error(self, text: str, *arguments: object, exc_info: BaseException | None = None) -> None:
        trace = "" if exc_info is None else "".join(traceback.format_exception(None, exc_info, exc_info.__traceback__))
        self._write("ERROR", text, arguments, "\n" + trace.rstrip() if trace else "")

    def debug(self, text: str, *arguments: object) -> None:
        if self._verbose:
            self._write("DEBUG", text, arguments)

    def _write(self, level: str, text: str, arguments: tuple[object, ...], more: str = "") -> None:
        if isinstance(text, Line):
            said = text.json()
        else:
            said = f"[{time.strftime('%H:%M:%S')}] [{level}] {text % arguments if arguments else text}{more}"
        # Unbuffered: our child processes write to the same place.
        line = f"{said}\n".encode(errors="backslashreplace")
        try:
            # A reader that has paused must not block us: after the time limit the line is lost.
            while line and select.select([], [2], [], _PATIENCE)[1]:
                line = line[os.write(2, line[: select.PIPE_BUF]) :]
        except OSError:
            # The reader has closed standard error; the program that we supervise keeps running.
            return
