"""Checks of uWSGI's options: what gets in the way of reloads, and what to do. They need no uWSGI."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

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
    """The traps in a set-up, none where all is well.

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
    """Traps in how many connections can wait, and in a start that fails.

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
