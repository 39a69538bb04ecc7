"""Ends a uWSGI worker when the leader requests it: after the request that it has, or has just accepted.

On SIGHUP uWSGI ends a worker at once that is in no request; it is in none either between accepting and reading one. So
the leader writes to a named pipe in the private folder, and a thread of the worker does the rest.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from ..process.native import Native
from .server import Server

# Turns of the watching thread, not seconds: in a turn the main thread could have done something as well.
_PATIENCE = 15
_AT_ONCE = 4096


class ExitRequests:
    """The pipe at *path* by which this process is asked to exit; whatever is there is replaced.

    `select` finds it readable when there is a request. Raises OSError.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pid = os.getpid()
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        os.mkfifo(path, 0o600)
        # For writing, too: else it would be readable for good once the first writer has closed it.
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)

    def fileno(self) -> int:
        """For `select`."""
        return self._file

    def received(self) -> bool:
        """Whether this process was asked to exit since the last call."""
        try:
            return str(self._pid).encode() in os.read(self._file, _AT_ONCE).split()
        except OSError:
            # EAGAIN, or the pipe is closed.
            return False

    def close(self) -> None:
        """Remove the pipe."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
            try:
                os.unlink(self._path)
            except OSError:
                pass


def request_exit(path: str, pid: int) -> bool:
    """Ask the process *pid* to exit, by the pipe at *path*; whether a process has that pipe open."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return os.write(file, b"%d\n" % pid) > 0
    except OSError:
        return False
    finally:
        os.close(file)


class GracefulExit:
    """Of this worker, whose main thread makes it; *path*: of its pipe. `step` is for the thread that runs the loop."""

    def __init__(self, server: Server, path: str) -> None:
        self._server = server
        self._path = path
        self._main_thread = Native().get_ident()
        self._way_out = server.way_out()
        self._requests: ExitRequests | None = None
        self._begun = False
        self._idle = 0
        self._open()

    @property
    def readers(self) -> list[ExitRequests]:
        """What `select` is to look at."""
        return [] if self._requests is None else [self._requests]

    def step(self) -> bool:
        """Whether this worker is about to exit; does what can be done now to that end."""
        if not self._begun and not self._is_requested():
            return False
        # A signal would interrupt a read from or a write to a client. After the request uWSGI looks by itself.
        self._idle = 0 if self._server.is_at_work() else self._idle + 1
        if self._idle == _PATIENCE and self._server.option("thunder-lock") is not None:
            # The main thread waits for uWSGI's lock around accept(): only SIGHUP reaches it.
            signal.pthread_kill(self._main_thread, signal.SIGHUP)
        elif self._idle:
            # uWSGI's own way to have a worker look whether it is to go on.
            signal.pthread_kill(self._main_thread, signal.SIGWINCH)
        return True

    def close(self) -> None:
        """Accept no request to exit any more."""
        requests, self._requests = self._requests, None
        if requests is not None:
            requests.close()

    def _is_requested(self) -> bool:
        way: Callable[[], object] | None = self._way_out
        if way is None:
            return False
        if self._requests is None or not self._requests.received():
            if not os.path.exists(self._path):
                # The runtime directory was deleted.
                self._open()
            return False
        self._begun = True
        way()
        # The leader sees by this that the request has arrived.
        self.close()
        return True

    def _open(self) -> None:
        self.close()
        if self._way_out is None:
            return
        try:
            self._requests = ExitRequests(self._path)
        except OSError:
            # No folder, a full disk: there are still signals.
            self._requests = None
