"""`warmup`: new code has to answer before it is let in."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest
from harness import UVICORN, Gunicorn, Project, each, holds, is_asgi, patterns, project_for, wait_until

WARMUP = {"WSGI_RELOAD_WARMUP": "/healthz", "WSGI_RELOAD_STEP": "0.02"}
WSGI_FAILING = """
good = app
def app(environ, start_response):
    if environ["PATH_INFO"] == "/healthz":
        {then}
    return good(environ, start_response)
"""
ASGI_FAILING = """
good = app
async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/healthz":
        {then}
    await good(scope, receive, send)
"""
WSGI_ERROR = "start_response('503 Not today', []); return [b'']"
ASGI_ERROR = "await send({'type': 'http.response.start', 'status': 503, 'headers': []}); "
ASGI_ERROR += "await send({'type': 'http.response.body', 'body': b''}); return"


def failing(worker_class: str, then: str, project: Project) -> str:
    """The end of an `app.py` whose health is bad in this way."""
    return (ASGI_FAILING if is_asgi(worker_class) else WSGI_FAILING).format(then=then)


@each(
    ("sync", "gthread", "gevent", "asgi", UVICORN),
    adapters=("sync",),
    versions=("sync",),
    matrix=("gevent", "asgi", UVICORN),
)
@pytest.mark.parametrize("preload", [False, True])
def test_code_that_does_not_answer_is_refused(worker_class: str, preload: bool, tmp_path: Path) -> None:
    """An error status, an exception and a request without end: one report each, and the repair is served."""
    if preload and sys.platform != "linux":
        pytest.skip("needs what only Linux does with orphans")
    project = project_for(worker_class, tmp_path / "project", import_seconds=0.0)
    project.release()
    options = ["--preload"] * preload
    wait = "import asyncio; await asyncio.sleep(60)" if is_asgi(worker_class) else "time.sleep(60)"
    ways: tuple[tuple[str, str], ...] = (
        (ASGI_ERROR if is_asgi(worker_class) else WSGI_ERROR, r"app\.py: GET /healthz was answered with 503"),
        ("undefined_name", r"app\.py, line \d+: NameError: name 'undefined_name'"),
        (wait, r"the warm-up \(/healthz\) did not end within 3 s"),
    )
    # Long enough for all that is to end, also on a machine that has other things to do for a while.
    environment = {**WARMUP, "WSGI_RELOAD_BOOT_TIMEOUT": "3"}
    if worker_class in ("asgi", UVICORN) and not preload:
        ways = ways[:2]
    with Gunicorn(project, *options, worker_class=worker_class, workers=2, environment=environment) as server:
        server.wait_for_log(patterns.WATCHING)
        before = server.workers()
        for number, (then, why) in enumerate(ways, 1):
            project.broken(bottom=failing(worker_class, then, project))
            report = server.wait_for_log(patterns.REFUSED, number)
            assert re.search(why, report["why"]), report["why"]
            assert server.version() == project.version
        server.wait_for_workers(2)
        assert server.workers() == before
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(2)
        assert server.count("out of memory") == 0


def test_each_worker_is_asked_before_anybody_is_served(project: Project, tmp_path: Path) -> None:
    """Once each, all paths in order; also a worker that takes the place of another one."""
    notes = tmp_path / "notes"
    bottom = f"""
good = app
def app(environ, start_response):
    with open({str(notes)!r}, "a") as file:
        file.write("%s %s\\n" % (os.getpid(), environ["PATH_INFO"]))
    return good(environ, start_response)
"""
    project.release(bottom=bottom)
    environment = {**WARMUP, "WSGI_RELOAD_WARMUP": "/healthz,/more"}
    with Gunicorn(project, workers=2, environment=environment) as server:
        # The one that is killed, too, has been asked.
        server.wait_for_log(patterns.WATCHING)
        server.end_worker(server.workers()[0], signal.SIGKILL)
        server.wait_for_version(project.version)

        def asked() -> list[list[str]]:
            return [line.split() for line in notes.read_text().splitlines()]

        wait_until(lambda: sum(path == "/more" for _, path in asked()) == 3, "three workers were asked")
        for pid in server.workers():
            assert [path for other, path in asked() if other == str(pid)][:2] == ["/healthz", "/more"]


def test_broken_at_the_start_waits_for_the_repair(project: Project) -> None:
    """Code that loads and does not answer: told once, and the repair is served."""
    project.broken(bottom=failing("sync", WSGI_ERROR, project))
    with Gunicorn(project, wait=False, workers=2, environment=WARMUP) as server:
        assert "GET /healthz" in server.wait_for_log(patterns.WAITING_FOR_REPAIR)["why"]
        project.release()
        server.wait_until_ready_with(project.version)
        server.wait_for_workers(2)


@pytest.mark.matrix
@each(("asgi", UVICORN))
def test_the_state_of_a_lifespan(worker_class: str, tmp_path: Path) -> None:
    """What the application has made at its start is there when it is asked."""
    project = project_for(worker_class, tmp_path / "project", import_seconds=0.0)
    bottom = """
good = app
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        scope["state"]["pool"] = "open"
    else:
        assert scope["state"]["pool"] == "open"
    await good(scope, receive, send)
"""
    project.release(bottom=bottom)
    with Gunicorn(project, worker_class=worker_class, workers=2, environment=WARMUP) as server:
        project.release(bottom=bottom)
        server.wait_for_version(project.version)
        assert server.count(patterns.REFUSED) == 0


def test_a_lazy_module_is_watched(project: Project) -> None:
    """What is imported for the first request is known before there is one."""
    project.save("lazy_part.py", "VERSION = 'l1'\n")
    with Gunicorn(project, workers=2, environment={**WARMUP, "WSGI_RELOAD_WARMUP": "/lazy"}) as server:
        server.wait_for_workers(2)
        project.save("lazy_part.py", "VERSION = 'l2'\n")
        server.wait_for_log(patterns.reloaded(r"lazy_part\.py"))
        server.wait_for_workers(2)
        assert server.version("/lazy") == "l2"
        before = server.workers()
        project.save("lazy_part.py", "broken = \n")
        server.wait_for_log(patterns.REFUSED)
        assert server.version() == project.version
        holds(lambda: server.workers() == before, "the workers of before", 0.3)
