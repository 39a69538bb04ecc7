"""A program under the supervisor, behind one context manager: with a log file, or at a terminal of its own."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import processes
from .base import Server
from .project import Project
from .waiting import LIMIT, the_only, wait_until

OURS = "reload: "
WATCHING = OURS + r"watching (?P<files>\d+) files? "
RESTARTED = OURS + r"restarted in [\d.]+ s: (?P<what>.*); 1 worker"
REFUSED = OURS + r"refused, still serving the previous version: (?P<why>.*)"
BROKEN_START = OURS + r"the application does not load, waiting for its repair: (?P<why>.*)"
ENDED = OURS + r"waiting for a change: the program ended \((?P<how>.*)\)"
REVERTED = OURS + r"(?P<what>.*): change reverted, nothing to reload"

# A supervisor that has gone to sleep so often since the last import would have begun the next one.
ROUNDS = 5

SUPERVISOR = (sys.executable, "-m", "wsgi_reload_hooks")
RUN = (*SUPERVISOR, "run")


class Script(Server):
    """`wsgi-reload run OPTION... -- PROGRAM...` in the folder *root*, until the block ends.

    The end sends SIGTERM and asserts that it ends us as it ends the program, that no process is left (the helpers of the
    supervisor included) and no temporary file. *command*: another one than `RUN`, for programs that supervise themselves.
    """

    name = "the supervisor"
    stop_status = -signal.SIGTERM

    def __init__(
        self,
        root: Path,
        *program: str,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        interval: float = 0.05,
        pass_fds: Sequence[int] = (),
    ) -> None:
        given = [*RUN, *options, "--", *program] if command is None else [*command]
        # The engine that needs no other package, and looks often: what notices changes has tests of its own.
        settings = {"WSGI_RELOAD_ENGINE": "stat", "WSGI_RELOAD_INTERVAL": str(interval), "WSGI_RELOAD_BUDGET": "1"}
        project = Project(root)
        super().__init__(project, given, environment={**settings, **(environment or {})}, wait=False, pass_fds=pass_fds)
        self._known: dict[int, int] = {}

    # -- what it says ------------------------------------------------------------------------------------------------

    def said(self, pattern: str, count: int = 1, limit: float = LIMIT) -> str:
        """Wait until the log has it so many times; the first group of the last of them, or all of it."""
        found = self.wait_for_log(pattern, count, limit)
        return str(found.group(1 if found.lastindex else 0))

    def quiet(self) -> None:
        """Wait until it has said what it watches and tries nothing any more: its children are there for good."""
        self.wait_for_log(WATCHING)
        self.wait_for_trials()

    def wait_for_trials(self) -> None:
        """Wait until no import is tried beside the program: nor by a supervisor that has just stood still for a while."""
        in_a_row = rounds = 0

        def calm() -> bool:
            nonlocal in_a_row, rounds
            if not in_a_row or self.stages():
                in_a_row, rounds = 0, processes.sleeps(self.supervisor())
            in_a_row += 1
            return in_a_row > 30 and processes.sleeps(self.supervisor()) - rounds >= ROUNDS

        wait_until(calm, "nothing is tried any more")

    # -- its processes -----------------------------------------------------------------------------------------------

    def stages(self) -> list[int]:
        """The interpreters in which something is being imported beside the program."""
        return [pid for pid in self.processes() if b"/trial_main.py\0" in processes.command_line(pid)]

    def supervisor(self) -> int:
        """The process that supervises."""
        return self.pid

    def programs(self) -> list[int]:
        """The processes of the program: all that have the mark but the supervisor, its helpers and what it tries."""
        others = (self.pid, self.supervisor(), *self.stages())
        return [pid for pid in self.processes() if pid not in others and not processes.is_helper(pid)]

    def program(self) -> int:
        """The one process of a program that has one. For a moment, what becomes another one looks like us."""
        return the_only(self.programs, "process of the program")

    def remember(self) -> list[int]:
        """All living processes of it, those included that do not have the mark: whoever is alive later was left behind."""
        for pid in {*self.processes(), *processes.children(self.pid)}:
            self._known[pid] = processes.born(pid)
        return self.remembered()

    def remembered(self) -> list[int]:
        """Those that are still alive."""
        return [pid for pid, born in self._known.items() if processes.alive(pid) and processes.born(pid) == born]

    def end(self, sig: signal.Signals) -> int:
        """Send *sig* to the supervisor alone and wait for its end; the status. For tests that end it themselves."""
        self.remember()
        with contextlib.suppress(ProcessLookupError):
            self.send(sig)
        status = self.exit_status()
        self._over = True
        return status

    def left(self) -> list[int]:
        """Who lives though the supervisor does not."""
        return sorted({*self.processes(), *self.remembered()})

    def ends(self, limit: float = LIMIT) -> int:
        """It ends by itself: the status. Nothing is left."""
        self.remember()
        status = self.exit_status(limit)
        self.assert_nothing_left(self.remembered())
        self._over = True
        return status

    def stop(self, limit: float = LIMIT) -> None:
        if not self._over and not self.exited():
            self.remember()
        super().stop(limit)
        self.assert_nothing_left(self.remembered())

    def kill(self) -> None:
        if self._process is not None and not self.exited():
            self.remember()
        super().kill()
        for pid in self.remembered():
            processes.kill(pid)


class Session(Script):
    """The same at a terminal: *command* leads a session of its own, and what it prints and asks is here.

    `log` is all that came from the terminal so far; `type` presses keys.
    """

    def _start(self) -> None:
        import fcntl
        import termios

        self.temporary.mkdir(mode=0o777)
        self.runtime.mkdir(mode=0o700)
        self._output = b""
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 500, 0, 0))
        # Who leads a session and has no terminal yet gets the first that it opens.
        opener = 'terminal=$0; exec <>"$terminal" >&0 2>&0; exec "$@"'
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", opener, os.ttyname(slave), *self._command],
                cwd=self.project.root,
                env={**self._environment, "TERM": "xterm"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._slave = slave
        except BaseException:
            os.close(slave)
            raise

    @property
    def log(self) -> str:
        if self._master >= 0:
            while select.select([self._master], [], [], 0)[0]:
                try:
                    self._output += os.read(self._master, 65536)
                except OSError:
                    break
        return re.sub("\r+\n", "\n", self._output.decode(errors="backslashreplace"))

    def type(self, keys: str) -> Session:
        """Press *keys*."""
        os.write(self._master, keys.encode())
        return self

    def foreground(self) -> int:
        """The process group that has the terminal."""
        return os.tcgetpgrp(self._master)

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        import termios

        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def hang_up(self) -> None:
        """Close the window."""
        assert self.log is not None
        for number in (self._slave, self._master):
            os.close(number)
        self._master = -1

    def _remove(self) -> None:
        if self._master >= 0:
            self.hang_up()
        super()._remove()
