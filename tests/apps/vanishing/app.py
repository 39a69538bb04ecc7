"""Loads a page that it compiles into a fresh folder, and removes the folder after that, as template engines do.

`VANISHING_IN`: the folder that the fresh one is made in. `VANISHING_BY`: `import`, or `spec` for importlib's recipe.
`VANISHING_AFTER`: so many seconds after the import the folder is removed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VERSION = "v1"


def load_page() -> Any:
    """Import the module `page` from a folder that is gone afterwards."""
    folder = tempfile.mkdtemp(dir=os.environ["VANISHING_IN"] or None)
    path = os.path.join(folder, "page.py")
    Path(path).write_text("TEXT = 'page'\n")
    if os.environ["VANISHING_BY"] == "import":
        sys.path.insert(0, folder)
        module = importlib.import_module("page")
        sys.path.remove(folder)
    else:
        spec = importlib.util.spec_from_file_location("page", path)
        assert spec is not None and spec.loader is not None
        sys.modules["page"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    time.sleep(float(os.environ["VANISHING_AFTER"]))
    shutil.rmtree(folder)
    return module


with Path(__file__).with_name("imports.log").open("a") as log:
    log.write(".")
page = load_page()


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The WSGI application."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [VERSION.encode()]


if __name__ == "__main__":
    print("serving", VERSION, flush=True)
    while True:
        time.sleep(0.05)
