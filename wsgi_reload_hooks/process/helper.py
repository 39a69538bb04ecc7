"""Starts the helper process, which does for its owner what may hang or crash: compiling source files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterable
from typing import Any

from ..core.text import PACKAGE_ROOT
from .native import Native

HELPER_MAIN = os.path.join(PACKAGE_ROOT, "process", "helper_main.py")
_READ_AT_MOST = 1 << 16
_ANSWER_AT_MOST = 1 << 20


Rights = tuple[int, int, tuple[int, ...]]
"""A user's number, a group's, and the numbers of the other groups."""


class HelperDied(Exception):
    """Reports that the helper ended before it answered."""


class Helper:
    """Runs one helper process: starts it for the first request, and again after it has died. For one thread.

    *python*: the absolute path of the interpreter whose compiler counts. *rights*: the user's number, the group's, and the
    numbers of the other groups that it takes on; None: those of this process.
    """

    def __init__(self, python: str, rights: Rights | None = None) -> None:
        self._python = python
        self._rights = [] if rights is None else [*map(str, (*rights[:2], *rights[2]))]
        self._number = 0
        self.pid = 0
        """Its process, 0 while there is none."""
        self._owner = os.getpid()
        self._ask = self._answers = -1
        self._heard = b""

    def compile(self, paths: Iterable[str]) -> int:
        """Have the helper compile the sources *paths*. Returns a number for `answer`. Raises OSError (no process)."""
        if self._ask < 0:
            self._start()
        self._number += 1
        request = json.dumps({"number": self._number, "paths": list(paths)}).encode() + b"\n"
        try:
            while request:
                request = request[os.write(self._ask, request) :]
        except BrokenPipeError:
            # The helper has died; `answer` raises `HelperDied`.
            pass
        return self._number

    def answer(self, number: int, patience: float = 0.0) -> tuple[dict[str, Any] | None] | None:
        """Return the result of request *number*: a tuple of the refusal, or of None; None while there is none.

        *patience*: seconds to wait for the result. Raises `HelperDied`.
        """
        native = Native()
        while self._ask >= 0 and native.ready([self._answers], patience):
            data = os.read(self._answers, _READ_AT_MOST)
            self._heard += data
            *lines, self._heard = self._heard.split(b"\n")
            if not data or len(self._heard) > _ANSWER_AT_MOST:
                self.close()
                raise HelperDied
            for line in lines:
                answer = json.loads(line)
                if answer["number"] == number:
                    return (answer["refused"],)
        if self._ask < 0:
            raise HelperDied
        return None

    def close(self) -> None:
        """Stop the helper, and reap it if nothing else in this process does."""
        native, pid = Native(), self.pid
        self.leave()
        if pid and os.getpid() == self._owner:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # macOS raises the latter for a zombie.
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                # gunicorn reaps all children.
                native.waitpid(pid, 0)

    def leave(self) -> None:
        """Close the helper's pipes in a process that its owner forked, so that the helper ends with its owner."""
        for number in (self._ask, self._answers):
            if number >= 0:
                os.close(number)
        self._ask = self._answers = -1
        self.pid, self._heard = 0, b""

    def _start(self) -> None:
        theirs_in, self._ask = os.pipe()
        try:
            self._answers, theirs_out = os.pipe()
            try:
                command = [self._python, "-I", "-S", HELPER_MAIN, *self._rights]
                self.pid = Native().spawn(command, os.environ, [(theirs_in, 0), (theirs_out, 1)])
                self._owner = os.getpid()
            finally:
                os.close(theirs_out)
        except OSError:
            self.leave()
            raise
        finally:
            os.close(theirs_in)
