"""The two web servers of `serve`: wsgiref, which Python has, and Waitress, where it is installed.

Both share a listening socket with the program before and the one after them, and finish what they have begun.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from io import BufferedReader
from socketserver import ThreadingMixIn
from typing import Any, Protocol
from wsgiref import simple_server

from .sockets import BACKLOG

KINDS = ("waitress", "wsgiref")
# A client that keeps its connection may be about to use it: it is told with its next answer that this is the last.
_IDLE = 1.0
_GLANCE = 0.05


class Unfit(Exception):
    """What was loaded cannot be served; the text says why."""


class WebServer(Protocol):
    """What serves."""

    def run(self) -> None:
        """Serve until `stop` was called and what was begun is finished."""

    def stop(self) -> None:
        """Take no connection any more. Safe in a signal handler."""


def best() -> str:
    """The name of the web server to use where nobody names one."""
    return "wsgiref" if importlib.util.find_spec("waitress") is None else "waitress"


def make_server(kind: str, app: Any, listening: Sequence[socket.socket]) -> WebServer:
    """The web server named *kind* for *app* on the sockets *listening*."""
    return _Waitress(app, listening) if kind == "waitress" else _Wsgiref(app, listening)


class _Handler(simple_server.WSGIRequestHandler):
    server: _Threads
    rfile: BufferedReader

    def handle(self) -> None:
        with self.server.idle(self.connection):
            self.rfile.peek(1)
        super().handle()

    def parse_request(self) -> bool:
        good = super().parse_request()
        # wsgiref is one of HTTP/1.0, where nobody asks; its clients are not.
        if good and self.request_version >= "HTTP/1.1" and self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return good


class _Threads(ThreadingMixIn, simple_server.WSGIServer):
    """wsgiref's server on a socket that is there already, each request in a thread of its own."""

    # Its threads are waited for in the end.
    daemon_threads = False

    def __init__(self, app: Any, listening: socket.socket) -> None:
        self._idle: set[socket.socket] = set()
        self._over = False
        simple_server.WSGIServer.__init__(self, ("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_address = listening.getsockname()
        # Not by asking a name server, as wsgiref does.
        self.server_name, self.server_port = _name_and_port(listening)
        self.setup_environ()
        self.set_app(_in_threads(app))

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = self.socket.accept()
        # Some systems pass this on from the listening socket.
        connection.setblocking(True)
        # A client at a Unix socket has no address.
        return connection, address or ("localhost", 0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # That a client has left is its own affair.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @contextlib.contextmanager
    def idle(self, connection: socket.socket) -> Iterator[None]:
        """While nothing has come by this *connection*."""
        self._idle.add(connection)
        try:
            if self._over:
                _hear_no_more(connection)
            yield
        finally:
            self._idle.discard(connection)

    def hang_up(self) -> None:
        """Wait no longer for requests by idle connections (a browser opens some in advance)."""
        self._over = True
        for connection in list(self._idle):
            _hear_no_more(connection)


def _hear_no_more(connection: socket.socket) -> None:
    """What has come already is still read."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def _in_threads(app: Any) -> Any:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        # wsgiref believes that there is one.
        environ["wsgi.multithread"] = True
        return app(environ, start_response)

    return application


def _name_and_port(listening: socket.socket) -> tuple[str, int]:
    """What an application is told of the server where the client does not name it."""
    address = listening.getsockname()
    return (address[0], address[1]) if isinstance(address, tuple) else ("localhost", 80)


class _Wsgiref:
    def __init__(self, app: Any, listening: Sequence[socket.socket]) -> None:
        self._servers = {each.fileno(): _Threads(app, each) for each in listening}
        for each in listening:
            # Another process may be faster with a connection that both were told of.
            each.setblocking(False)
        self._wake, self._waker = os.pipe()

    def run(self) -> None:
        waiting = [self._wake, *self._servers]
        while True:
            ready = select.select(waiting, [], [])[0]
            if self._wake in ready:
                break
            for number in ready:
                # As `serve_forever` does it, which cannot be ended from where it runs.
                self._servers[number]._handle_request_noblock()  # type: ignore[attr-defined]
        patience = threading.Timer(_IDLE, self._hang_up)
        patience.daemon = True
        patience.start()
        for server in self._servers.values():
            server.server_close()
        patience.cancel()

    def _hang_up(self) -> None:
        for server in self._servers.values():
            server.hang_up()

    def stop(self) -> None:
        os.write(self._waker, b".")


class _Waitress:
    def __init__(self, app: Any, listening: Sequence[socket.socket]) -> None:
        import waitress
        from waitress.channel import HTTPChannel
        from waitress.task import WSGITask

        side = self

        class Task(WSGITask):  # type: ignore[misc]
            def build_response_header(self) -> Any:
                if side._lame:
                    # Waitress then says so to the client, and closes when the answer is sent.
                    self.request.headers["CONNECTION"] = "close"
                return super().build_response_header()

        class Channel(HTTPChannel):  # type: ignore[misc]
            task_class = Task

        self._lame = False
        self._map: dict[int, Any] = {}
        # One for each socket: Waitress has none for both kinds at a time, those with a port and those with a path.
        self._servers = [
            waitress.create_server(
                app, map=self._map, sockets=[each], clear_untrusted_proxy_headers=True, backlog=BACKLOG
            )
            for each in listening
        ]
        for server, each in zip(self._servers, listening):
            server.channel_class = Channel
            server.server_name, server.effective_port = _name_and_port(each)

    def run(self) -> None:
        while not self._lame:
            self._turn(1.0)
        since = time.time()
        for server in self._servers:
            server.accepting = False
        while any(server.active_channels or _works(server) for server in self._servers):
            for channel in [each for server in self._servers for each in server.active_channels.values()]:
                # An answer that was begun before did not say that it is the last.
                if not _is_busy(channel) and time.time() - max(since, channel.last_activity) > _IDLE:
                    channel.will_close = True
            self._turn(_GLANCE)

    def stop(self) -> None:
        self._lame = True
        for server in self._servers:
            server.pull_trigger()

    def _turn(self, seconds: float) -> None:
        self._servers[0].asyncore.loop(timeout=seconds, map=self._map, count=1)


def _is_busy(channel: Any) -> bool:
    """Whether a request is being read, worked on or answered."""
    return bool(channel.requests or channel.request is not None or channel.total_outbufs_len)


def _works(server: Any) -> bool:
    """Whether a thread is at work, maybe for a client who has left."""
    return bool(getattr(server.task_dispatcher, "active_count", 0))


def version(kind: str) -> str:
    """The name and version of the web server named *kind*, for the log."""
    if kind == "wsgiref":
        return f"wsgiref of Python {sys.version_info[0]}.{sys.version_info[1]}"
    from importlib import metadata

    return f"waitress {metadata.version('waitress')}"
