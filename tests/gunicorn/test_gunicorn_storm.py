"""An impatient author: two hundred saves, signals in between, and a server that stays what it was."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from harness import UVICORN, Gunicorn, Project, each, patterns, processes, project_for, wait_until

SAVES = 200
# An arbiter that leaks does it once a reload; this much happens only once.
MEMORY_KB = 6_000


@pytest.mark.load
@pytest.mark.soak
@each()
def test_two_hundred_random_saves(worker_class: str, tmp_path: Path) -> None:
    """200 saves at random times, 1 in 5 broken, signals mixed in: the last good code wins, nothing is lost or grows."""
    chance = random.Random(f"storm {worker_class}")
    project = project_for(worker_class, tmp_path / "project", import_seconds=0.05)
    project.release()
    with Gunicorn(project, worker_class=worker_class) as server:
        with server.load() as load:
            for _ in range(3):
                project.release()
                load.wait_for_only(project.version)
            server.wait_for_workers(4)
            files, memory = processes.open_files(server.pid), processes.resident_kb(server.pid)
            wanted = largest = 4
            most = 0
            for number in range(SAVES):
                if chance.random() < 0.2:
                    project.broken(top=chance.choice(("undefined_name", "def", "os._exit(3)", "raise SystemExit(4)")))
                else:
                    project.release()
                if number % 10 == 5:
                    sig = chance.choice((signal.SIGHUP, signal.SIGTTIN, signal.SIGTTIN, signal.SIGTTOU))
                    wanted = {signal.SIGHUP: 4, signal.SIGTTIN: wanted + 1, signal.SIGTTOU: max(1, wanted - 1)}[sig]
                    largest = max(largest, wanted)
                    server.send(sig)
                most = max(most, len(server.workers()))
                time.sleep(chance.uniform(0.05, 0.3))
            project.release()
            load.wait_for_only(project.version)
            server.hup()
            server.wait_for_workers(4)
            load.run(100)
            load.wait_for_only(project.version)
        assert load.failed == []
        assert "broken" not in load.versions(0.0)
        # One set serves, one boots, one retires, and those of two withdrawn saves are on their way out; of some more
        # where a worker needs longer to leave than a save lets it.
        assert most <= (8 if worker_class in ("gevent", UVICORN) else 5) * largest
        server.wait_for_workers(4)
        wait_until(lambda: processes.open_files(server.pid) <= files, f"no more than {files} open files")
        assert processes.resident_kb(server.pid) <= memory + MEMORY_KB
        # A gevent worker needs longer to boot than most saves leave.
        assert server.count(patterns.RELOADED) > (3 if worker_class == "gevent" else 10)
        assert server.count("Traceback.*\n.*wsgi_reload_hooks") == 0


@pytest.mark.soak
def test_many_calm_reloads_do_not_grow_the_arbiter(tmp_path: Path) -> None:
    """Twenty reloads one after the other: open files are the same, memory grows by less than a page a reload."""
    project = Project(tmp_path / "project", import_seconds=0.0)
    project.release()
    environment = {"WSGI_RELOAD_INTERVAL": "0.05", "WSGI_RELOAD_STEP": "0.01"}
    with Gunicorn(project, workers=2, environment=environment) as server:

        def reload_calmly() -> tuple[int, int]:
            project.release()
            server.wait_for_version(project.version)
            server.wait_for_workers(2)
            return processes.open_files(server.pid), processes.resident_kb(server.pid)

        files, memory = max(reload_calmly() for _ in range(5))
        for _ in range(20):
            _, now = reload_calmly()
        # What belonged to the last that left may be closed a moment after its end.
        wait_until(lambda: processes.open_files(server.pid) <= files, f"no more than {files} open files")
        assert now <= memory + 500
