"""End the pause of a running server: one reload puts into service what was saved meanwhile."""

from __future__ import annotations

import argparse

from ..cli import reload
from ..control import client

HELP = "end a pause: what was saved meanwhile goes in at once"
EPILOG = """\
examples:
  wsgi-reload resume
  wsgi-reload resume --wait

exit codes: 0 done (--wait: in service), 1 refused (or no server), 2 wrong arguments,
3 not known in time, 130 interrupted
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    client.arguments(parser)
    client.waiting_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    return reload.order(options, "resume", "resumed")
