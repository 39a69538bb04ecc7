"""`wsgi-reload hup` in front of a uWSGI that knows nothing of it."""

from __future__ import annotations

import os

import pytest
from edits import save
from harness import HAVE_UWSGI, Hup, Project, Uwsgi, holds, patterns, wait_until
from harness.base import python_path
from harness.waiting import quietly

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
        watcher.wait_sent(2)
        assert watcher.sent() == ["app.py", "app.py"]
        assert watcher.count(patterns.REFUSED) == 1


@pytest.mark.soak
@pytest.mark.parametrize("router", [False, True], ids=["no router", "router"])
def test_many_saves(router: bool, project: Project) -> None:
    """uWSGI executes itself anew for each: a HUP while it does would be its end, so it has to wait; not for a router."""
    with (
        Uwsgi(project, "--pidfile", "uwsgi.pid", workers=2, lazy=False, hooks=False, router=router) as server,
        Hup(project, "uwsgi.pid", environment={"WSGI_RELOAD_STEP": "0.001"}) as watcher,
    ):
        for count in range(1, 5):
            project.release()
            watcher.wait_sent(count)
        # Where there is a router, nobody listens for a moment.
        wait_until(lambda: quietly(server.version) == project.version, "the last one is served")
        assert not server.exited()


# Keeps `app` from writing its byte code until it is told to go on.
LATE = """
import importlib.machinery, os, time

write = importlib.machinery.SourceFileLoader.set_data

def set_data(self, path, data, **others):
    end = time.monotonic() + 15
    if os.path.basename(path).startswith("app."):
        open("writing", "w").close()
        while not os.path.exists("go") and time.monotonic() < end:
            time.sleep(0.01)
    return write(self, path, data, **others)

importlib.machinery.SourceFileLoader.set_data = set_data
"""


def test_byte_code_that_is_written_late(project: Project) -> None:
    """A save while the server still loads the one before is served, though Python cannot tell their byte code apart: it
    goes by size and whole second."""
    save(project.root / "late" / "sitecustomize.py", LATE)
    path = os.pathsep.join(filter(None, (str(project.root / "late"), python_path())))
    (project.root / "go").touch()
    environment = {"PYTHONPATH": path}
    with (
        Uwsgi(project, "--pidfile", "uwsgi.pid", lazy=False, hooks=False, environment=environment) as server,
        Hup(project, "uwsgi.pid", "--verbose") as watcher,
    ):
        (project.root / "go").unlink()
        (project.root / "writing").unlink()
        project.release()
        wait_until((project.root / "writing").exists, "it has read it")
        before = os.stat(project.root / "app.py").st_mtime_ns
        project.release()
        # As if it were the same second.
        os.utime(project.root / "app.py", ns=(before, before - before % 10**9 + (before + 1) % 10**9))
        watcher.wait_for_log("PROVING -> SWITCHING", 2)
        (project.root / "go").touch()
        server.wait_for_version(project.version)
