"""Sends warm-up requests to an application in its own process, before it serves clients.

So "ready" means "answers requests", and no client has to wait for late imports.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

_AGENT = "wsgi-reload-hooks"
_ERROR = 500


class Failed(Exception):
    """Reports that a request was answered with a server error; the text says which."""


def warm_up(app: Callable[..., Any], targets: Iterable[str]) -> None:
    """Request each of *targets* from the WSGI application *app*: paths, or URLs if the host matters.

    Raises `Failed` for a status of 500 or above, and whatever the application raises.
    """
    for target in targets:
        status: list[str] = []
        answer = app(_environ(target), _start_response(status))
        try:
            for _ in answer:
                pass
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()
        _check(target, status[-1] if status else "no status")


async def warm_up_asgi(
    app: Callable[..., Awaitable[None]], targets: Iterable[str], state: Mapping[str, Any] | None = None
) -> None:
    """Do the same for an ASGI application, in its running event loop. *state*: the lifespan's state for requests."""
    for target in targets:
        visitor = _Visitor()
        scope = _scope(target)
        if state is not None:
            scope["state"] = dict(state)
        await app(scope, visitor.receive, visitor.send)
        _check(target, visitor.status)


def is_asgi3(app: object) -> bool:
    """Tell whether *app* looks like an ASGI 3 application."""
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004


def warm_up_any(app: Callable[..., Any], targets: Sequence[str]) -> None:
    """Do the same for either kind without a server: an ASGI application gets an event loop and a lifespan."""
    if targets and is_asgi3(app):
        import asyncio

        asyncio.run(_live(app, targets))
    else:
        warm_up(app, targets)


async def _live(app: Callable[..., Awaitable[None]], targets: Iterable[str]) -> None:
    lifespan = _Lifespan(app)
    await lifespan.startup()
    await warm_up_asgi(app, targets, lifespan.state)
    await lifespan.shutdown()


class _Lifespan:
    """Runs the lifespan of an ASGI application. An application without one raises, which is ignored (servers do so)."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        import asyncio

        self.state: dict[str, Any] = {}
        self._events: asyncio.Queue[str] = asyncio.Queue()
        self._answers: asyncio.Queue[str | None] = asyncio.Queue()
        self._running = asyncio.ensure_future(self._run(app))

    async def startup(self) -> None:
        """Start the lifespan. Raises `Failed` if the application reports that its startup failed."""
        await self._events.put("startup")
        why = await self._answers.get()
        if why is not None:
            raise Failed(f"lifespan startup failed: {why or 'no message'}")

    async def shutdown(self) -> None:
        """End the lifespan, if there is one; errors are ignored, as a server's end does not depend on them."""
        if not self._running.done():
            await self._events.put("shutdown")
            await self._answers.get()

    async def _run(self, app: Callable[..., Awaitable[None]]) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        with contextlib.suppress(Exception):
            await app(scope, self._receive, self._send)
        await self._answers.put(None)

    async def _receive(self) -> dict[str, Any]:
        return {"type": "lifespan." + await self._events.get()}

    async def _send(self, message: dict[str, Any]) -> None:
        failed = message["type"] == "lifespan.startup.failed"
        await self._answers.put(str(message.get("message", "")).strip().rpartition("\n")[2] if failed else None)


class _Visitor:
    """Makes one request to an ASGI application, and keeps the answer's status."""

    def __init__(self) -> None:
        import asyncio

        self.status = "no status"
        self._asked = False
        self._answered = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._asked:
            # A client waits for the end of the answer: frameworks take anything else for a disconnect.
            await self._answered.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = str(message["status"])
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            self._answered.set()


def _check(target: str, status: str) -> None:
    code = status.partition(" ")[0]
    if not code.isdigit() or int(code) >= _ERROR:
        raise Failed(f"GET {target} was answered with {status}")


def _parts(target: str) -> tuple[str, str, int, str, str, str]:
    """Split *target* into scheme, name, port, path and query, and the value of a browser's Host header."""
    url = urlsplit(target if "://" in target else f"http://localhost{target}")
    port = url.port or (443 if url.scheme == "https" else 80)
    return url.scheme, url.hostname or "localhost", port, url.path or "/", url.query, url.netloc.rpartition("@")[2]


def _start_response(status: list[str]) -> Callable[..., Callable[[bytes], object]]:
    def start_response(answered: str, headers: Any, exc_info: Any | None = None) -> Callable[[bytes], object]:
        status.append(answered)
        return lambda data: None

    return start_response


def _environ(target: str) -> dict[str, Any]:
    scheme, name, port, path, query, host = _parts(target)
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": name,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": host,
        "HTTP_USER_AGENT": _AGENT,
        "RAW_URI": path + (f"?{query}" if query else ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def _scope(target: str) -> dict[str, Any]:
    scheme, name, port, path, query, host = _parts(target)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": scheme,
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", host.encode()), (b"user-agent", _AGENT.encode())],
        "client": ("127.0.0.1", 0),
        "server": (name, port),
    }
