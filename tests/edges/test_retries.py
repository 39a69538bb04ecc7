"""A state that stays broken, tried again and again, leaves nothing behind; what is killed while it loads harms nobody."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from contract.backends import BACKENDS, LONG, Backend
from harness import processes, wait_until

SAVES = 12

# An import that says which process it is in, and ends when it is let go.
ENDLESS = """\
with open("trying.new", "w") as file:
    print(os.getpid(), file=file)
os.replace("trying.new", "trying")
while not os.path.exists("go"):
    time.sleep(0.01)
"""

CELLS = [
    pytest.param(name, marks=pytest.mark.skipif(bool(BACKENDS[name].missing), reason=BACKENDS[name].missing))
    for name in ("sync", "preload", "uwsgi", "run")
]
each_backend = pytest.mark.parametrize("name", CELLS)


def _refused(backend: Backend, number: int) -> None:
    backend.project.broken(top=f"undefined_{number}_")
    wait_until(lambda: f"undefined_{number}_" in backend.hooks.log, f"save {number} is refused", LONG)


def _count(backend: Backend) -> tuple[int, int, int]:
    """How many processes there are, how many files they have open, and how many lie in the project."""
    family = {backend.server.pid} | processes.offspring(backend.server.pid)
    try:
        open_files = sum(map(processes.open_files, family))
    except (FileNotFoundError, ProcessLookupError):
        # One has just ended.
        return _count(backend)
    return len(family), open_files, sum(len(files) for _, _, files in os.walk(backend.project.root))


@each_backend
def test_many_refused_saves_leave_nothing(name: str, tmp_path: Path) -> None:
    """No process, no open file and no file more than after the first ones; the same workers go on."""
    backend = BACKENDS[name](tmp_path / "project")
    with backend.running():
        pids, served = backend.pids(), backend.project.version
        for number in range(3):
            _refused(backend, number)
        assert backend.command("status", "--wait")[0] == 1
        before = _count(backend)
        for number in range(3, 3 + SAVES):
            _refused(backend, number)
        assert backend.command("status", "--wait")[0] == 1
        wait_until(
            lambda: all(now <= then for now, then in zip(_count(backend), before, strict=True)),
            lambda: f"no more than {before} processes, open files and files; there are {_count(backend)}",
            LONG,
        )
        assert backend.versions() == {served}
        assert pids <= backend.pids()
        backend.project.release()
        backend.wait_served()


@each_backend
def test_killed_while_it_loads_new_code(name: str, tmp_path: Path) -> None:
    """The trial, or the new worker, is killed: no request fails, the old code serves, and the next save goes in."""
    backend = BACKENDS[name](tmp_path / "project")
    project, served = backend.project, backend.project.version
    trying = project.root / "trying"
    with backend.running():
        with backend.load() as load:
            for _ in range(2):
                project.release(top=ENDLESS)
                wait_until(trying.exists, "the save is tried", LONG)
                pid = int(trying.read_text())
                assert pid not in {backend.server.pid, backend.hooks.pid}
                trying.unlink()
                processes.kill(pid)
                wait_until(lambda pid=pid: not processes.alive(pid), "it is gone", LONG)  # type: ignore[misc]
                assert load.versions(time.monotonic()) == {served}
                trying.unlink(missing_ok=True)
            project.release()
            load.wait_for(project.version, LONG)
            backend.wait_served()
        assert load.failed == []
        assert load.versions(0.0) == {served, project.version}
