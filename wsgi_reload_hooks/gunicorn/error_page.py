"""Makes the page that a worker answers with when no other worker has the application."""

from __future__ import annotations

from typing import Any

_UNAVAILABLE = b"This application could not be loaded. Its server's log says why.\n"


def wsgi_page(environ: Any, start_response: Any) -> list[bytes]:
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(_UNAVAILABLE))), ("Retry-After", "1")]
    start_response("503 Service Unavailable", headers)
    return [_UNAVAILABLE]


async def asgi_page(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/plain"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _UNAVAILABLE})
