"""Chooses the running servers of a command, and waits until the last save is in service there or refused."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

from ..core.errors import USAGE, Failure
from ..core.settings import project_root
from ..core.text import printable, under
from .channel import Message, Remote, Silent, Unreachable, remotes

REFUSED = 1
NOT_YET = 3
"""Exit codes: the last save is refused; its outcome is not known yet, or a pause holds it back."""
NO_SERVER = "no server of this user runs with these hooks; one of another user: sudo -u USER wsgi-reload ..."

WAITED_AT_MOST = 120.0
_PAUSE = 0.05
_LISTED_WITHIN = 5.0
_HEARD_WITHIN = 1.0


class Server:
    """Holds a running server and its last status."""

    def __init__(self, remote: Remote, status: Message) -> None:
        self._remote = remote
        self.status = status

    def __str__(self) -> str:
        if not self.status.get("root"):
            return f"{self._remote.kind}, pid {self._remote.pid}"
        version = self.status.get("version")
        return printable(
            f"{self._remote.kind}{f' {version}' if version else ''}, pid {self._remote.pid}, {self.status.get('root')}"
        )

    @property
    def pid(self) -> int:
        """Return the pid that identifies the server."""
        return self._remote.pid

    def ask(self, do: str, **what: Any) -> Message:
        """Return the server's answer. Raises `Failure` if there is none, or if it is an error."""
        try:
            return self._understood(self._remote.ask({"do": do, **what}))
        except Unreachable as error:
            raise Failure(str(error)) from None

    def _understood(self, answer: Message) -> Message:
        if "error" in answer:
            raise Failure(f"{self._remote}: {printable(str(answer['error']))}")
        return answer

    def wait(self, until: float) -> bool:
        """Wait until all that is saved by now is in service or refused, and no old worker takes requests any more; at

        most until *until* (steady clock). Tells whether that happened in time; `status` is updated.
        A server that does not answer is asked again: it may be importing, or reading its configuration. Raises
        `Failure` if it has ended, or cannot be asked.
        """
        ordered: Message | None = None
        while True:
            within = max(_PAUSE, min(_HEARD_WITHIN, until - time.monotonic()))
            try:
                if ordered is None:
                    ordered = self._understood(self._remote.ask({"do": "look"}, within))
                self.status = self._understood(self._remote.ask({"do": "status"}, within))["status"]
                if self.status["desk"] != ordered["desk"]:
                    # Another process answers for the server now, and does not know of the request.
                    ordered = None
                elif self.status["at_rest"] and self.status["looked"] >= ordered["look"]:
                    return True
            except Silent:
                if not self._remote.lives():
                    raise Failure(f"{self} has ended") from None
            except Unreachable as error:
                raise Failure(str(error)) from None
            if time.monotonic() > until:
                return False
            time.sleep(_PAUSE)

    def verdict(self, in_time: bool) -> int:
        """Return the exit code after `wait`."""
        if not in_time or self.status.get("held"):
            return NOT_YET
        return REFUSED if is_refused(self.status) else 0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose servers."""
    parser.add_argument("pid", nargs="*", type=_pid, metavar="PID", help="the server with this pid")
    parser.add_argument("--all", action="store_true", help="all servers of this user")


def waiting_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that wait."""
    parser.add_argument("--wait", action="store_true", help="until the last save is in service (0) or refused (1)")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=WAITED_AT_MOST,
        metavar="S",
        help=f"wait no longer than so many seconds (default: {WAITED_AT_MOST:g})",
    )


def running(pids: Sequence[int] = ()) -> list[Server]:
    """Return the running servers of this user, or those of *pids*. Raises `Failure` if one of those is no server.

    The status of a server that does not answer says only that (``silent``).
    """
    found = {remote.pid: remote for remote in remotes()}
    missing = [pid for pid in pids if pid not in found]
    if missing:
        raise Failure(f"{missing[0]} is no server of this user with these hooks: see wsgi-reload status")
    servers = []
    for remote in found.values():
        if not pids or remote.pid in pids:
            try:
                answer = remote.ask({"do": "status"}, _LISTED_WITHIN)
            except Unreachable as error:
                answer = {"error": str(error)}
            # The server exists, so it must be listed.
            status = answer.get("status") or {"silent": str(answer.get("error")), "root": _root(remote.pid)}
            servers.append(Server(remote, status))
    return servers


def _root(pid: int) -> str | None:
    """Return the project's folder of a server that does not answer; None if the system does not tell it either."""
    try:
        return project_root(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return None


def chosen(options: argparse.Namespace) -> list[Server]:
    """Return the servers that a command is about: those named; else those of the project here; else the only one.

    Raises `Failure` if the choice is not clear.
    """
    servers = running(options.pid)
    if not servers:
        raise Failure(NO_SERVER)
    if options.pid or options.all:
        return servers
    here = [each for each in servers if under(os.getcwd(), str(each.status.get("root")))]
    if here:
        return here
    if len(servers) > 1:
        raise Failure(
            f"{len(servers)} servers run, none of them in this folder: name one by its pid "
            f"({', '.join(str(each.pid) for each in servers)}), or use --all",
            USAGE,
        )
    return servers


def wait_for(servers: Sequence[Server], timeout: float) -> int:
    """Wait for each of *servers*, *timeout* seconds in all. Returns the worst exit code."""
    until = time.monotonic() + timeout
    return max((each.verdict(each.wait(until)) for each in servers), default=0)


def is_refused(status: Message) -> bool:
    """Tell whether the server refuses what is on disk, or refused the last requested reload (a HUP)."""
    return status.get("state") == "refused" or bool(status.get("refused"))


def refusal(status: Message) -> str | None:
    """Return what the server refuses right now, and why; None if nothing."""
    why = status.get("last_refusal")
    if not is_refused(status) or not isinstance(why, dict):
        return None
    place = f"{why['path']}, line {why['line']}: " if why.get("line") else f"{why['path']}: " if why.get("path") else ""
    lines = [place + str(why.get("reason")), *str(why.get("traceback") or "").splitlines()]
    return "\n  ".join(printable(line) for line in lines)


def _pid(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no pid")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds
