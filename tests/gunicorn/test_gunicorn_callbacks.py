"""gunicorn tells of its reloads, and whoever is told cannot disturb them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import Gunicorn, Project, patterns, processes, wait_until
from harness.telling import HOOKS, TOLD, everybody_is_told, nobody_waits_for_a_sleeper, systemd

MISBEHAVING = """\
import os, time
def hangs(event):
    open("began", "a").write(f"{os.getpid()}\\n")
    time.sleep(1000)
def raises(event):
    print("x" * 1_000_000)
    raise ValueError(event.error.reason)
"""


@pytest.mark.adapters
def test_gunicorn_tells_everybody(project: Project) -> None:
    """A function that prints a megabyte and raises, one that calls sys.exit, counters, systemd: right, and no harm."""
    project.save("hooks.py", HOOKS)
    with systemd() as manager:
        environment = {**TOLD, "NOTIFY_SOCKET": str(manager.path)}
        with Gunicorn(project, workers=2, environment=environment) as server:
            everybody_is_told(server, manager)
            server.hup()
            manager.wait_for(r"^RELOADING=1\nMONOTONIC_USEC=\d+$")
            manager.wait_for(r"^READY=1\nSTATUS=reloaded .*: HUP; 2 workers$")


def test_gunicorn_sleeping_callbacks(project: Project) -> None:
    """Ten saves, and a command that sleeps for a minute after each: no reload waits, no request fails."""
    with Gunicorn(project, workers=2, environment={"WSGI_RELOAD_ON_RELOADED": "sleep 60"}) as server:
        with server.load(4) as load:
            nobody_waits_for_a_sleeper(server, 10)
        assert load.failed == []
        assert server.count(r"reload: on_reloaded: not told, 8 are still running") == 1
        assert server.count(patterns.RELOADED) == 10


def test_gunicorn_preloaded_tells(project: Project, tmp_path: Path) -> None:
    """With a zygote: one that hangs, one that raises after a megabyte, one that fails: each is told on one line, saves are served."""
    project.save("hooks.py", MISBEHAVING)
    metrics = tmp_path / "reload.prom"
    environment = {
        "WSGI_RELOAD_ON_CHANGE": "hooks:hangs",
        "WSGI_RELOAD_ON_REFUSED": "hooks:raises",
        "WSGI_RELOAD_ON_RELOADED": "sh -c 'cat >> told; echo >> told; exit 3'",
        "WSGI_RELOAD_METRICS_FILE": str(metrics),
    }
    began = project.root / "began"
    with Gunicorn(project, "--preload", workers=2, environment=environment) as server:
        for count in (1, 2):
            project.release()
            server.wait_for_version(project.version)
            server.wait_for_log(r"on_reloaded: sh ended with exit code 3", count)
        project.broken(top="undefined_name")
        server.wait_for_log(patterns.REFUSED)
        server.wait_for_log(r"on_refused: hooks:raises raised ValueError: NameError.* \(hooks\.py, line 7\)")
        assert 'wsgi_reload_refused{server="gunicorn"' in metrics.read_text()
        wait_until(lambda: began.exists() and began.read_text().count("\n") == 3, "three that hang")
        told = [json.loads(line) for line in (project.root / "told").read_text().splitlines()]
        assert [(each["kind"], each["paths"], each["workers"]) for each in told] == [
            ("reloaded", [str(project.root / "app.py")], 2)
        ] * 2
        assert server.version() == project.version and not server.exited()
        server.wait_for_workers(2)
        for pid in map(int, began.read_text().split()):
            processes.kill(pid)
        server.wait_for_log(r"on_change: hooks:hangs was killed by SIGKILL", 3)
