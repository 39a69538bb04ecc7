"""The command line about a running server: as a command, and as often as a test wants it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from wsgi_reload_hooks.control import client

from .base import Server
from .waiting import LIMIT

COMMAND = (sys.executable, "-m", "wsgi_reload_hooks")


def commanded(server: Server, *words: str) -> tuple[int, str, str]:
    """Exit code, output and error output of ``wsgi-reload WORDS`` in the project's folder, as the server's user."""
    done = subprocess.run(
        [*COMMAND, *words],
        cwd=server.project.root,
        env=server.surroundings(),
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
        check=False,
    )
    assert "Traceback" not in done.stderr or "most recent call last" in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def status(server: Server) -> dict[str, Any]:
    """What ``status --json`` tells of it."""
    code, output, errors = commanded(server, "status", "--json", str(server.pid))
    assert (code, errors) == (0, ""), errors
    (told,) = json.loads(output)
    assert isinstance(told, dict)
    return told


@contextmanager
def near(server: Server) -> Iterator[client.Server]:
    """It, as a command sees it that is asked again and again."""
    with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=str(server.runtime)):
        (seen,) = client.running([server.pid])
        yield seen


def let_it_hear(server: Server, *others: int) -> None:
    """Wait until the server knows what its workers have said so far: who answers a question has heard them before.

    *others*: pids of masters in the same place.
    """
    with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=str(server.runtime)):
        client.running([server.pid, *others])


def right_answers(server: Server, saves: int) -> None:
    """After each of *saves* good and as many broken saves, waiting answers rightly: in service everywhere, or refused."""
    project = server.project
    with near(server) as seen:
        for number in range(saves):
            project.release()
            assert seen.wait(time.monotonic() + LIMIT), (number, seen.status)
            # From this moment on nobody gets an old answer.
            found = [server.version() for _ in range(8)]
            assert set(found) == {project.version}, (number, found, seen.status)
            assert seen.verdict(True) == 0, seen.status
            assert seen.status["reloads"] == number + 1, seen.status
            project.save("app.py", f"undefined_{number}\n")
            assert seen.wait(time.monotonic() + LIMIT), (number, seen.status)
            assert seen.verdict(True) == client.REFUSED, (number, seen.status)
            why = seen.status["last_refusal"]
            assert f"undefined_{number}" in why["reason"] and why["line"] == 1, why
            assert server.version() == project.version
