"""Executes the file of a plugin by itself, without an import, and answers the plugin's version.

`PLUGIN_BY`: `spec` (importlib's recipe), `runpy` or `compile`. `PLUGIN_AT`: `import`, or `request` for the first one.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import runpy
import time
from pathlib import Path
from typing import Any

PLUGIN = Path(__file__).resolve().with_name("folder") / "hello.py"


@functools.cache
def version() -> str:
    """The version that the plugin names."""
    if os.environ["PLUGIN_BY"] == "runpy":
        return str(runpy.run_path(str(PLUGIN))["VERSION"])
    if os.environ["PLUGIN_BY"] == "compile":
        names: dict[str, Any] = {}
        exec(compile(PLUGIN.read_text(), str(PLUGIN), "exec"), names)
        return str(names["VERSION"])
    spec = importlib.util.spec_from_file_location("hello", PLUGIN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.VERSION)


if os.environ["PLUGIN_AT"] == "import":
    version()


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The WSGI application."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [version().encode()]


if __name__ == "__main__":
    print("serving", version(), flush=True)
    while True:
        time.sleep(0.05)
