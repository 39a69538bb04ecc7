"""A small application to edit while gunicorn serves it.

Look at the page and at the terminal after each save; the page asks again every second:

1. A good save: change GREETING. The new one is there at once.
2. A broken save: take away the quote at its end. The page goes on, the terminal says which line is wrong.
3. The repair: put the quote back.

Then try what ends a server elsewhere: `import nothing_of_that_name`, `raise SystemExit(3)`. Or make the import
slow, as it is in a large application: `time.sleep(2)` below the imports. Nobody waits for it.
"""

from __future__ import annotations

import html
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

GREETING = "Hello, world"

LOADED = time.strftime("%H:%M:%S")

PAGE = """<!doctype html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="1">
<title>{greeting}</title>
<h1>{greeting}</h1>
<p>Worker {pid} answered at {now}. It loaded its code at {loaded}.</p>
"""


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
    """Answer every request with the greeting."""
    page = PAGE.format(
        greeting=html.escape(GREETING),
        pid=os.getpid(),
        now=time.strftime("%H:%M:%S"),
        loaded=LOADED,
    )
    body = page.encode()
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
