"""What will bite in a uWSGI set-up when code is reloaded: one line each, with what to do."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from .uwsgi_server import APART, Server

_FILES_AT_MOST = 1_048_576
_OTHERS = ("py-autoreload", "py-auto-reload", "python-autoreload", "touch-reload", "fs-reload")


def complaints(server: Server, executable: bool) -> Iterator[str]:
    """The lines for this *server*, none where all is well. *executable*: whether uWSGI can execute itself anew."""
    options = server.options()
    workers = int(server.option("processes") or server.option("workers") or 1)
    apart = [name for name in APART if name in options]
    if not server.has_threads:
        yield (
            "threads are off: a save is noticed by a worker that is idle once a second, and blocks it while it is tried; "
            "add enable-threads"
        )
    if not server.lazy:
        yield (
            "lazy-apps is off: each reload executes all of uWSGI anew, and everybody waits for it"
            + (", and requests that are with the http router are lost" if _has_router(options) else "")
            + "; add lazy-apps"
        )
    elif apart:
        yield (
            f"{', '.join(apart)}: not rolled with the workers, so each reload executes all of uWSGI anew, and everybody waits "
            "for it; run them in an instance of their own"
        )
    elif workers == 1:
        yield "one worker: while it is replaced everybody waits for its import; add processes = 2 or more"
    if not executable:
        yield "pyuwsgi ends when it executes itself anew, on a HUP too; add binary-path = and the path of your venv's bin/python"
    for name in _OTHERS:
        if name in options:
            yield f"{name} is on, too: it reloads all of uWSGI, with code that nobody has tried; remove it"
    if (not server.lazy or apart) and resource.getrlimit(resource.RLIMIT_NOFILE)[0] > _FILES_AT_MOST:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield f"the limit of open files is {limit}: uWSGI closes each of them at a reload, for seconds; add max-fd = 65536"


def _has_router(options: dict[str, object]) -> bool:
    return any(name in options for name in ("http", "https", "http2", "fastrouter", "rawrouter"))
