"""What a server tells of its reloads: to functions and commands of the user's, to a file of counters, to systemd."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import patterns, processes
from .base import Server
from .project import Project
from .waiting import wait_until

HOOKS = """\
import sys


def changed(event):
    with open("changed", "a") as file:
        file.write(event.as_json() + "\\n")


def reloaded(event):
    print("x" * 1_000_000)
    raise ValueError("on purpose")


def refused(event):
    sys.exit(3)
"""
TOLD = {
    "WSGI_RELOAD_ON_CHANGE": "hooks:changed",
    "WSGI_RELOAD_ON_RELOADED": "hooks:reloaded",
    "WSGI_RELOAD_ON_REFUSED": "hooks:refused",
    "WSGI_RELOAD_METRICS_FILE": "counters.prom",
}


class Systemd:
    """What stands at NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self.said: list[str] = []

    def wait_for(self, pattern: str) -> None:
        """Wait until something like it is said, after what was waited for before."""
        wait_until(lambda: self._heard(pattern), lambda: f"systemd is told {pattern!r}; it was told {self.said}")

    def close(self) -> None:
        self._socket.close()

    def _heard(self, pattern: str) -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.said.append(self._socket.recv(65536).decode())
        found = next((place for place, each in enumerate(self.said) if re.search(pattern, each)), None)
        if found is not None:
            del self.said[: found + 1]
        return found is not None


@contextmanager
def systemd() -> Iterator[Systemd]:
    """A socket with a path that is short enough."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="wrh-") as folder:
        at = Systemd(Path(folder) / "notify")
        try:
            yield at
        finally:
            at.close()


def counters(project: Project) -> dict[str, float]:
    """The file of counters, by name."""
    text = (project.root / "counters.prom").read_text()
    found = re.findall(r"^wsgi_reload_(\w+)\{.*\} ([\d.e+]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def events(project: Project) -> list[dict[str, Any]]:
    """What `changed` was told."""
    try:
        return [json.loads(line) for line in (project.root / "changed").read_text().splitlines()]
    except FileNotFoundError:
        return []


def everybody_is_told(server: Server, manager: Systemd) -> None:
    """Of a good save, a broken one and its repair: each who is to be told is, and none of them disturbs."""
    project = server.project
    server.wait_for_log(patterns.WATCHING)
    project.release()
    server.wait_for_log(patterns.RELOADED)
    server.wait_for_version(project.version)
    manager.wait_for(r"^RELOADING=1\nMONOTONIC_USEC=\d+$")
    manager.wait_for(r"^READY=1\nSTATUS=reloaded \d\d:\d\d:\d\d in [\d.]+ s: app\.py; 2 workers$")
    server.wait_for_log(r"reload: on_reloaded: hooks:reloaded raised ValueError: on purpose \(hooks\.py, line 11\)")
    (event,) = wait_until(lambda: events(project), "the change was told")
    assert (event["kind"], event["paths"], event["server"]) == ("change", [str(project.root / "app.py")], server.name)
    found = counters(project)
    assert (found["reloads_total"], found["refusals_total"], found["refused"], found["workers"]) == (1, 0, 0, 2)
    project.save("app.py", "undefined_name\n")
    server.wait_for_log(patterns.REFUSED)
    manager.wait_for(r"^READY=1\nSTATUS=refused \d\d:\d\d:\d\d: app\.py, line 1: NameError")
    server.wait_for_log(r"reload: on_refused: hooks:refused ended with exit code 3")
    wait_until(lambda: counters(project)["refused"] == 1, "the counters tell of the refusal")
    project.release()
    server.wait_for_version(project.version)
    wait_until(lambda: counters(project)["reloads_total"] == 2, "the counters tell of the repair")
    assert counters(project)["refusals_total"] == 1 and counters(project)["refused"] == 0
    # Nobody waits for who is told of a change.
    wait_until(lambda: len(events(project)) >= 3, "each change was told")
    assert len(events(project)) == 3


def sleepers(server: Server) -> list[int]:
    """The callbacks that sleep."""
    return [pid for pid in server.processes() if processes.command_line(pid).split(b"\0")[:2] == [b"sleep", b"60"]]


def nobody_waits_for_a_sleeper(server: Server, saves: int) -> None:
    """Callbacks that sleep for a minute: each save goes in as without them; beyond eight of them it is told."""
    project = server.project
    server.wait_for_log(patterns.WATCHING)
    for number in range(1, saves + 1):
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_log(patterns.RELOADED, number)
    wait_until(lambda: len(sleepers(server)) == min(saves, 8), lambda: f"they sleep: {sleepers(server)}")
    for pid in sleepers(server):
        processes.kill(pid, signal.SIGKILL)
    wait_until(lambda: not sleepers(server), "they were killed")
