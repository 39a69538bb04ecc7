"""Imports a part in a thread, and answers 500 where that failed; imports another part for its first request."""

from __future__ import annotations

import os
import threading
from typing import Any

VERSION = "v1"
found: list[str] = []


def load() -> None:
    try:
        import part  # type: ignore[import-not-found]

        found.append(str(part.VERSION))
    except Exception as error:
        print(f"no part: {error!r}", flush=True)


thread = threading.Thread(target=load)
thread.start()
thread.join()


def answer(path: str) -> str:
    if path == "/part":
        return found[0]
    if path == "/late":
        import late  # type: ignore[import-not-found]

        return str(late.VERSION)
    return VERSION


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    try:
        status, text = "200 OK", answer(environ["PATH_INFO"])
    except Exception as error:
        status, text = "500 Internal Server Error", repr(error)
    start_response(status, [("Content-Type", "text/plain")])
    return [f"{text} {os.getpid()}".encode()]


if __name__ == "__main__":
    from wsgiref.simple_server import make_server

    make_server("127.0.0.1", int(os.environ["PORT"]), app).serve_forever()
