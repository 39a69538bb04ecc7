"""A real `wsgi-reload serve` behind one context manager."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence

from .project import Project
from .server import Gunicorn

# Passes sockets from 3 on and keeps the pid, as systemd does.
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
_WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))
from wsgi_reload_hooks.cli.main import main
sys.exit(main())
"""


class Serve(Gunicorn):
    """`wsgi-reload serve app:app -- *options*` in the project's folder, until the block ends.

    `ours`: options before the application. `given`: sockets that it is activated with. `without`: modules that are as if
    they were not installed, until it becomes gunicorn.
    """

    name = "serve"

    def __init__(
        self,
        project: Project,
        *options: str,
        ours: Sequence[str] = (),
        application: str = "app:app",
        given: Sequence[socket.socket] = (),
        without: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        super().__init__(project, environment=environment, wait=wait)
        start = ["-c", _WITHOUT, ",".join(without)] if without else ["-m", "wsgi_reload_hooks"]
        bind = [] if given else ["--bind", "127.0.0.1:0"]
        self._command = [sys.executable, *start, "serve", *bind, *ours, application]
        if options:
            self._command += ["--", *options]
        if given:
            self._pass_fds = tuple(each.fileno() for each in given)
            self._command = [sys.executable, "-c", _ACTIVATE, ",".join(map(str, self._pass_fds)), *self._command]

    def __enter__(self) -> Serve:
        super().__enter__()
        return self
