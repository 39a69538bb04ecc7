"""Delays the lifespan and the sockets of ASGI workers, so that the gate works for them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from ..core.refusal import Refusal

App = Callable[..., Awaitable[None]]


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
