"""A real `wsgi-reload serve` behind one context manager."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

import pytest

from . import patterns, processes
from .base import Server
from .load import Load
from .project import Project
from .waiting import LIMIT, the_only, wait_until

HAVE_WAITRESS = importlib.util.find_spec("waitress") is not None
WAITRESS = pytest.param("waitress", marks=pytest.mark.skipif(not HAVE_WAITRESS, reason="waitress is not installed"))
EACH_KIND = pytest.mark.parametrize("kind", ["wsgiref", WAITRESS])
# What systemd does: the sockets from 3 on, and then the program under the same pid.
_ACTIVATE = """
import fcntl, os, sys
given = [int(number) for number in sys.argv[1].split(",")]
held = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 50) for number in given]
for number in given:
    os.set_inheritable(number, False)
for place, number in enumerate(held):
    os.dup2(number, 3 + place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Serve(Server):
    """`wsgi-reload serve ... app:app` in the project's folder, until the block ends.

    `given`: sockets that it is activated with; then it is told no address.
    """

    name = "serve"
    stop_status = -signal.SIGTERM

    def __init__(
        self,
        project: Project,
        *options: str,
        kind: str = "wsgiref",
        listen: str | None = "127.0.0.1:0",
        application: str = "app:app",
        given: Sequence[socket.socket] = (),
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        run_as: str | None = None,
    ) -> None:
        self.kind = kind
        command = [sys.executable, "-m", "wsgi_reload_hooks", "serve", "--server", kind]
        if listen is not None and not given:
            command += ["--listen", listen]
        command += [*options, application]
        if given:
            numbers = ",".join(str(each.fileno()) for each in given)
            command = [sys.executable, "-c", _ACTIVATE, numbers, *command]
        super().__init__(project, command, environment=environment, wait=wait, run_as=run_as)
        self._pass_fds = tuple(each.fileno() for each in given)

    @property
    def port(self) -> int:
        if not self._port:
            found = wait_until(lambda: re.search(patterns.SERVING, self.log) or self.exited(), "it listens")
            assert isinstance(found, re.Match), f"serve exited with {self.exit_status()}"
            self._port = int(found["port"])
        return self._port

    def load(self, clients: int = 8) -> Load:
        """Visitors, with kept-alive connections where the web server has them."""
        return Load(self.port, keep_alive=self.kind == "waitress", clients=clients)

    def programs(self) -> list[int]:
        """The processes that serve, boot or leave: the children but for the guard and what listens for events."""
        return [pid for pid in self.workers() if b"wsgi_reload_hooks.serving" in _command_line(pid)]

    def program(self) -> int:
        """The one that serves, when there is no other any more."""
        return the_only(self.programs, "program")

    def connect(self) -> socket.socket:
        """A connection that says nothing yet."""
        connection = socket.create_connection(("127.0.0.1", self.port), LIMIT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def _command_line(pid: int) -> bytes:
    try:
        return (processes.PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def closed(connection: socket.socket) -> bool:
    """Whether the other side has hung up; waits as long as the connection's timeout."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def talk(connection: socket.socket, request: bytes, until: bytes = b"") -> str:
    """Send *request*, and read until the answer ends with *until*, or to its end. No bytes to send: go on reading."""
    if request:
        connection.sendall(request)
    received = b""
    while not (until and received.endswith(until)):
        data = connection.recv(65536)
        if not data:
            break
        received += data
    return received.decode("latin-1")


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process lead to, numbers left out."""
    found = []
    for entry in os.listdir(processes.PROC / str(pid) / "fd"):
        try:
            found.append(re.sub(r"\d+", "N", os.readlink(processes.PROC / str(pid) / "fd" / entry)))
        except OSError:
            continue
    return sorted(found)
