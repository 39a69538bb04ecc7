"""Does the new code answer? Requests to an application in its own process, before anybody else's.

So "ready" means "serves", and the first visitor does not pay for what is imported late.
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
    """A request was answered with an error of the server's; the text says which."""


def warm_up(app: Callable[..., Any], targets: Iterable[str]) -> None:
    """Ask the WSGI application *app* for each of *targets*: paths, or URLs where the host matters.

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
    """The same for an ASGI application, in its running event loop. *state*: what its lifespan has made for requests."""
    for target in targets:
        visitor = _Visitor()
        scope = _scope(target)
        if state is not None:
            scope["state"] = dict(state)
        await app(scope, visitor.receive, visitor.send)
        _check(target, visitor.status)


def is_asgi3(app: object) -> bool:
    """Whether *app* is an application of ASGI 3, as far as it tells."""
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004


def warm_up_any(app: Callable[..., Any], targets: Sequence[str]) -> None:
    """The same for either, where no server runs: an ASGI application gets an event loop and a lifespan."""
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
    """The lifespan of an ASGI application. One that knows of none raises, and that is fine (so do the servers)."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        import asyncio

        self.state: dict[str, Any] = {}
        self._events: asyncio.Queue[str] = asyncio.Queue()
        self._answers: asyncio.Queue[str | None] = asyncio.Queue()
        self._running = asyncio.ensure_future(self._run(app))

    async def startup(self) -> None:
        """Begin it. Raises `Failed` where the application says that it cannot."""
        await self._events.put("startup")
        why = await self._answers.get()
        if why is not None:
            raise Failed(f"lifespan startup failed: {why or 'no message'}")

    async def shutdown(self) -> None:
        """End it, where there is one; what goes wrong then keeps no server from its end."""
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
    """One request to an ASGI application, and what became of it."""

    def __init__(self) -> None:
        import asyncio

        self.status = "no status"
        self._asked = False
        self._answered = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._asked:
            # A visitor who has asked waits for the end of the answer: frameworks listen for those who do not.
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
    """Scheme, name, port, path and query, and what a browser would call the host."""
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
