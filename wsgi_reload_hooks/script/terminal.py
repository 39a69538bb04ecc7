"""Lends the terminal to the supervised program, which reads and gets Ctrl-C and Ctrl-Z there as if started by hand."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

try:
    import termios
except ImportError:  # pragma: no cover
    termios = None  # type: ignore[assignment]

# Why a program stops where others have the terminal.
_FOR_THE_FOREGROUND = (signal.SIGTTIN, signal.SIGTTOU)
_BY_THE_TERMINAL = (signal.SIGTSTP, *_FOR_THE_FOREGROUND)


class Terminal:
    """The terminal that is the standard input, where this process is in its foreground; else nothing happens.

    For the main thread. Job control as in a shell: the foreground process group gets Ctrl-C and Ctrl-Z.
    """

    def __init__(self) -> None:
        self._lent = os.getpgrp()
        self._modes: list[Any] | None = None
        if self._is_ours() and termios is not None:
            self._modes = termios.tcgetattr(0)

    def lend(self, group: int) -> None:
        """Put the process *group* into the foreground."""
        self._give(group)

    def take_back(self) -> None:
        """We are in the foreground again; how lines are read and shown is as it was at first (Django mends the echo)."""
        if self._give(os.getpgrp()) and self._modes is not None:
            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self._modes)
            except (OSError, termios.error):
                pass

    def stop_with(self, group: int, number: int) -> None:
        """*group* was stopped by the signal *number* (Ctrl-Z): stop, too, so that the shell has its turn; when we go on, so
        does it."""
        foreground = self._foreground()
        if foreground is None or (foreground not in (group, os.getpgrp()) and number not in _BY_THE_TERMINAL):
            # Another process has stopped the program; the supervisor does not interfere.
            return
        if foreground != os.getpgrp() or number not in _FOR_THE_FOREGROUND:
            self._give(os.getpgrp())
            # Like Ctrl-Z, to the whole job (a pipeline). The kernel stops no orphaned group, which no shell wakes.
            os.killpg(0, signal.SIGTSTP)
        # Otherwise a shell has put the job into the foreground.
        if not self._give(group) and number in _FOR_THE_FOREGROUND:
            # No shell gives it to us: woken, it would only ask again.
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)

    def _is_ours(self) -> bool:
        """Whether the foreground is ours to give: a shell that has put us into the background has taken it."""
        return self._foreground() in (os.getpgrp(), self._lent)

    def _foreground(self) -> int | None:
        try:
            return os.tcgetpgrp(0) if os.isatty(0) else None
        except OSError:
            return None

    def _give(self, group: int) -> bool:
        if not self._is_ours():
            return False
        # Who is in the background is stopped for this, unless it does not care.
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            os.tcsetpgrp(0, group)
            self._lent = group
        except OSError:
            # That group has ended already, or the terminal is gone.
            return False
        finally:
            signal.signal(signal.SIGTTOU, before)
        return True
