"""A worker that runs hostile code can harm itself: no other process, and no reload."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import GUNICORN, Gunicorn, Project, patterns, wait_until
from harness.project import APPS
from harness.steering import status
from harness.waiting import LIMIT

pytestmark = pytest.mark.skipif(not GUNICORN, reason="gunicorn is not installed")

ATTACKS = (
    "odd files",
    "garbage",
    "endless",
    "others",
    "forked",
    "files",
    "path",
    "relative",
    "deep",
    "types",
    "unknown",
)
MARKS = {"others": pytest.mark.adapters, "files": pytest.mark.matrix}
KB_AT_MOST = 200_000
DROPPED = r"worker \d+: the worker reports what no worker does, it is not listened to any more: "


@pytest.fixture
def project() -> Iterator[Project]:
    """A project where the workers may enter, whoever they are."""
    with tempfile.TemporaryDirectory(prefix="wrh-hostile-") as folder:
        os.chmod(folder, 0o755)
        project = Project(Path(folder) / "project")
        project.release()
        yield project


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with the server."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield process
        assert process.poll() is None, "the stranger was killed"
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def prepare(project: Project, attack: str, stranger: subprocess.Popen[bytes]) -> dict[str, str]:
    """Put the hostile code into the project; the environment that it is told by."""
    shutil.copy(APPS / "hostile" / "lazy_part.py", project.root)
    if os.geteuid() == 0:
        for path in (project.root, *project.root.iterdir()):
            os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
    return {"HOSTILE": attack, "HOSTILE_PID": str(stranger.pid)}


def rights() -> tuple[str, ...]:
    """Under root the workers are somebody else."""
    return ("--user", "nobody", "--group", str(pwd.getpwnam("nobody").pw_gid)) if os.geteuid() == 0 else ()


def peak_kb(pid: int) -> int:
    """The most memory that a process has had."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the attacks look for pipes in /proc")
@pytest.mark.parametrize("attack", [pytest.param(each, marks=MARKS.get(each, ())) for each in ATTACKS])
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_an_attack_while_it_serves(
    attack: str, options: tuple[str, ...], project: Project, stranger: subprocess.Popen[bytes]
) -> None:
    """One line in the log, the others serve on, and the next save replaces all."""
    environment = prepare(project, attack, stranger)
    with Gunicorn(project, *options, *rights(), workers=2, environment=environment) as server:
        server.wait_for_log(patterns.WATCHING)
        neighbours = server.workers()
        # Whoever answers has attacked.
        status_code, text = server.ask("/lazy", timeout=10 * LIMIT)
        assert (status_code, text.split()[0]) == (200, "attacked")
        server.wait_for_log(DROPPED, limit=10 * LIMIT)
        assert server.workers() == neighbours
        server.wait_for_version(project.version)
        project.release()
        server.wait_for_everyone(project.version)
        server.wait_for_log(patterns.RELOADED)
        assert server.count("is not listened to any more") == 1
        assert status(server)["state"] == "idle"
        assert server.count("Traceback") == 0
        assert peak_kb(server.pid) < KB_AT_MOST


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the attacks look for pipes in /proc")
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_an_attack_while_it_loads(
    options: tuple[str, ...], project: Project, stranger: subprocess.Popen[bytes]
) -> None:
    """New code that attacks at its import is refused, and the repair goes in."""
    environment = prepare(project, "unknown", stranger)
    with Gunicorn(project, *options, *rights(), workers=2, environment=environment) as server:
        server.wait_for_log(patterns.WATCHING)
        good = project.version
        project.broken(top="import lazy_part")
        server.wait_for_log(r"refused, still serving the previous version: .*: the worker reports what no worker does")
        assert server.version() == good
        project.release()
        server.wait_for_version(project.version)
        wait_until(lambda: len(server.workers()) == 2, "two workers")
        assert server.count("Traceback") == 0
