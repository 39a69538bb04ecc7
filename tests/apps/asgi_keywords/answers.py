"""How the applications here answer."""

import os


async def text(send, body, headers=()):
    """Send a page with *body* and the worker's pid."""
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    await send({"type": "http.response.body", "body": f"{body} {os.getpid()}".encode()})
