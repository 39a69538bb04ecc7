"""gunicorn tells of its reloads, and whoever is told cannot disturb them."""

from __future__ import annotations

from harness import Gunicorn, Project, patterns
from harness.telling import HOOKS, TOLD, everybody_is_told, nobody_waits_for_a_sleeper, systemd


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
        assert server.count(r"reload hooks: on_reloaded: not told, 8 are still running") == 1
        assert server.count(patterns.RELOADED) == 10
