"""Run a program, and start it again when its code changes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from ..core.errors import USAGE, Failure
from ..core.settings import Settings
from ..core.streams import Console
from ..script.ending import die_of
from ..script.run import NOT_RUNNABLE, runnable, supervise

_WITH_VALUE = ("--app", "--listen", "--watch")
HELP = "run any program, and start it again when its code changes"
EPILOG = """\
examples:
  wsgi-reload run -- python app.py --port 8000
  wsgi-reload run -m shop.worker
  wsgi-reload run --app proj -- celery -A proj worker
  wsgi-reload run --watch '**/*.yaml' -- ./server

New code is compiled, and imported in a fresh interpreter, before the program is stopped.
What can be imported beside it is found out once, when it has been started (WSGI_TRIAL
is set there). A program that crashes waits for the next change; exit code 3 means: start
me again.

exit codes: those of the program; 126 it cannot be run, 127 it was not found,
1 something went wrong, 2 wrong arguments or settings
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--app", metavar="MODULE[:NAME]", help="what has to be importable before the program is stopped"
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        help="listen on HOST:PORT or unix:PATH, and hand the socket to the program (LISTEN_FDS)",
    )
    parser.add_argument(
        "--watch", metavar="GLOB", action="append", default=[], help="files to watch besides what the program loads"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")
    parser.usage = "wsgi-reload run [OPTION...] [--] PROGRAM [ARGUMENT...]\n       wsgi-reload run [OPTION...] -m MODULE [ARGUMENT...]"


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own options, and the program with all of its: it begins at the first word that is not ours."""
    place = 0
    while place < len(words) and words[place].startswith("-") and words[place] not in ("--", "-m", "-c"):
        place += 2 if words[place] in _WITH_VALUE else 1
    return list(words[:place]), list(words[place:])


def main(options: argparse.Namespace) -> int:
    """Run the program until it ends. Returns its exit code. Raises `Failure`, `SettingsError`."""
    command = _command(options.command)
    settings = Settings.load()
    if options.watch:
        settings = Settings.load(extra_files=(*settings.extra_files, *options.watch))
    if not settings.enabled:
        if options.listen is not None:
            raise Failure("the setting enabled is off, and the program cannot do without --listen", USAGE)
        # The program gets the same signal actions as without us.
        for each in ("SIGPIPE", "SIGXFSZ"):
            # Python itself ignores them.
            signal.signal(getattr(signal, each), signal.SIG_DFL)
        try:
            os.execv(runnable(command[0]), command)
        except OSError as error:
            raise Failure(f"{command[0]}: cannot be run: {error.strerror}", NOT_RUNNABLE) from None
    status = supervise(
        command, os.environ, settings, app=options.app, listen=options.listen, console=Console(options.verbose)
    )
    return die_of(status)


def _command(words: list[str]) -> list[str]:
    if words and words[0] == "--":
        words = words[1:]
    if not words:
        raise Failure("there is no program to run: wsgi-reload run -- python app.py", USAGE)
    if words == ["-m"]:
        raise Failure("there is no module to run: wsgi-reload run -m shop.worker", USAGE)
    is_script = words[0].endswith((".py", ".pyw")) and not os.access(words[0], os.X_OK)
    if is_script and not os.path.exists(words[0]):
        raise Failure(f"{words[0]}: there is no such file", USAGE)
    return [sys.executable, *words] if is_script or words[0] in ("-m", "-c") else words
