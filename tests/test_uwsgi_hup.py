"""`wsgi-reload hup` in front of a uWSGI that knows nothing of it."""

from __future__ import annotations

import pytest
from harness import HAVE_UWSGI, Hup, Project, Uwsgi, holds, patterns

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")


def test_good_and_bad_saves(project: Project) -> None:
    """A good save is served; one that does not load is withheld, and the server lives; its repair is served."""
    with (
        Uwsgi(project, "--pidfile", "uwsgi.pid", workers=2, lazy=True, hooks=False) as server,
        Hup(project, "uwsgi.pid", "--app", "app:app") as watcher,
    ):
        assert f"for {server.pid} (uwsgi)" in watcher.log
        project.release()
        server.wait_for_version(project.version)
        good = project.version
        project.broken(top="undefined_name")
        watcher.wait_for_log(patterns.refused(r"app\.py, line \d+: NameError"))
        holds(lambda: server.version() == good, "the good version", seconds=0.5)
        project.release()
        server.wait_for_version(project.version)
        assert watcher.sent() == ["app.py", "app.py"]
        assert watcher.count(patterns.REFUSED) == 1


def test_many_saves(project: Project) -> None:
    """uWSGI executes itself anew for each: a HUP while it does would be its end, so it has to wait."""
    with (
        Uwsgi(project, "--pidfile", "uwsgi.pid", workers=2, lazy=False, hooks=False) as server,
        Hup(project, "uwsgi.pid", environment={"WSGI_RELOAD_STEP": "0.001"}) as watcher,
    ):
        for count in range(1, 5):
            project.release()
            watcher.wait_sent(count)
        server.wait_for_version(project.version)
        assert not server.exited()
