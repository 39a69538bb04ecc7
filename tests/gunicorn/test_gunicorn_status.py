"""`wsgi-reload status`, `reload`, `pause`, `resume` and `explain`, about a real gunicorn."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from harness import Gunicorn, Project, patterns, processes, wait_until
from harness.steering import commanded, right_answers, status

SAVES = [pytest.param(4, marks=pytest.mark.adapters), pytest.param(20, id="twenty", marks=pytest.mark.soak)]


@pytest.mark.versions
@pytest.mark.parametrize("saves", SAVES)
def test_gunicorn_status_wait(saves: int, tmp_path: Path) -> None:
    """Whether the last save is in service: the right answer each time, and not before the last old worker is out."""
    project = Project(tmp_path / "project", import_seconds=0.1)
    project.release()
    with Gunicorn(project, workers=2, worker_class="gthread") as server:
        right_answers(server, saves)


def test_gunicorn_status(project: Project) -> None:
    """Server, version, workers, engine, files, the last reload and the last refusal; for people and for programs."""
    with Gunicorn(project, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        told = status(server)
        assert (told["server"], told["pid"], told["workers"], told["reloads"]) == ("gunicorn", server.pid, 2, 0)
        assert told["root"] == str(project.root) and told["watched"] >= 1 and told["engine"]
        assert sorted(told["pids"]) == server.workers()
        project.release()
        assert commanded(server, "status", "--wait")[0] == 0
        code, output, errors = commanded(server, "status")
        assert (code, errors) == (0, "")
        assert output.startswith("gunicorn ") and "last reload" in output and ": app.py" in output
        project.save("app.py", "import os\nnot_there\n")
        code, output, errors = commanded(server, "status", "--wait")
        assert (code, errors) == (1, "")
        assert "refused" in output and "app.py, line 2: NameError: name 'not_there' is not defined" in output
        assert "Traceback" in output
        project.release()
        code, output, _ = commanded(server, "status", "--wait", str(server.pid))
        assert code == 0 and "repaired since" in output
        told = status(server)
        assert (told["reloads"], told["refusals"], told["state"]) == (2, 1, "idle")


def test_gunicorn_pause(project: Project) -> None:
    """Saves collect, a deploy script can tell, and one reload puts all in; HUP goes in all the same."""
    with Gunicorn(project, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        before = project.version
        assert "paused for 600 s" in commanded(server, "pause", "--for", "10m")[1]
        project.release()
        project.save("more.py", "1")
        code, _, errors = commanded(server, "status", "--wait")
        assert code == 3 and "a pause holds it back, end it with wsgi-reload resume" in errors
        assert server.version() == before
        assert "1 change held back" in commanded(server, "status")[1]
        server.hup()
        server.wait_for_version(project.version)
        project.release()
        code, output, _ = commanded(server, "reload", "--wait")
        assert code == 0 and "asked for a reload\n" in output and output.endswith(": in service\n")
        assert server.version() == project.version
        assert server.wait_for_log(patterns.RELOADED, 2)["what"].startswith("wsgi-reload")
        for _ in range(3):
            project.release()
        assert commanded(server, "resume", "--wait")[0] == 0
        assert server.version() == project.version
        assert server.count(patterns.RELOADED) == 3


def test_gunicorn_explain(project: Project) -> None:
    """Loaded, by whom, as on disk or not; with a pause the difference shows."""
    project.imports = "import helper"
    project.save("helper.py", "VERSION = 1\n")
    project.release()
    with Gunicorn(project, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        code, output, errors = commanded(server, "explain", "--json", "helper.py")
        (told,) = json.loads(output)
        assert (code, errors) == (0, "")
        assert sorted(told["workers"]) == server.workers() and told["as_loaded"] == told["on_disk"]
        commanded(server, "pause")
        project.save("helper.py", "VERSION = 2\n")
        commanded(server, "status", "--wait")
        output = commanded(server, "explain", "helper.py")[1]
        assert "another content than on disk (pending: refused, held back or on its way)" in output
        assert "not loaded by a worker" in commanded(server, "explain", "other.py")[1]


def test_gunicorn_leaves_nothing_for_status(project: Project) -> None:
    """A server that was killed is not shown, and its folder is removed by who looks."""
    with Gunicorn(project, workers=1, worker_class="gthread") as server:
        server.wait_for_log(patterns.WATCHING)
        folder = server.runtime / "wsgi-reload-hooks"
        assert len(list(folder.iterdir())) == 1
        server.send(signal.SIGKILL)
        server.exit_status()
        # By its pid: this user may have other servers, which are none of our business.
        none = f"wsgi-reload: {server.pid} is no server of this user with these hooks: see wsgi-reload status\n"
        assert commanded(server, "status", str(server.pid))[::2] == (1, none)
        assert commanded(server, "reload", str(server.pid))[::2] == (1, none)
        assert not folder.exists()
        wait_until(lambda: not server.processes(), "its workers are gone")
        server.forget()


def test_gunicorn_two_servers(project: Project, tmp_path: Path) -> None:
    """From a folder of its own each is the one that is meant; from elsewhere it has to be named."""
    other = Project(tmp_path / "other")
    other.release()
    with Gunicorn(project, workers=1) as one:
        one.wait_for_log(patterns.WATCHING)
        with Gunicorn(other, workers=1, environment={"XDG_RUNTIME_DIR": str(one.runtime)}) as two:
            two.wait_for_log(patterns.WATCHING)
            assert str(two.pid) in commanded(one, "status")[1]
            assert str(one.pid) in commanded(one, "reload", "--wait")[1]
            assert two.count(patterns.RELOADED) == 0
            assert commanded(two, "reload", "--wait", str(one.pid))[0] == 0
            one.wait_for_log(patterns.RELOADED, 2)
            assert commanded(one, "reload", "--wait", str(one.pid), str(two.pid))[0] == 0
            two.wait_for_log(patterns.RELOADED)


@pytest.mark.parametrize("preload", [False, True], ids=["each", "preload"])
def test_gunicorn_workers_die_in_a_pause(preload: bool, project: Project) -> None:
    """Nobody waits for its end: a zygote replaces them with what is in service, else an error page answers, and goes again
    when the save is taken back."""
    with Gunicorn(project, *["--preload"] * preload, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        before = (project.root / "app.py").read_text()
        served = project.version
        assert commanded(server, "pause")[0] == 0
        project.release()
        assert commanded(server, "status", "--wait")[0] == 3
        for pid in status(server)["pids"]:
            processes.kill(pid)
        if preload:
            wait_until(lambda: len(status(server)["pids"]) == 2, "they are replaced")
            assert {server.version() for _ in range(6)} == {served}
        else:
            server.wait_for_log("no worker is left that has the application")
            assert server.ask()[0] == 503
        project.save("app.py", before)
        assert commanded(server, "status", "--wait")[0] == 0
        assert {server.version() for _ in range(12)} == {served}
        assert commanded(server, "resume", "--wait")[0] == 0
        assert server.count(patterns.RELOADED) == 0


def test_gunicorn_status_of_a_refused_configuration(project: Project) -> None:
    """Good code goes in beside a configuration that does not load: not all that was saved is in service."""
    project.save("gunicorn.conf.py", "workers = 2\n")
    with Gunicorn(project, workers=0) as server:
        server.wait_for_log(patterns.WATCHING)
        assert commanded(server, "pause")[0] == 0
        project.save("gunicorn.conf.py", "workers = undefined_name\n")
        project.release()
        code, _, errors = commanded(server, "resume", "--wait")
        assert code == 1 and "gunicorn.conf.py, line 1: NameError" in errors
        assert server.version() == project.version
        project.release()
        assert commanded(server, "status", "--wait")[0] == 1
        told = status(server)
        assert (told["reloads"], told["refusals"]) == (2, 1)
        project.save("gunicorn.conf.py", "workers = 1\n")
        assert commanded(server, "status", "--wait")[0] == 0
        assert (status(server)["workers"], status(server)["refused"]) == (1, False)
