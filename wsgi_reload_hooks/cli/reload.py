"""Ask a running server for a reload now, whatever its files say; also while it is paused."""

from __future__ import annotations

import argparse

from ..control import client
from ..core.streams import complain, say

HELP = "ask a running server for a reload now"
EPILOG = """\
examples:
  wsgi-reload reload
  wsgi-reload reload --wait 1234

exit codes: 0 asked (--wait: in service), 1 refused (or no server), 2 wrong arguments,
3 not known in time, 130 interrupted
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    client.arguments(parser)
    client.waiting_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    return order(options, "reload", "asked for a reload")


def order(options: argparse.Namespace, do: str, done: str) -> int:
    """Have each chosen server *do* it, say that it is *done*, and wait if that is wanted. The exit code."""
    servers = client.chosen(options)
    for each in servers:
        each.ask(do)
        say(f"{each}: {done}")
    if not options.wait:
        return 0
    code = client.wait_for(servers, options.timeout)
    for each in servers:
        refused = client.refusal(each.status)
        if refused is not None:
            complain(f"{each}: refused: {refused}")
        elif code == 0:
            say(f"{each}: in service")
    if code == client.NOT_YET:
        complain(f"not in service within {options.timeout:g} s")
    return code
