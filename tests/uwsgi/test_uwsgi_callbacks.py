"""uWSGI tells of its reloads, whoever leads there, and whoever is told cannot disturb them."""

from __future__ import annotations

import pytest
from harness import HAVE_UWSGI, Project, Uwsgi
from harness.telling import HOOKS, TOLD, everybody_is_told, nobody_waits_for_a_sleeper, systemd

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")


def test_uwsgi_tells_everybody(project: Project) -> None:
    """A function that prints a megabyte and raises, one that calls sys.exit, counters, systemd: right, and no harm."""
    project.save("hooks.py", HOOKS)
    with systemd() as manager:
        environment = {**TOLD, "NOTIFY_SOCKET": str(manager.path)}
        with Uwsgi(project, workers=2, environment=environment) as server:
            everybody_is_told(server, manager)


def test_uwsgi_sleeping_callbacks(project: Project) -> None:
    """A command that sleeps for a minute after each save: no roll waits for it."""
    with Uwsgi(project, workers=2, environment={"WSGI_RELOAD_ON_RELOADED": "sleep 60"}) as server:
        nobody_waits_for_a_sleeper(server, 3)
