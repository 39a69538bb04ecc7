"""Standard output and standard error of our own commands: answers, complaints, log lines."""

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
    """See to it that 0, 1 and 2 are open: were one of them closed, a file of ours would get its number, and what is printed
    would go there. A program that is started finds them closed, as they were."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def say(text: str) -> None:
    """An answer, on standard output; nobody is there where that is closed."""
    _write(sys.stdout, text)


def complain(text: str) -> None:
    """What went wrong, on standard error."""
    _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    """At once, and whatever its encoding: what that has no character for is shown escaped."""
    if stream is not None:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()


class Console:
    """A log on standard error, with the methods that a journal asks for. *verbose*: debug lines, too."""

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
        # At once, and past Python's buffers: a child of ours writes to the same place.
        line = f"{said}\n".encode(errors="backslashreplace")
        try:
            # A reader that has paused does not keep us from our work: then the line is lost.
            while line and select.select([], [2], [], _PATIENCE)[1]:
                line = line[os.write(2, line[: select.PIPE_BUF]) :]
        except OSError:
            # Whoever read it is gone: no reason to end what we look after.
            return
