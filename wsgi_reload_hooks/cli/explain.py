"""Tell whether a file is watched, by which rule, and which workers of a running server have loaded it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator

from ..control import client
from ..control.channel import Message
from ..core.settings import Settings
from ..core.streams import say
from ..core.text import printable, under
from ..watching.rules import Files

HELP = "tell whether a file is watched, and why"
EPILOG = """\
examples:
  wsgi-reload explain shop/views.py
  wsgi-reload explain --json templates/base.html

Without a running server it tells what the settings of the project here say.

exit codes: 0 told, 1 a server cannot be asked, 2 wrong arguments, 130 interrupted
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("path", metavar="PATH", help="the file")
    parser.add_argument("--pid", type=int, action="append", default=[], help="ask the server with this pid")
    parser.add_argument("--json", action="store_true", help="print an object for each server, for scripts")


def main(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    path = os.path.abspath(options.path)
    servers = [each for each in client.running(options.pid) if options.pid or _concerns(each, path)]
    told = [
        {"server": str(each), "pid": each.pid, **each.ask("explain", path=path)["explained"]} for each in servers
    ] or [{"server": None, "path": path, "rule": Files(Settings.load()).explain(path)}]
    if options.json:
        say(json.dumps(told, indent=2))
    else:
        for each in told:
            say("\n".join(_lines(each)))
    return 0


def _concerns(server: client.Server, path: str) -> bool:
    """Whether *path* or the working directory is a matter of this server's project."""
    return any(under(place, str(server.status.get("root"))) for place in (path, os.getcwd()))


def _lines(told: Message) -> Iterator[str]:
    yield printable(f"{told['path']}: {told['rule']}")
    if told["server"] is None:
        if not os.path.lexists(told["path"]):
            yield "  no such file"
        yield "  no server of this project runs"
        return
    yield f"  {told['server']}"
    pids = ", ".join(map(str, told["workers"]))
    yield f"  loaded by {pids}" if pids else "  not loaded by a worker"
    if told["in_service"]:
        same = told["as_loaded"] == told["on_disk"]
        yield (
            "  in service as it is on disk"
            if same
            else f"  in service with another content than on disk ({_held(told)})"
        )
    found = told["signature"]
    yield (
        "  no such file"
        if found is None
        else f"  on disk: {found['size']} bytes, mtime_ns {found['mtime_ns']}, inode {found['inode']}"
    )


def _held(told: Message) -> str:
    return "pending: refused, held back or on its way" if told["pending"] else "not known to be changed"
