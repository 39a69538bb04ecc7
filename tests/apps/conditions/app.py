"""Answers its version to every path; its import meets what the files beside it ask for (see conditions.py)."""

from __future__ import annotations

import os
from typing import Any

import conditions  # type: ignore[import-not-found]

VERSION = "v1"
conditions.meet()


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/crash":
        os._exit(7)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{VERSION} {os.getpid()}".encode()]


if __name__ == "__main__":
    from wsgiref.simple_server import make_server

    make_server("127.0.0.1", int(os.environ["PORT"]), app).serve_forever()
