"""An application that has a lifespan, leaves a file where it runs, and may say that it fails."""

import pathlib

from answers import text

VERSION = "v1"
FAILURE = ""


async def app(scope, receive, send):
    if scope["type"] == "http":
        await text(send, VERSION)
        return
    pathlib.Path("lifespan").touch()
    await receive()
    if FAILURE:
        await send({"type": "lifespan.startup.failed", "message": FAILURE})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def build():
    """The application, for a worker class that calls a factory."""
    return app


def app2(scope):
    """The application as ASGI 2 has it."""

    async def instance(receive, send):
        await app(scope, receive, send)

    return instance
