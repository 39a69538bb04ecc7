"""An aiohttp application with something to do before it serves."""

import os

from aiohttp import web

VERSION = "v1"
FAILURE = ""


async def page(request):
    return web.Response(text=f"{VERSION} {os.getpid()}")


async def start_up(app):
    if FAILURE:
        raise RuntimeError(FAILURE)


app = web.Application()
app.add_routes([web.get("/", page)])
app.on_startup.append(start_up)


async def build():
    """The application, made in the worker's loop."""
    return app
