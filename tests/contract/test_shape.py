"""How a save becomes a reload in each server, held on real ones.

gunicorn_conf.when_ready(server)   starts the watcher thread; the arbiter's main thread carries out server.reload()
uwsgi_timer                        a uwsgidecorators timer; rolling with lazy-apps, else uwsgi.reload()
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from contract.backends import APPS, LONG, WAIT, WORKERS
from harness import CONFIGURATION, GUNICORN, HAVE_UWSGI, MODULE, PACKAGE, Gunicorn, Project, Server, Uwsgi, wait_until
from harness.steering import commanded, status

pytestmark = pytest.mark.contract
needs_gunicorn = pytest.mark.skipif(not GUNICORN, reason="gunicorn is not installed")
needs_uwsgi = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")

# By path and by name.
GUNICORN_FACES = pytest.mark.parametrize("face", [str(CONFIGURATION), MODULE], ids=["path", "name"])
UWSGI_FACES = pytest.mark.parametrize(
    "face", [str(PACKAGE / "uwsgi_timer.py"), "wsgi_reload_hooks.uwsgi_timer"], ids=["path", "name"]
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project that imports fast, version v1 released."""
    project = Project(tmp_path / "project", import_seconds=0.05)
    project.release()
    return project


def notes(project: Project) -> list[list[str]]:
    """What the recording file noted so far: the words of each line."""
    path = project.root / "notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def wait_watching(server: Server) -> None:
    """Wait until the hooks know which files are loaded."""
    wait_until(lambda: commanded(server, "status", str(server.pid))[0] == 0, "the hooks answer")
    wait_until(lambda: status(server)["watched"], "files are watched")


def wait_served(server: Server) -> None:
    """Wait until the last save is in service in every worker."""
    code, output, errors = commanded(server, "status", *WAIT, str(server.pid))
    assert code == 0, output + errors
    assert {server.version() for _ in range(6)} == {server.project.version}


@needs_gunicorn
@GUNICORN_FACES
def test_arbiter_has_one_watcher_thread_and_reloads_in_its_main_thread(face: str, project: Project) -> None:
    """The user's hooks are called, in the arbiter's main thread, for a save as for a `server.reload()` from any thread."""
    shutil.copy(APPS / "recording_gunicorn.conf.py", project.root / "gunicorn.conf.py")
    with Gunicorn(project, workers=WORKERS, configuration=face) as server:
        wait_watching(server)
        # The main thread, the watcher thread and the user's own.
        assert threads(server.pid) == 3
        project.release()
        wait_served(server)
        (project.root / "ask").touch()
        wait_until(lambda: status(server)["reloads"] == 2, "the reload that the thread asked for", LONG)
        wait_served(server)
        noted = notes(project)
    main = [str(server.pid), str(server.pid)]
    assert [words for words in noted if words[0] == "when_ready"] == [["when_ready", *main]]
    assert [words for words in noted if words[0] == "on_reload"] == [["on_reload", *main]] * 2
    assert [words for words in noted if words[0] == "pre_fork"] == [["pre_fork", *main]] * 3 * WORKERS
    (asked,) = (words for words in noted if words[0] == "asked")
    assert asked[1] == main[0]
    assert asked[2] != main[1]


@needs_uwsgi
@UWSGI_FACES
@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "forked"])
def test_uwsgi_timer_rolls_with_lazy_apps_and_else_calls_uwsgi_reload(lazy: bool, face: str, project: Project) -> None:
    """A uwsgidecorators timer is registered; with lazy-apps the master never executes itself anew, else once a save."""
    recorder = shutil.copy(APPS / "recording_uwsgi.py", project.root)
    imports = ("--import", str(recorder), "--import", face)
    with Uwsgi(project, *imports, workers=WORKERS, hooks=False, lazy=lazy) as server:
        wait_watching(server)
        before = set(server.workers())
        project.release()
        wait_served(server)
        assert not before & set(server.workers())
        assert server.execs() == (0 if lazy else 1)
        noted = notes(project)
    assert any(what == "timer" and name.startswith("wsgi_reload_hooks.") for what, name in noted), noted
    assert [what for what, name in noted if what == "reload" and name.startswith("wsgi_reload_hooks.")] == [
        "reload"
    ] * (not lazy), noted
