"""`wsgi-reload status`, `reload`, `pause` and `explain`, about a real uWSGI: whoever leads there, the answer is the same."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from harness import HAVE_UWSGI, Project, Uwsgi, patterns, wait_until
from harness.steering import commanded, right_answers, status

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")


@pytest.mark.parametrize("saves", [3, pytest.param(20, id="twenty", marks=pytest.mark.soak)])
@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "forked"])
def test_uwsgi_status_wait(saves: int, lazy: bool, tmp_path: Path) -> None:
    """Whether the last save is in service: the right answer each time, also when the leader is replaced meanwhile."""
    project = Project(tmp_path / "project", import_seconds=0.1)
    project.release()
    with Uwsgi(project, workers=2, lazy=lazy) as server:
        server.wait_for_log(patterns.WATCHING)
        right_answers(server, saves)


@pytest.mark.adapters
@pytest.mark.versions
@pytest.mark.parametrize("threads", [True, False], ids=["threads", "no threads"])
def test_uwsgi_steering(threads: bool, tmp_path: Path) -> None:
    """Status, a reload that is asked for, a pause that outlives its leader, and what is known of a file."""
    project = Project(tmp_path / "project", import_seconds=0.05)
    project.release()
    with Uwsgi(project, *["--enable-threads"] * threads, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        told = status(server)
        assert (told["server"], told["workers"], told["root"]) == ("uwsgi", 2, str(project.root))
        before = set(server.workers())
        assert commanded(server, "reload", "--wait")[0] == 0
        assert not before & set(server.workers())
        assert server.wait_for_log(patterns.RELOADED)["what"] == "wsgi-reload"
        old = project.version
        assert commanded(server, "pause")[0] == 0
        project.release()
        assert commanded(server, "status", "--wait")[0] == 3
        assert server.version() == old
        (told,) = json.loads(commanded(server, "explain", "--json", "app.py")[1])
        assert told["pending"] and told["as_loaded"] != told["on_disk"]
        assert sorted(told["workers"]) == server.workers()
        assert commanded(server, "resume", "--wait")[0] == 0
        assert {server.version() for _ in range(6)} == {project.version}
        assert status(server)["reloads"] == 2


@pytest.mark.parametrize("what", ["the notes", "all"])
def test_uwsgi_after_temporary_folders_were_cleaned(what: str, tmp_path: Path) -> None:
    """Somebody removes what is old: there is one leader again, saves go in, and it is told that they did."""
    project = Project(tmp_path / "project", import_seconds=0.05)
    project.release()
    with Uwsgi(project, "--enable-threads", workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        (folder,) = (server.runtime / "wsgi-reload-hooks").iterdir()
        if what == "all":
            folder.parent.rename(tmp_path / "gone")
        else:
            for name in ("leader.lock", "approved", "worker-1", "worker-2"):
                (folder / name).unlink()
        names = {"leader.lock", "approved", "worker-1", "worker-2"}
        wait_until(lambda: folder.exists() and names <= set(os.listdir(folder)), "all is there again")
        project.release()
        server.wait_for_log(patterns.RELOADED)
        assert {server.version() for _ in range(6)} == {project.version}
        assert commanded(server, "status", "--wait")[0] == 0
        assert server.count("error in the hooks") == 0
