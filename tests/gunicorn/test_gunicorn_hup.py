"""`wsgi-reload hup` in front of a gunicorn that knows nothing of it."""

from __future__ import annotations

import pytest
from harness import Gunicorn, Hup, Project, holds, patterns, wait_until


@pytest.mark.adapters
def test_good_and_bad_saves(project: Project) -> None:
    """A good save is served; one that does not load is withheld, and the server lives; its repair is served."""
    with (
        Gunicorn(project, "--pid", "gunicorn.pid", workers=2, configuration=None) as server,
        Hup(project, "gunicorn.pid", "--app", "app:app") as watcher,
    ):
        wait_until(lambda: watcher.log.count(f"for {server.pid} (gunicorn"), "the name of the server")
        project.release()
        server.wait_for_version(project.version)
        good = project.version
        project.broken(top="undefined_name")
        watcher.wait_for_log(patterns.refused(r"app\.py, line \d+: NameError"))
        holds(lambda: server.version() == good, "the good version", seconds=0.5)
        project.release()
        server.wait_for_version(project.version)
        watcher.wait_sent(2)
        assert watcher.sent() == ["app.py", "app.py"]
        assert watcher.count(patterns.REFUSED) == 1


def test_a_server_that_is_started_anew(project: Project) -> None:
    """Saved while there was no server: the next one has it, and is not signalled while it starts; then as before."""
    with Hup(project, "gunicorn.pid") as watcher:
        project.release()
        watcher.wait_for_log(patterns.NOT_YET + "there is no such file")
        with Gunicorn(project, "--pid", "gunicorn.pid", workers=1, configuration=None) as server:
            assert server.version() == project.version
            project.release()
            server.wait_for_version(project.version)
        project.save("part.py", "")
        watcher.wait_for_log(patterns.NOT_YET + "there is no such file", 2)
