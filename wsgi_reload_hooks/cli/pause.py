"""Have a running server hold back what is saved from now on; `resume` puts it into service with one reload."""

from __future__ import annotations

import argparse
import re

from ..control import client
from ..core.streams import say

HELP = "hold back what is saved, until resume"
EPILOG = """\
examples:
  wsgi-reload pause
  wsgi-reload pause --for 10m

A reload that is under way is finished or begun anew at the end of the pause. SIGHUP and
wsgi-reload reload go in all the same. A worker that dies meanwhile is not replaced
while what it would load is held back; gunicorn replaces it with preload_app, and has
an error page answer when none is left.

exit codes: 0 done, 1 no server, 2 wrong arguments, 130 interrupted
"""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    client.arguments(parser)
    parser.add_argument(
        "--for", dest="seconds", type=duration, metavar="TIME", help="so long at most: 90, 90s, 10m, 2h or 1d"
    )


def main(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    for each in client.chosen(options):
        each.ask("pause", seconds=options.seconds)
        say(f"{each}: paused" + (f" for {options.seconds:g} s" if options.seconds else ""))
    return 0


def duration(text: str) -> float:
    """Seconds. Raises argparse's error for what is no time."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, or 90s, 10m, 2h, 1d")
    return seconds
