"""Asks whether there is a module `danger`, or prepares a lazy import of it, and never executes it.

`LOOK_BY`: `find_spec` or `LazyLoader`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from typing import Any

VERSION = "v1"

spec = importlib.util.find_spec("danger")
assert spec is not None and spec.loader is not None
if os.environ["LOOK_BY"] == "LazyLoader":
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules["danger"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The WSGI application."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [VERSION.encode()]


if __name__ == "__main__":
    print("serving", VERSION, flush=True)
    while True:
        time.sleep(0.05)
