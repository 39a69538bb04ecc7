"""A WSGI application: /wait answers when there is a file `go`, and makes a file `begun` before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

VERSION = "v1"


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/wait":
        open("begun", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{VERSION} {os.getpid()}".encode()]


def create(version: str) -> Callable[..., Iterable[bytes]]:
    """Return the application as a factory does."""
    assert version == VERSION
    return app
