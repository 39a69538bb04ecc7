"""What will bite in a uWSGI set-up when code is reloaded: one line each, with what to do."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from .uwsgi_server import Server
from .uwsgi_traps import LAZY, ROUTER, traps


def complaints(server: Server, executable: bool) -> Iterator[str]:
    """The lines for this *server*, none where all is well. *executable*: whether uWSGI can execute itself anew."""
    found = {
        (trap.id, trap.options): trap
        for trap in traps(
            server.options(),
            lazy=server.lazy,
            workers=int(server.option("processes") or server.option("workers") or 1),
            threads=server.has_threads,
            executable=executable,
            files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )
    }
    # Of the same option, so one line.
    lost = [f", and {trap.text}" for trap in found.values() if trap.id == ROUTER]
    for trap in found.values():
        if trap.id != ROUTER:
            yield f"{trap.text}{lost[0] if lost and trap.id == LAZY else ''}; {trap.fix}"
