"""Starts ASGI applications in gunicorn's workers: lifespan, warm-up and gate come before the first client."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..core.refusal import Refusal
from ..trial.warmup import is_asgi3, warm_up_asgi
from .close_connections import LameDuck, UvicornDuck, closing, is_uvicorn

if TYPE_CHECKING:
    from .worker import Worker

App = Callable[..., Awaitable[None]]


class AsgiStart:
    """In one *worker*; *theirs* is gunicorn's own object of it."""

    def __init__(self, worker: Worker, theirs: Any, duck: LameDuck | None) -> None:
        self._worker = worker
        self._theirs = theirs
        self._duck = duck
        self._state: Mapping[str, Any] | None = None

    def put_in_place(self) -> bool:
        """Wrap the application and its event loop. Whether this is a worker of ASGI applications at all."""
        theirs = self._theirs
        if is_uvicorn(theirs) and is_asgi3(theirs.wsgi):
            # Before the application is asked for: where its lifespan is off, it is replaced.
            required = self._require_lifespan()
            theirs.wsgi = self._guarded(theirs.wsgi, required)
            return True
        if hasattr(theirs, "asgi") and hasattr(theirs, "loop"):
            if is_asgi3(theirs.asgi):
                theirs.asgi = self._guarded(theirs.asgi, getattr(theirs.cfg, "asgi_lifespan", "auto") == "on")
            self._gate_loop(theirs.loop)
            return True
        return False

    def _require_lifespan(self) -> bool:
        """Whether a failing lifespan is fatal. Where it is off we play it: it is where uvicorn's loop can be met."""
        config = self._theirs.config
        required = bool(config.lifespan == "on")
        if config.lifespan == "off":
            config.lifespan = "on"
            self._theirs.wsgi = without_lifespan(self._theirs.wsgi)
        return required

    def _guarded(self, app: App, required: bool) -> App:
        """*app*, with its failing start-up told to the arbiter, and what a lame duck has to add."""
        duck = self._duck

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await self._lifespan(app, required, scope, receive, send)
            elif isinstance(duck, UvicornDuck) and duck.lame and scope["type"] == "http":
                await app(scope, receive, closing(send))
            else:
                await app(scope, receive, send)

        return guarded

    async def _lifespan(self, app: App, required: bool, scope: Any, receive: Any, send: Any) -> None:
        import asyncio

        # The application fills it while it starts.
        self._state = scope.get("state")
        if isinstance(self._duck, UvicornDuck):
            self._gate_loop(asyncio.get_running_loop())

        async def send_checked(message: dict[str, Any]) -> None:
            if message["type"] == "lifespan.startup.failed" and not self._worker.ready:
                self._worker.leave(refusal_of_lifespan(str(message.get("message", ""))))
            await send(message)

        try:
            await app(scope, receive, send_checked)
        except Exception as error:
            if required and not self._worker.ready:
                self._worker.leave(self._worker.why(error))
            raise

    async def _warm_up(self) -> None:
        app = self._theirs.asgi if hasattr(self._theirs, "asgi") else self._theirs.wsgi
        with self._worker.warming_up() as paths:
            try:
                await warm_up_asgi(app, paths, self._state)
            except Exception as error:
                self._worker.leave(self._worker.why(error))

    def _gate_loop(self, loop: Any) -> None:
        """Put the gate before the event loop's first server: its lifespan is over then, no client is accepted yet."""
        create_server = loop.create_server

        async def gated(*arguments: Any, **options: Any) -> Any:
            if not self._worker.ready:
                await self._warm_up()
                await self._worker.pass_gate_async()
            server = await create_server(*arguments, **options)
            if isinstance(self._duck, UvicornDuck):
                self._duck.loop = loop
                self._duck.servers.append(server)
            return server

        loop.create_server = gated


class LateSockets(list[Any]):
    """Makes the sockets when they are first iterated."""

    def __init__(self, make: Callable[[], object]) -> None:
        super().__init__()
        self._make: Callable[[], object] | None = make

    def __iter__(self) -> Iterator[Any]:
        make, self._make = self._make, None
        if make is not None:
            make()
        return super().__iter__()


def without_lifespan(app: App) -> App:
    """*app*, its lifespan answered for it."""

    async def answered(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})

    return answered


def refusal_of_lifespan(message: str) -> Refusal:
    """From the message of a failed lifespan: text of the framework's choice, often a traceback."""
    lines = message.rstrip().splitlines()
    places = [(path, int(line)) for path, line in re.findall(r'File "([^"]+)", line (\d+)', message)]
    path, line = places[-1] if places else (None, None)
    return Refusal(
        reason=f"lifespan startup failed: {lines[-1].strip() if lines else 'no message'}",
        path=path,
        line=line,
        traceback="\n".join(lines[-12:]) if len(lines) > 1 else "",
        files=tuple(dict.fromkeys(path for path, _ in places)),
    )
