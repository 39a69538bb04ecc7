"""Checks uWSGI's options: what gets in the way of reloads, and what to do. Lines for the log of the running uWSGI at its
start, and findings for `wsgi-reload doctor`.
"""

from __future__ import annotations

import resource
from collections.abc import Collection, Iterator
from typing import NamedTuple

from ..core.finding import Finding
from ..process.sockets import somaxconn
from .server import Server

APART = ("mule", "mules", "farm", "spooler")
"""Options that make processes which are not workers, and are not rolled with them."""
ROUTERS = ("http", "https", "http2", "fastrouter", "rawrouter")
ROUTER = "http-router"
LAZY = "lazy-apps"
FILES_AT_MOST = 1_048_576
_DEFAULT_LISTEN = 100
_ENOUGH = 1024
_OTHERS = ("py-autoreload", "py-auto-reload", "python-autoreload", "python-auto-reload", "touch-reload", "fs-reload")
_CHAINS = ("touch-chain-reload", "touch-workers-reload")


class OptionCheck(NamedTuple):
    """One of them. *options*: those that it is about."""

    id: str
    text: str
    fix: str
    options: tuple[str, ...] = ()


def option_checks(
    options: Collection[str], *, lazy: bool, workers: int, threads: bool, executable: bool, files: int
) -> Iterator[OptionCheck]:
    """The problems of a set-up, none where all is well.

    *options*: the names of those that are on. *threads*: whether Python threads run in the workers. *executable*: whether
    uWSGI can execute itself anew. *files*: how many files it may open.
    """
    apart = tuple(name for name in APART if name in options)
    if not threads:
        yield OptionCheck(
            "threads",
            "threads are off: a save is noticed by a worker that is idle once a second, and blocks it while it is tried",
            "add enable-threads",
        )
    if not lazy:
        yield OptionCheck(
            LAZY,
            "lazy-apps is off: each reload executes all of uWSGI anew, and everybody waits for it",
            "add lazy-apps",
        )
        routers = tuple(name for name in ROUTERS if name in options)
        if routers:
            yield OptionCheck(
                ROUTER,
                "requests that are with the http router are lost",
                "listen with http-socket instead of http, or add lazy-apps",
                routers,
            )
    elif apart:
        yield OptionCheck(
            "apart",
            f"{', '.join(apart)}: not rolled with the workers, so each reload executes all of uWSGI anew, and everybody "
            "waits for it",
            "run them in an instance of their own",
            apart,
        )
    elif workers == 1:
        yield OptionCheck(
            "one-worker", "one worker: while it is replaced everybody waits for its import", "add processes = 2 or more"
        )
    if not executable:
        yield OptionCheck(
            "pyuwsgi",
            "pyuwsgi ends when it executes itself anew, on a HUP too",
            "add binary-path = and the path of your venv's bin/python",
        )
    for names, what in ((_OTHERS, "all of uWSGI"), (_CHAINS, "workers")):
        for name in names:
            if name in options:
                text = f"{name} is on, too: it reloads {what}, with code that nobody has tried"
                yield OptionCheck("another-reloader", text, "remove it", (name,))
    if (not lazy or apart) and files > FILES_AT_MOST:
        yield OptionCheck(
            "open-files",
            f"the limit of open files is {files}: uWSGI closes each of them at a reload, for seconds",
            "add max-fd = 65536",
        )


def queue(options: Collection[str], *, stalls: bool, listen: int, somaxconn: int | None) -> Iterator[OptionCheck]:
    """The problems with how many connections can wait, and with a start that fails.

    *options*: the names of those that are on. *stalls*: whether clients wait for an import at a reload. *listen*: how many
    connections uWSGI lets wait; *somaxconn*: how many the system does, None where that is not known.
    """
    if stalls and listen <= _DEFAULT_LISTEN:
        yield OptionCheck(
            "listen",
            f"while clients wait for an import, {listen} connections can wait: others are not answered in time",
            f"listen = {min(_ENOUGH, somaxconn or _ENOUGH)}",
            ("listen",),
        )
    if "need-app" in options and not {"lazy-apps", "lazy"} & set(options):
        yield OptionCheck(
            "need-app",
            "without lazy-apps a callable that is missing at the very start ends uWSGI, instead of waiting for its repair",
            "add lazy-apps",
            ("need-app",),
        )


def complaints(server: Server, executable: bool) -> Iterator[str]:
    """The lines for this *server*, none where all is well. *executable*: whether uWSGI can execute itself anew."""
    found = {(problem.id, problem.options): problem for problem in _problems(server, executable)}
    # Of the same option, so one line.
    lost = [f", and {problem.text}" for problem in found.values() if problem.id == ROUTER]
    for problem in found.values():
        if problem.id != ROUTER:
            yield f"{problem.text}{lost[0] if lost and problem.id == LAZY else ''}; {problem.fix}"


def findings(server: Server, executable: bool) -> Iterator[Finding]:
    """The findings about *server*'s options. *executable*: whether uWSGI can execute itself anew."""
    found = list(_problems(server, executable))
    listen = int(server.option("listen") or 100)
    found += queue(
        server.options(),
        stalls=bool({"lazy-apps", "apart", "one-worker"} & {each.id for each in found}),
        listen=listen,
        somaxconn=somaxconn(),
    )
    for problem in found:
        text = f"{problem.text} at each reload" if problem.id == ROUTER else problem.text
        yield Finding(problem.id, _where(server, problem), text, problem.fix)


def application(server: Server) -> str:
    """The module and callable, or the file, that *server* loads; empty where its options name none."""
    given = map(server.option, ("wsgi", "module", "wsgi-file", "file"))
    return next(filter(None, given), "")


def _problems(server: Server, executable: bool) -> Iterator[OptionCheck]:
    return option_checks(
        server.options(),
        lazy=server.lazy,
        workers=int(server.option("processes") or server.option("workers") or 1),
        threads=server.has_threads,
        executable=executable,
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def _where(server: Server, problem: OptionCheck) -> str:
    place = f"process {server.master}"
    name = next((name for name in problem.options if server.option(name) is not None), None)
    if name is None:
        return place
    value = server.option(name)
    return f"{place}: {name}" + (f" = {value}" if value else "")
