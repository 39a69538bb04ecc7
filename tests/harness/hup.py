"""`wsgi-reload hup` behind one context manager, and a server of a few lines for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import patterns, processes
from .base import Server
from .project import Project
from .waiting import LIMIT, wait_until

PROGRAM = """
import os, signal, sys

def note(number, frame):
    with open(sys.argv[2], "a") as notes:
        notes.write(signal.Signals(number).name + "\\n")

for each in (signal.SIGHUP, signal.SIGUSR2):
    signal.signal(each, note)
with open(sys.argv[1] + ".new", "w") as pidfile:
    pidfile.write(str(os.getpid()) + "\\n")
os.rename(sys.argv[1] + ".new", sys.argv[1])
while True:
    signal.pause()
"""


class Hup(Server):
    """`wsgi-reload hup ...` in the project's folder, until the block ends."""

    name = "wsgi-reload hup"
    stop_status = 128 + signal.SIGTERM

    def __init__(
        self,
        project: Project,
        *options: str | Path,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        run_as: str | None = None,
        program: Sequence[str] = ("-m", "wsgi_reload_hooks"),
    ) -> None:
        command = [sys.executable, *program, "hup", *map(str, options)]
        if os.geteuid() == 0 and not {"--app", "--python"}.isdisjoint(command) and "--user" not in command:
            # For a test that is not about it.
            command += ["--user", "root"]
        super().__init__(project, command, environment=environment, wait=wait, run_as=run_as)

    def wait_ready(self, limit: float = LIMIT) -> None:
        """It watches."""
        wait_until(lambda: self.count(patterns.WATCHING) or self.exited(), "it watches", limit)
        assert not self.exited(), f"it exited with {self.exit_status()}"

    def sent(self) -> list[str]:
        """What each signal was sent for."""
        return [found["what"] for found in patterns.find(patterns.SENT, self.log)]

    def wait_sent(self, count: int) -> str:
        """Wait until so many signals were sent; what the last was sent for."""
        return self.wait_for_log(patterns.SENT, count)["what"]

    def interrupt(self) -> None:
        """Ctrl-C ends it as it should, and nothing is left behind."""
        left = self.processes()
        self.send(signal.SIGINT)
        assert self.exit_status() == 128 + signal.SIGINT
        self.assert_nothing_left(left)
        assert "Traceback" not in self.log
        self.forget()


class LittleServer:
    """A process with a pid file that notes the signals it gets, until the block ends."""

    def __init__(self, folder: Path) -> None:
        self.pidfile = folder / "server.pid"
        self._notes = folder / "notes"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LittleServer:
        self._process = subprocess.Popen([sys.executable, "-S", "-c", PROGRAM, self.pidfile, self._notes])
        wait_until(self.pidfile.exists, "the pid file")
        return self

    def __exit__(self, *error: object) -> None:
        processes.kill(self.pid)
        assert self._process is not None
        self._process.wait(LIMIT)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def got(self) -> list[str]:
        """The signals it got."""
        return self._notes.read_text().split() if self._notes.exists() else []

    def wait_got(self, *signals: str) -> None:
        """Wait until it got these, and no others."""
        wait_until(lambda: self.got() == list(signals), lambda: f"{signals}; it got {self.got()}")
