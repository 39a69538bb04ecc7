"""Retires workers: they accept no new connection, answer on the open ones with "Connection: close", and then end.

For the gunicorn worker classes that drop kept-alive connections when they are told to stop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class LameDuck(Protocol):
    """How one worker class becomes a lame duck. Both methods run in the worker's main thread."""

    def enter(self) -> None:
        """Take no new connection, announce the end on the others. Called from a signal handler."""

    def idle(self) -> bool:
        """Tell whether no client is connected any more."""


class ThreadedDuck:
    """gthread before gunicorn 24."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def enter(self) -> None:
        worker = self._worker
        for listener in worker.sockets:
            try:
                worker.poller.unregister(listener)
            except (KeyError, ValueError, OSError):
                continue
        # More are kept alive than this: each answer closes its connection.
        worker.max_keepalived = -1

    def idle(self) -> bool:
        return bool(self._worker.nr_conns <= 0)


class TornadoDuck:
    """gunicorn's tornado worker."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def enter(self) -> None:
        # At once: the loop may have a round of requests before it comes to a callback.
        self._worker.server.conn_params.no_keep_alive = True
        self._worker.ioloop.add_callback(self._leave)

    def _leave(self) -> None:
        from tornado.ioloop import PeriodicCallback

        self._worker.server.stop()
        PeriodicCallback(self._go_when_idle, 100).start()

    def _go_when_idle(self) -> None:
        if self.idle():
            # The worker's own way to go, without the two seconds it would take over it.
            self._worker.alive = self._worker.server_alive = False
            self._worker.heartbeat()

    def idle(self) -> bool:
        return not getattr(self._worker.server, "_connections", True)


class UvicornDuck:
    """uvicorn's worker. Its servers are recorded by `AsgiGuard` as the event loop makes them."""

    def __init__(self) -> None:
        self.lame = False
        self.loop: Any = None
        self.servers: list[Any] = []

    def enter(self) -> None:
        self.lame = True
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        for server in self.servers:
            server.close()

    def idle(self) -> bool:
        return False


Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]


def closing(send: Send) -> Send:
    """An ASGI *send* that announces the end of the connection."""

    async def send_closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [header for header in message.get("headers", ()) if bytes(header[0]).lower() != b"connection"]
            message = {**message, "headers": [*kept, (b"connection", b"close")]}
        await send(message)

    return send_closing


def lame_duck(worker: Any) -> LameDuck | None:
    """The lame duck for *worker*, or None where its class stops without dropping anybody."""
    if is_uvicorn(worker):
        return UvicornDuck()
    if _is_a(worker, "TornadoWorker"):
        return TornadoDuck(worker)
    if _is_a(worker, "ThreadWorker") and not hasattr(worker, "method_queue"):
        return ThreadedDuck(worker)
    return None


def is_uvicorn(worker: Any) -> bool:
    """Whether this is uvicorn's worker class or one derived from it."""
    return _is_a(worker, "UvicornWorker")


def is_asgi(worker: Any) -> bool:
    """Whether this worker calls ASGI applications."""
    return is_uvicorn(worker) or _is_a(worker, "ASGIWorker")


def _is_a(worker: Any, name: str) -> bool:
    # By name: the classes live in packages that need not be installed.
    return any(each.__name__ == name for each in type(worker).__mro__)
