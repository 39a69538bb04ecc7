"""`wsgi-reload serve`: gunicorn with the hooks and development defaults."""

from __future__ import annotations

import importlib.util
import signal
import socket
import sys
from pathlib import Path

import pytest
from harness import GUNICORN, Project, Serve, patterns, processes, wait_until
from harness.steering import commanded, status
from harness.waiting import LIMIT

from wsgi_reload_hooks.process.sockets import bind

pytestmark = pytest.mark.skipif(not GUNICORN, reason="gunicorn is not installed")
WAITS = (Path(__file__).parents[1] / "apps" / "waits.py").read_text()
HAVE_UVICORN = importlib.util.find_spec("uvicorn_worker") is not None
HAVE_ASGI = GUNICORN >= (25,)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A WSGI application, version v1 released."""
    project = Project(tmp_path / "project", import_seconds=0.0, handler_seconds=0.0)
    project.release()
    project.save("waits.py", WAITS)
    return project


@pytest.fixture
def asgi(tmp_path: Path) -> Project:
    """An ASGI application, version v1 released."""
    project = Project(tmp_path / "project", import_seconds=0.0, handler_seconds=0.0, asgi=True)
    project.release()
    return project


def given(server: Serve) -> list[str]:
    """The words that gunicorn was started with."""
    return processes.command_line(server.pid).decode().split("\0")


def begin_waiting(server: Serve) -> socket.socket:
    """A request that a worker is busy with until it is let go."""
    visitor = socket.create_connection(("127.0.0.1", server.port), LIMIT)
    visitor.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    wait_until((server.project.root / "begun").exists, "the request has begun")
    return visitor


# -- saves -------------------------------------------------------------------------------------------------------------


@pytest.mark.adapters
def test_good_save_goes_into_service(project: Project) -> None:
    """A save replaces the one worker; `status` knows the server."""
    with Serve(project) as server:
        assert server.version() == "v1"
        server.wait_for_log(patterns.WATCHING)
        project.release()
        server.wait_for_version("v2")
        assert server.wait_for_log(patterns.RELOADED)["workers"] == "1"
        told = status(server)
        assert (told["server"], told["workers"], told["root"]) == ("gunicorn", 1, str(project.root))
        assert commanded(server, "status", "--wait")[0] == 0


@pytest.mark.adapters
def test_broken_save_keeps_old_code_serving(project: Project) -> None:
    """A broken save is refused, and its repair goes into service."""
    with Serve(project) as server:
        server.wait_for_log(patterns.WATCHING)
        project.broken(bottom="undefined_name")
        assert "undefined_name" in server.wait_for_log(patterns.REFUSED)["why"]
        assert server.version() == "v1"
        project.release()
        server.wait_for_version(project.version)


def test_broken_start_waits_for_the_repair(project: Project) -> None:
    """An application that does not load at the start is served as WSGI after its repair, and the log says so at once."""
    project.broken(top="undefined_name")
    with Serve(project, wait=False) as server:
        assert "undefined_name" in server.wait_for_log(patterns.WAITING_FOR_REPAIR)["why"]
        assert "app:app does not load now: served as WSGI; for an ASGI application, start again" in server.log
        project.release()
        server.wait_until_ready_with(project.version)


# -- what gunicorn is given --------------------------------------------------------------------------------------------


def test_wsgi_application_gets_threads_and_no_timeout(project: Project) -> None:
    """The application is WSGI: one gthread worker with 8 threads; with a timeout, gunicorn would kill a debugger."""
    with Serve(project) as server:
        words = " ".join(given(server))
        assert " -c python:wsgi_reload_hooks.gunicorn_conf " in words
        assert " --timeout 0 " in words and " --worker-class gthread --threads 8 " in words
        assert " --workers=1 " in words and " --bind=127.0.0.1:0 " in words
        server.wait_for_workers(1)
        assert "does not load" not in server.log


def test_factory_is_served(project: Project) -> None:
    """A factory is called as gunicorn does."""
    with Serve(project, application="waits:create('v1')") as server:
        assert server.version() == "v1"
        assert "does not load" not in server.log


def test_options_reach_gunicorn(project: Project) -> None:
    """Our options and those after `--` are gunicorn's; the latter win."""
    options = ("--access-logfile", "-", "--timeout", "77", "--worker-class", "sync")
    with Serve(project, *options, ours=["--workers", "2"]) as server:
        server.wait_for_workers(2)
        server.wait_for_log("Using worker: sync")
        assert server.version() == "v1"
        server.wait_for_log(r'"GET / HTTP/1\.1" 200')
        assert " ".join(given(server)).index("--timeout 0") < " ".join(given(server)).index("--timeout 77")


def test_gunicorn_conf_is_loaded(project: Project) -> None:
    """A gunicorn.conf.py is loaded beside the hooks, and our defaults win over it."""
    project.save("gunicorn.conf.py", "access_log_format = 'seen %(U)s'\naccesslog = '-'\nworkers = 3\ntimeout = 5\n")
    with Serve(project) as server:
        server.wait_for_workers(1)
        server.wait_for_log("seen /")
        project.release()
        server.wait_for_version("v2")


@pytest.mark.adapters
@pytest.mark.skipif(not (HAVE_ASGI or HAVE_UVICORN), reason="there is no ASGI worker")
def test_asgi_application_gets_an_asgi_worker(asgi: Project) -> None:
    """The application is ASGI: it is served by an ASGI worker, and saves go into service."""
    with Serve(asgi) as server:
        server.wait_for_log("Using worker: asgi" if HAVE_ASGI else r"Using worker: uvicorn_worker\.UvicornWorker")
        assert server.version() == "v1"
        server.wait_for_log(patterns.WATCHING)
        asgi.release()
        server.wait_for_version("v2")


@pytest.mark.skipif(not HAVE_UVICORN, reason="uvicorn-worker is not installed")
def test_asgi_application_falls_back_to_uvicorn(asgi: Project) -> None:
    """A gunicorn without an ASGI worker of its own serves with uvicorn's."""
    with Serve(asgi, without=["gunicorn.workers.gasgi"]) as server:
        server.wait_for_log(r"Using worker: uvicorn_worker\.UvicornWorker")
        assert server.version() == "v1"


# -- the end -----------------------------------------------------------------------------------------------------------


def test_interrupted_it_ends_with_gunicorns_status(project: Project) -> None:
    """Ctrl-C ends it with 0, as it ends gunicorn, and leaves nothing."""
    with Serve(project) as server:
        known = server.processes()
        server.send(signal.SIGINT)
        assert server.exit_status() == 0
        server.assert_nothing_left(known)
        server.forget()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_killed_it_leaves_nothing(options: tuple[str, ...], project: Project) -> None:
    """SIGKILL ends the worker, too, though it is busy with a request, and the helpers; the port is free."""
    with Serve(project, *options, application="waits:app") as server:
        server.wait_for_log(patterns.WATCHING)
        port, known = server.port, server.processes()
        assert len(known) >= 2
        with begin_waiting(server):
            server.send(signal.SIGKILL)
            assert server.exit_status() == -signal.SIGKILL
            # The file of gunicorn's own control socket stays.
            wait_until(lambda: not any(map(processes.alive, known)), "all are gone")
            assert server.processes() == []
        server.forget()
        bind(f"127.0.0.1:{port}").close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_killed_while_it_finds_out_it_leaves_nothing(project: Project) -> None:
    """SIGKILL ends the child, too, that loads the application at the start to see what kind it is."""
    project.release(top='open("loading", "w").close()\nwhile not os.path.exists("go"):\n    time.sleep(0.01)')
    with Serve(project, wait=False) as server:
        wait_until((project.root / "loading").exists, "it loads the application")
        known = server.processes()
        assert len(known) == 2
        server.send(signal.SIGKILL)
        assert server.exit_status() == -signal.SIGKILL
        server.assert_nothing_left(known)
        server.forget()


# -- addresses and complaints ------------------------------------------------------------------------------------------


def test_sockets_of_systemd_are_served(project: Project) -> None:
    """gunicorn takes the sockets that it is activated with: the pid stays the same."""
    with bind("127.0.0.1:0") as one, Serve(project, given=[one]) as server:
        assert server.port == one.getsockname()[1]
        assert server.version() == "v1"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "the following arguments are required: MODULE[:NAME]"),
        (["app.py"], 2, "'app.py' names a file: name its module, as in shop.wsgi:application"),
        (["app:"], 2, "'app:' names no application: use MODULE or MODULE:NAME"),
        (["app/app.py"], 2, "'app/app.py' names no application"),
        (["app", "--workers", "many"], 2, "argument --workers: invalid int value: 'many'"),
        (["app", "--reload"], 2, "unrecognized arguments: --reload; see wsgi-reload serve --help"),
        (["app", "--", "-c", "mine.py"], 2, "-c would replace the hooks: name the file gunicorn.conf.py"),
        (["app", "--", "--config=mine.py"], 2, "-c would replace the hooks"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(words: list[str], code: int, said: str, project: Project) -> None:
    """One line that says what is wrong, and an exit code."""
    server = Serve(project)
    server._command[4:] = words
    assert server.run_to_its_end() == code
    assert server.output.startswith(f"wsgi-reload: {said}")
    assert server.output.count("\n") == 1


@pytest.mark.adapters
def test_without_gunicorn_it_says_what_to_install(project: Project) -> None:
    """One line, and exit code 1."""
    server = Serve(project, without=["gunicorn"])
    assert server.run_to_its_end() == 1
    assert server.output == "wsgi-reload: gunicorn is not installed: pip install 'wsgi-reload-hooks[serve]'\n"


def test_without_an_asgi_worker_it_says_what_to_install(asgi: Project) -> None:
    """One line, and exit code 1."""
    server = Serve(asgi, without=["gunicorn.workers.gasgi", "uvicorn_worker"])
    assert server.run_to_its_end() == 1
    assert server.output == (
        "wsgi-reload: app:app is an ASGI application: pip install 'gunicorn>=25', or uvicorn-worker\n"
    )


def test_wrong_setting_is_told_in_one_line(project: Project) -> None:
    """One line, and exit code 2."""
    server = Serve(project, environment={"WSGI_RELOAD_STEP": "soon"})
    assert server.run_to_its_end() == 2
    assert "step" in server.output and server.output.count("\n") == 1
