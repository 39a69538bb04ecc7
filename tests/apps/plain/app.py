"""Answers the version of its module `part`: as a WSGI application, and as a script that prints it and stays."""

from __future__ import annotations

import time
from typing import Any

from part import VERSION  # type: ignore[import-not-found]


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The WSGI application."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [VERSION.encode()]


if __name__ == "__main__":
    print("serving", VERSION, flush=True)
    while True:
        time.sleep(0.05)
