"""Show this user's running servers: what they serve, what they refuse; or wait until the last save is in service."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

from ..control import client
from ..control.channel import Message
from ..control.client import NO_SERVER, NOT_YET, Server, chosen, refusal, running, wait_for
from ..core.errors import Failure
from ..core.streams import complain, say
from ..core.text import printable

HELP = "show running servers, or wait until the last save is in service"
EPILOG = """\
examples:
  wsgi-reload status
  git pull && wsgi-reload status --wait --timeout 60

--wait is about the servers of the project in the working directory, or the one that
runs. It looks at all files at once, and returns when no old worker takes requests.

exit codes: 0 shown (--wait: all is in service), 1 no server, or one that does not
answer (--wait: refused, or no server), 2 wrong arguments, 3 --wait: not known in time,
or a pause holds it back, 130 interrupted
"""
_DAY = 86400.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    client.arguments(parser)
    client.waiting_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a list of objects, for scripts")


def main(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    if options.wait:
        servers = chosen(options)
        code = wait_for(servers, options.timeout)
    else:
        servers = running(options.pid)
        code = 0 if servers and not any("silent" in each.status for each in servers) else 1
    if options.json:
        say(json.dumps([{**each.status, "pid": each.pid} for each in servers], indent=2))
    elif servers:
        for each in servers:
            say("\n".join(_lines(each)))
    else:
        raise Failure(NO_SERVER)
    if options.wait and code == NOT_YET and not options.json:
        held = any(each.status.get("held") for each in servers)
        why = "a pause holds it back, end it with wsgi-reload resume" if held else f"not within {options.timeout:g} s"
        complain(f"the last save is not in service: {why}")
    return code


def _lines(server: Server) -> Iterator[str]:
    status = server.status
    yield str(server)
    if "silent" in status:
        yield printable(f"  {status['silent']}")
        return
    watched = f"{_count(status.get('watched'), 'file')} watched {_text(status, 'engine')}".rstrip()
    yield f"  {_count(status.get('workers'), 'worker')}, {watched}"
    done = status.get("last_reload")
    if isinstance(done, dict):
        yield printable(f"  last reload {_when(done.get('at'))}, {done.get('seconds', 0):.2f} s: {done.get('names')}")
    else:
        yield "  no reload yet"
    if status.get("paused"):
        until = f"until {_when(status['paused_until'])}" if status.get("paused_until") else "until wsgi-reload resume"
        yield f"  paused {until}: {_count(status['held'], 'change')} held back"
    refused = refusal(status)
    why = status.get("last_refusal")
    if refused is not None and isinstance(why, dict):
        yield f"  refused {_when(why.get('at'))}: " + refused.replace("\n", "\n  ")
    elif isinstance(why, dict):
        yield printable(f"  last refusal {_when(why.get('at'))}, repaired since: {why.get('reason')}")
    if status.get("state") in ("trying", "switching") and not status.get("paused"):
        yield "  new code is on its way"


def _text(status: Message, name: str) -> str:
    return printable(str(status.get(name) or ""))


def _count(number: object, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _when(at: object) -> str:
    if not isinstance(at, (int, float)):
        return "at an unknown time"
    shape = "%H:%M:%S" if abs(time.time() - at) < _DAY else "%Y-%m-%d %H:%M:%S"
    return time.strftime(shape, time.localtime(at))
