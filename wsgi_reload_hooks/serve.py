"""Serve a WSGI application, and put its changes into service: no connection is refused, nobody waits for an import."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from .child import LISTENING_AT_MOST
from .console import USAGE, Console, Failure
from .files import Files
from .journal import Journal
from .scripts import listen_on, target
from .settings import Settings
from .sockets import AddressError, inherited, name, remove, taken
from .supervisor import Program, Supervisor, die_of
from .web import KINDS, best, version

HELP = "serve a WSGI application, reloading it without a gap"
EPILOG = """\
examples:
  wsgi-reload serve app:app
  wsgi-reload serve --listen 0.0.0.0:8080 shop.wsgi
  wsgi-reload serve --server wsgiref --listen unix:/tmp/shop.sock app

New code boots beside the old and takes over when it is loaded; code that does not load is
refused, and the old one serves on. For development and small services: one process, with
threads. Under systemd it takes the sockets of its unit.

exit codes: 0 ended by itself, 1 it cannot serve, 2 wrong arguments or settings,
130 interrupted, 143 terminated
"""
_DEFAULT = "127.0.0.1:8000"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("app", metavar="MODULE[:NAME]", help="the application; NAME: application or app, if not given")
    parser.add_argument(
        "--listen", metavar="ADDRESS", help=f"HOST:PORT, PORT, [IPV6]:PORT or unix:PATH (default: {_DEFAULT})"
    )
    parser.add_argument("--server", choices=KINDS, help="default: waitress where it is installed, else wsgiref")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")


def main(options: argparse.Namespace) -> int:
    """Serve until told to leave: the exit code. Raises `Failure`, `SettingsError`."""
    target(options.app)
    settings = Settings.load()
    if not settings.enabled:
        raise Failure("the setting enabled is off: there is nothing to do here; start the server as it is", USAGE)
    kind = options.server or best()
    if kind == "waitress" and best() != kind:
        raise Failure("waitress is not installed: pip install waitress, or use --server wsgiref", USAGE)
    sockets = _sockets(options.listen)
    console = Console(options.verbose)
    journal = Journal(console, Files(settings), settings.log_format == "json")
    journal.info("serving %s at %s (%s)", options.app, ", ".join(map(name, sockets)), version(kind))
    path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    program = Program(
        command=(sys.executable, "-m", f"{__package__}.serving", options.app, kind, str(len(sockets))),
        environ={**os.environ, "PYTHONPATH": path},
        listening=tuple(each.fileno() for each in sockets),
        gated=True,
    )
    try:
        status = Supervisor(program, settings, console).run()
    finally:
        if options.listen is not None:
            remove(sockets[0])
    return die_of(status)


def _sockets(address: str | None) -> list[socket.socket]:
    given = [] if address is not None else inherited(os.environ)
    if len(given) > LISTENING_AT_MOST:
        raise Failure(f"{len(given)} sockets are handed over, {LISTENING_AT_MOST} can be")
    try:
        return [taken(number) for number in given] or [listen_on(address or _DEFAULT)]
    except AddressError as error:
        raise Failure(str(error)) from None
