"""Decides what follows when the program has ended by itself. EXIT, RELOAD and WAIT are hupper's."""

from __future__ import annotations

import enum
import os
import signal

from .child import in_words

START_AGAIN = 3
"""The exit code by which a program asks to be started again (Django, Bottle, Werkzeug)."""

_AT_ONCE = 3.0
_AT_ONCE_AT_MOST = 3
# A user or a closed pipe ended the program on purpose: the supervisor ends with it. Shells make 130 and 143 of the first
# two signals.
_ENDED = (0, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGQUIT, -signal.SIGPIPE, 130, 143)


class Way(enum.Enum):
    """EXIT: the supervisor ends, too. RELOAD: the program is started again at once. WAIT: at the next save."""

    EXIT = "exit"
    RELOAD = "reload"
    WAIT = "wait"


class Endings:
    """Counts the starts that a program asks for. *broken_start_exits*: a crash before it was ready ends the supervisor."""

    def __init__(self, broken_start_exits: bool) -> None:
        self._broken_start_exits = broken_start_exits
        self._at_once = 0

    def way(self, status: int, seconds: float, ready: bool) -> tuple[Way, str]:
        """What follows an end with *status* after *seconds*, and the end in words. *ready*: a program has been ready."""
        ended = in_words(status)
        if status == START_AGAIN:
            self._at_once = self._at_once + 1 if seconds < _AT_ONCE else 0
            if self._at_once < _AT_ONCE_AT_MOST:
                return Way.RELOAD, ended
            ended, self._at_once = f"{ended}, {self._at_once} times at once", 0
            return Way.WAIT, ended
        exits = status in _ENDED or (self._broken_start_exits and not ready)
        return (Way.EXIT if exits else Way.WAIT), ended


def die_of(status: int) -> int:
    """Return what to exit with after a program that ended with *status*; kill this process by the same signal (Django)."""
    if status < 0:
        number = -status
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)
        status = 128 - status
    return status
