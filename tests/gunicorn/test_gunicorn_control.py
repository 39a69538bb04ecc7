"""The same eyes on gunicorn alone: what the other tests would see if nothing were done."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from harness import Gunicorn, Project, processes, wait_until


@pytest.mark.load
def test_alone_a_hup_makes_visitors_wait_for_the_import(tmp_path: Path) -> None:
    """Without us a HUP costs some visitor the whole import: the load client sees it."""
    project = Project(tmp_path / "project", import_seconds=1.0)
    project.release()
    with Gunicorn(project, configuration=None) as server:
        with server.load() as load:
            # Until nobody waits for other reasons.
            wait_until(lambda: load.measure(1.0) < 0.7, "a second in which nobody waits")
            began = time.monotonic()
            project.release()
            server.hup()
            load.wait_for_only(project.version)
        assert load.longest(began) > 0.7


def test_alone_broken_code_ends_the_server(project: Project) -> None:
    """Without us broken code and a HUP end the server: the load client sees failed requests."""
    with Gunicorn(project, configuration=None) as server:
        with server.load() as load:
            project.broken(top="undefined_name")
            server.hup()
            assert server.exit_status() != 0
        assert load.failed
        for pid in server.processes():
            processes.kill(pid)
        server.forget()
