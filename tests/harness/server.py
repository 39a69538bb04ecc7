"""A real gunicorn behind one context manager."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import patterns, processes
from .base import PACKAGE, Server, installed
from .load import Load
from .project import Project
from .waiting import LIMIT, wait_until

# () where there is none.
GUNICORN = installed("gunicorn")[:2]
CONFIGURATION = PACKAGE / "gunicorn_conf.py"
MODULE = "python:wsgi_reload_hooks.gunicorn_conf"


class Gunicorn(Server):
    """`gunicorn ... app:app` in the project's folder, until the block ends."""

    name = "gunicorn"

    def __init__(
        self,
        project: Project,
        *options: str,
        worker_class: str = "sync",
        workers: int = 4,
        configuration: Path | str | None = CONFIGURATION,
        environment: Mapping[str, str] | None = None,
        application: str | None = "app:app",
        wait: bool = True,
        run_as: str | None = None,
        program: Sequence[str] = ("-m", "gunicorn"),
    ) -> None:
        self.worker_class = worker_class
        self._adopted = 0
        command = [sys.executable, *program, "--bind", "127.0.0.1:0"]
        if configuration is not None:
            command += ["-c", str(configuration)]
        # Left out when 0: a command line beats the configuration file.
        if workers:
            command += ["--workers", str(workers)]
        command += [*class_options(worker_class), *options]
        if application is not None:
            command.append(application)
        super().__init__(project, command, environment=environment, wait=wait, run_as=run_as)

    @property
    def pid(self) -> int:
        return self._adopted or super().pid

    @property
    def port(self) -> int:
        if not self._port:
            found = wait_until(lambda: re.search(patterns.LISTENING, self.log) or self.exited(), "it listens")
            assert isinstance(found, re.Match), f"gunicorn exited with {self.exit_status()}"
            self._port = int(found["port"])
        return self._port

    def load(self, clients: int = 16, *, keep_alive: bool = True) -> Load:
        """Visitors, with kept-alive connections where the worker class has them."""
        return Load(self.port, keep_alive=keep_alive and self.worker_class != "sync", clients=clients)

    def get(self, path: str = "/", timeout: float = LIMIT) -> tuple[int, str]:
        """Status and text of one request on a connection of its own."""
        return self.ask(path, timeout)

    def successor(self) -> int:
        """The arbiter that USR2 started: the child of ours that has children."""
        return wait_until(
            lambda: next((pid for pid in self.workers() if processes.children(pid)), 0), "an arbiter beside the first"
        )

    def adopt(self, pid: int) -> None:
        """From now on that process is the arbiter."""
        self._adopted = pid

    def stop(self, limit: float = LIMIT) -> None:
        """SIGTERM ends it with 0, and nothing is left behind."""
        if self._adopted and not self._over:
            self._stop_adopted(limit)
            return
        super().stop(limit)

    def _stop_adopted(self, limit: float) -> None:
        left = self.processes()
        assert self._adopted in left, "the adopted arbiter was gone before the end"
        processes.kill(self._adopted, signal.SIGTERM)
        wait_until(lambda: not any(map(processes.alive, left)), "the adopted arbiter and its workers left", limit)
        self.assert_nothing_left(left)


def class_options(worker_class: str) -> list[str]:
    """The options that choose a worker class, for tests that need one of each."""
    options = ["--worker-class", worker_class]
    return [*options, "--threads", "4"] if worker_class == "gthread" else options
