"""Serves `app:app` with wsgiref on the socket of `wsgi-reload run --listen`; SIGTERM ends it after the request in progress."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

# Imported where `wsgi-reload run` tries this file without running it.
application = importlib.import_module("app").app
# systemd's way: the sockets that are handed over begin here.
FIRST_SOCKET = 3


class Handler(WSGIRequestHandler):
    """Logs no request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""


class Server(WSGIServer):
    """Accepts on a socket that another process has bound."""

    def server_bind(self) -> None:
        self.socket.close()
        self.socket = socket.socket(fileno=FIRST_SOCKET)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", self.socket.getsockname()[1]
        self.setup_environ()

    def server_activate(self) -> None:
        """Leave the backlog as it is."""


def main() -> None:
    """Print the port, then serve until SIGTERM."""
    server = Server(("127.0.0.1", 0), Handler)
    server.set_app(application)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"{os.getpid()} serves port {server.server_port}", flush=True)
    with server:
        server.serve_forever(poll_interval=0.02)


if __name__ == "__main__":
    main()
