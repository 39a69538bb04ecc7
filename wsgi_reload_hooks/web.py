"""The two web servers of `serve`: wsgiref, which Python has, and Waitress, where it is installed.

Both share a listening socket with the program before and the one after them, and finish what they have begun.
"""

from __future__ import annotations

import importlib.util
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from socketserver import ThreadingMixIn
from typing import Any, Protocol
from wsgiref import simple_server

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
    def address_string(self) -> str:
        # A client at a Unix socket has no address.
        address: Any = self.client_address
        return str(address[0]) if address else "-"


class _Threads(ThreadingMixIn, simple_server.WSGIServer):
    """wsgiref's server on a socket that is there already, each request in a thread of its own."""

    # Its threads are waited for in the end.
    daemon_threads = False

    def __init__(self, app: Any, listening: socket.socket) -> None:
        simple_server.WSGIServer.__init__(self, ("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        address = listening.getsockname()
        self.server_address = address
        # Not by asking a name server, as wsgiref does.
        self.server_name, self.server_port = (
            (address[0], address[1]) if isinstance(address, tuple) else ("localhost", 0)
        )
        self.setup_environ()
        self.set_app(app)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = self.socket.accept()
        # Some systems pass this on from the listening socket.
        connection.setblocking(True)
        return connection, address


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
        for server in self._servers.values():
            server.server_close()

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
        self._server = waitress.create_server(
            app, map=self._map, sockets=list(listening), clear_untrusted_proxy_headers=True
        )
        self._accepting = [each for each in self._map.values() if hasattr(each, "active_channels")]
        for each in self._accepting:
            each.channel_class = Channel

    def run(self) -> None:
        while not self._lame:
            self._turn(1.0)
        since = time.monotonic()
        for server in self._accepting:
            server.accepting = False
        while channels := [each for server in self._accepting for each in server.active_channels.values()]:
            for channel in channels:
                if time.monotonic() - since > _IDLE and not _is_busy(channel):
                    channel.will_close = True
            self._turn(_GLANCE)

    def stop(self) -> None:
        self._lame = True
        for each in self._accepting:
            each.pull_trigger()

    def _turn(self, seconds: float) -> None:
        self._server.asyncore.loop(timeout=seconds, map=self._map, count=1)


def _is_busy(channel: Any) -> bool:
    """Whether a request is being read, worked on or answered."""
    return bool(channel.requests or channel.request is not None or channel.total_outbufs_len)


def version(kind: str) -> str:
    """The name and version of the web server named *kind*, for the log."""
    if kind == "wsgiref":
        return f"wsgiref of Python {sys.version_info[0]}.{sys.version_info[1]}"
    from importlib import metadata

    return f"waitress {metadata.version('waitress')}"
