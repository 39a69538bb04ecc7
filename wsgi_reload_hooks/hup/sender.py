"""Sends the signal to the server of a pid file, or runs a command instead, once new code is tried."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterable

from ..core.log import ReloadLog
from ..watching.import_hook import forget_bytecode
from .pidfile import NoServer, PidFile
from .processes import Process

COMMAND_AT_MOST = 60.0
"""Seconds that a command may take that runs instead of a signal."""

_LOOK_AGAIN = 0.5
_LOOK_SOON = 0.05
_PASSES_WITHIN = 1.0
# What the system tells of times is that coarse.
_COARSE = 0.1


class SignalSender:
    """Sends *sig* to the server that the pid file names, or runs *command* instead."""

    def __init__(self, pidfile: PidFile, sig: signal.Signals, command: list[str] | None, log: ReloadLog) -> None:
        self._pidfile = pidfile
        self._signal = sig
        self._words = command
        self._log = log
        self._again_at = 0.0
        self._trouble = ""
        self._began = 0.0
        self._told = False
        self._command: _Command | None = None

    def server_name(self) -> str:
        """Return the server in the pid file, or why there is none."""
        try:
            try:
                with self._pidfile.server(self._needed) as server:
                    return str(server.process)
            except NoServer as why:
                if not why.passing:
                    raise
            # It is, and starts.
            with self._pidfile.server() as server:
                return str(server.process)
        except NoServer as why:
            return f"no server yet ({why})"

    def step(self, paths: Iterable[str], saved: float, now: float) -> bool:
        """Send it because of *paths*, the last of them *saved* then (monotonic seconds). Whether it is done."""
        if self._command is not None or now < self._again_at:
            return False
        try:
            with self._pidfile.server(self._needed) as server:
                self._trouble = ""
                names = self._log.names(paths)
                # Not compared with the clock of now: time has passed since its age was taken.
                if server.process.age < now - saved - _COARSE:
                    self._log.info("nothing to send, %s was started after the save: %s", server.process, names)
                    return True
                # While it loaded what was saved before, it may have written the byte code of that, after the trial.
                forget_bytecode(paths)
                if self._words is not None:
                    self._run(self._words, server.process, names, now)
                    return True
                server.send(self._signal)
                self._log.info("%s sent to %s: %s", self._signal.name[3:], server.process, names)
                return True
        except NoServer as why:
            self._not_yet(why, now)
            return False

    def look(self, now: float) -> None:
        """Check whether the running command has ended, and how."""
        complaint = None if self._command is None else self._command.complaint(now)
        if complaint is not None:
            self._command = None
            if complaint:
                self._log.warning("the command %s", complaint)

    @property
    def busy(self) -> bool:
        """Tell whether a command runs, which `look` has to check."""
        return self._command is not None

    def wait(self, now: float) -> float:
        """Seconds until the next `step` is worth it."""
        return max(0.0, self._again_at - now)

    def close(self) -> None:
        """End the command that runs."""
        if self._command is not None:
            self._command.end()

    @property
    def _needed(self) -> signal.Signals | None:
        return self._signal if self._words is None else None

    def _not_yet(self, why: NoServer, now: float) -> None:
        if str(why) != self._trouble:
            self._trouble, self._began, self._told = str(why), now, False
        soon = why.passing and now - self._began <= _PASSES_WITHIN
        self._again_at = now + (_LOOK_SOON if soon else _LOOK_AGAIN)
        if not self._told and (not why.passing or now - self._began > _PASSES_WITHIN):
            self._told = True
            self._log.warning("nothing sent yet: %s", why)

    def _run(self, words: list[str], server: Process, names: str, now: float) -> None:
        words = [word.replace("{pid}", str(server.pid)) for word in words]
        try:
            self._command = _Command(words, now)
        except (OSError, ValueError) as error:
            self._log.warning("the command cannot be started: %s: %s", shlex.join(words), error)
        else:
            self._log.info("command started for %s: %s", server, names)


class _Command:
    """A command that runs instead of a signal being sent."""

    def __init__(self, words: list[str], now: float) -> None:
        self._until = now + COMMAND_AT_MOST
        self._shown = shlex.join(words)
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)

    def complaint(self, now: float) -> str | None:
        """What is wrong with how it ended, "" if nothing is; None: it still runs."""
        status = self._process.poll()
        if status is None and now < self._until:
            return None
        if status is None:
            self.end()
            return f"did not end within {COMMAND_AT_MOST:g} s, and was killed: {self._shown}"
        return f"ended with exit code {status}: {self._shown}" if status else ""

    def end(self) -> None:
        """Kill the command, and what it has started."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
