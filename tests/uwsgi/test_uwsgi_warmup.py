"""`warmup` under uWSGI: the rehearsal has to answer, too."""

from __future__ import annotations

import pytest
from harness import HAVE_UWSGI, Project, Uwsgi, holds, patterns

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")

FAILING = """
good = app
def app(environ, start_response):
    if environ["PATH_INFO"] == "/healthz":
        {then}
    return good(environ, start_response)
"""


@pytest.mark.adapters
@pytest.mark.parametrize("lazy", [True, False])
def test_code_that_does_not_answer_is_refused(lazy: bool, project: Project) -> None:
    """An error status and an exception: no worker is touched, one report each, and the repair is served."""
    with Uwsgi(project, workers=2, lazy=lazy, environment={"WSGI_RELOAD_WARMUP": "/healthz"}) as server:
        server.wait_for_log(patterns.WATCHING)
        before = server.workers()
        project.broken(bottom=FAILING.format(then="start_response('500 No', []); return [b'']"))
        report = server.wait_for_log(patterns.refused(r"GET /healthz was answered with 500 No"))
        assert "app.py" in report[0]
        project.broken(bottom=FAILING.format(then="undefined_name"))
        server.wait_for_log(patterns.refused(r"NameError: name 'undefined_name'"))
        holds(lambda: server.workers() == before and server.version() == project.version, "the old code", 0.3)
        project.release()
        server.wait_for_version(project.version)


def test_a_request_without_end(project: Project) -> None:
    """It is refused within `boot_timeout`."""
    environment = {"WSGI_RELOAD_WARMUP": "/healthz", "WSGI_RELOAD_BOOT_TIMEOUT": "4"}
    with Uwsgi(project, workers=2, environment=environment) as server:
        server.wait_for_log(patterns.WATCHING)
        project.broken(bottom=FAILING.format(then="time.sleep(60)"))
        server.wait_for_log(patterns.refused("4 s"))
        assert server.version() == project.version
        project.release()
        server.wait_for_version(project.version)
