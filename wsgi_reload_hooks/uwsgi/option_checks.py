"""Check the options of the running uWSGI: lines for its log at the start, and findings for `wsgi-reload doctor`."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from ..core.finding import Finding
from ..process.sockets import somaxconn
from .options import LAZY, ROUTER, OptionCheck, option_checks, queue
from .server import Server


def complaints(server: Server, executable: bool) -> Iterator[str]:
    """The lines for this *server*, none where all is well. *executable*: whether uWSGI can execute itself anew."""
    found = {(trap.id, trap.options): trap for trap in _traps(server, executable)}
    # Of the same option, so one line.
    lost = [f", and {trap.text}" for trap in found.values() if trap.id == ROUTER]
    for trap in found.values():
        if trap.id != ROUTER:
            yield f"{trap.text}{lost[0] if lost and trap.id == LAZY else ''}; {trap.fix}"


def findings(server: Server, executable: bool) -> Iterator[Finding]:
    """The findings about *server*'s options. *executable*: whether uWSGI can execute itself anew."""
    found = list(_traps(server, executable))
    listen = int(server.option("listen") or 100)
    found += queue(
        server.options(),
        stalls=bool({"lazy-apps", "apart", "one-worker"} & {each.id for each in found}),
        listen=listen,
        somaxconn=somaxconn(),
    )
    for trap in found:
        text = f"{trap.text} at each reload" if trap.id == ROUTER else trap.text
        yield Finding(trap.id, _where(server, trap), text, trap.fix)


def application(server: Server) -> str:
    """The module and callable, or the file, that *server* loads; empty where its options name none."""
    given = map(server.option, ("wsgi", "module", "wsgi-file", "file"))
    return next(filter(None, given), "")


def _traps(server: Server, executable: bool) -> Iterator[OptionCheck]:
    return option_checks(
        server.options(),
        lazy=server.lazy,
        workers=int(server.option("processes") or server.option("workers") or 1),
        threads=server.has_threads,
        executable=executable,
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def _where(server: Server, trap: OptionCheck) -> str:
    place = f"process {server.master}"
    name = next((name for name in trap.options if server.option(name) is not None), None)
    if name is None:
        return place
    value = server.option(name)
    return f"{place}: {name}" + (f" = {value}" if value else "")
