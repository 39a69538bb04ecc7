"""A real uWSGI behind one context manager, from the package `uwsgi` or from `pyuwsgi`."""

from __future__ import annotations

import re
import signal
import socket
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import patterns, processes
from .base import Server, installed
from .load import Load
from .project import Project
from .waiting import LIMIT, wait_until

IS_PYUWSGI = bool(installed("pyuwsgi"))
# None where there is none.
UWSGI: tuple[int, ...] | None = installed("pyuwsgi") or installed("uwsgi") or None
ADAPTER = "wsgi_reload_hooks.uwsgi_timer"


def _find_program() -> Path:
    """The one that runs this interpreter: beside it, in a tox environment as in any other."""
    beside = Path(sys.executable).with_name("uwsgi")
    return beside if beside.exists() else Path(sysconfig.get_path("scripts"), "uwsgi")


PROGRAM = _find_program()
HAVE_UWSGI = UWSGI is not None and PROGRAM.exists()


class Uwsgi(Server):
    """`uwsgi ... --module app:app` in the project's folder, until the block ends.

    `configuration` is run as it is, with `options` after it: it says itself where to listen, by its own port, by
    port 0, or by `$(PORT)`, which is free for it.
    """

    name = "uwsgi"
    # SIGTERM reloads, unless --die-on-term is on.
    stop_signal = signal.SIGINT

    def __init__(
        self,
        project: Project,
        *options: str,
        workers: int = 4,
        hooks: bool = True,
        lazy: bool = True,
        master: bool = True,
        router: bool = False,
        target: Sequence[str] = ("--module", "app:app"),
        configuration: Path | str | None = None,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        run_as: str | None = None,
    ) -> None:
        self._master = master
        # A lone worker ends with the code by which it would tell a master that all shall end.
        self.stop_status = 0 if master else 30
        # With port 0 every reload would take another one. Bound as long as this lives, so nobody else is given it;
        # uWSGI has SO_REUSEADDR too and may listen there.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        port = self._reserved.getsockname()[1]
        if configuration is not None:
            command = [str(PROGRAM), str(configuration), *options]
        else:
            command = [str(PROGRAM), "--http" if router else "--http-socket", f"127.0.0.1:{port}"]
            command += ["--master"] * master + ["--lazy-apps"] * lazy
            command += ["--workers", str(workers)] if workers else []
            command += ["--import", ADAPTER] * hooks
            command += [*options, *target]
        super().__init__(
            project, command, environment={"PORT": str(port), **(environment or {})}, wait=wait, run_as=run_as
        )
        self._port = port if configuration is None else 0

    def _remove(self) -> None:
        super()._remove()
        self._reserved.close()

    @property
    def port(self) -> int:
        if not self._port:
            found = wait_until(lambda: re.search(patterns.UWSGI_LISTENING, self.log) or self.exited(), "it listens")
            assert isinstance(found, re.Match), f"uwsgi exited with {self.exit_status()}"
            self._port = int(found["port"])
        return self._port

    def load(self, clients: int = 16, *, keep_alive: bool = False) -> Load:
        """Visitors; uWSGI closes after each answer unless it is told otherwise."""
        return Load(self.port, keep_alive=keep_alive, clients=clients)

    def get(self, path: str = "/", timeout: float = LIMIT) -> tuple[str, int]:
        """The version that answers, and the worker."""
        status, text = self.ask(path, timeout)
        assert status == 200, (status, text)
        version, pid = text.split()
        return version, int(pid)

    def processes(self) -> list[int]:
        """All living processes of this server, orphans too; --procname-* write over the mark."""
        found = set(processes.marked(self._mark))
        heads = [] if self._process is None or self.exited() else [self.pid]
        while heads:
            found.update(heads)
            heads = [child for head in heads for child in processes.children(head)]
        return sorted(found)

    def workers(self) -> list[int]:
        """The living workers; the master has other children, too: the router, mules."""
        if not self._master:
            return [] if self.exited() else [self.pid]
        # A worker may serve before the master comes to say that it has forked it.
        wait_until(lambda: not self._unnamed(), lambda: f"the log names {processes.told(self._unnamed())}")
        spawned = {int(found["pid"]) for found in patterns.find(patterns.UWSGI_WORKER, self.log)}
        return [pid for pid in processes.children(self.pid) if pid in spawned]

    def _unnamed(self) -> list[int]:
        """The children that are the master's like, of which the log does not say yet what they are."""
        like = processes.command_line(self.pid)
        children = [pid for pid in processes.children(self.pid) if like and processes.command_line(pid) == like]
        named = {int(found["pid"]) for found in patterns.find(patterns.UWSGI_CHILD, self.log)}
        return [pid for pid in children if pid not in named and processes.alive(pid)]

    def execs(self) -> int:
        """How often the master replaced itself: every worker is gone while it does."""
        return self.count(patterns.UWSGI_EXEC)

    def wait_log(self, pattern: str, count: int = 1, limit: float = LIMIT) -> re.Match[str]:
        """Wait until the log says it so many times; the last of them."""
        return self.wait_for_log(pattern, count, limit)

    def signal(self, sig: signal.Signals) -> None:
        """Send it to the master."""
        self.send(sig)
