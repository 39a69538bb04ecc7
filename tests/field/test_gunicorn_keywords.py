"""uvicorn's worker class with keywords of its own, and gunicorn's with a lifespan that is switched off."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import GUNICORN, UVICORN, Gunicorn, Project

pytest.importorskip("uvicorn_worker")
pytestmark = pytest.mark.field

LIMIT = 6.0
REFUSED = r"refused.*"

needs_asgi = pytest.mark.skipif(GUNICORN < (25, 0), reason="gunicorn's own asgi worker came with 25.0")


@pytest.fixture
def site(tmp_path: Path) -> Project:
    """ASGI applications, and worker classes in `kinds.py`."""
    project = Project(tmp_path / "project")
    project.copy("asgi_keywords")
    return project


def serve(site: Project, kind: str, application: str) -> Gunicorn:
    """Two workers of *kind* in front of *application*, which need not serve."""
    options = ["--asgi-lifespan", "off"] if kind == "asgi" else []
    return Gunicorn(site, *options, worker_class=kind, application=application, workers=2, wait=False)


OFF = [
    "kinds.LifespanOff",
    "kinds.LifespanOffH11",
    "kinds.LifespanOffInherited",
    pytest.param("asgi", marks=needs_asgi),
]


@pytest.mark.parametrize("kind", OFF)
def test_http_only_application_serves_where_the_lifespan_is_off(kind: str, site: Project) -> None:
    """An application that knows no lifespan is not called with one; saves go in."""
    with serve(site, kind, "app:app") as server:
        server.wait_ready(LIMIT)
        server.wait_for_log("watching")
        site.edit("app.py", '"v1"', '"v2"')
        server.wait_for_version("v2")
        site.save("app.py", "undefined_name\n")
        server.wait_for_log(REFUSED + "undefined_name")
        # An asgi worker that was told to leave may still answer a visitor.
        server.wait_for_version("v2")


@pytest.mark.parametrize("kind", ["kinds.LifespanOff", "kinds.LifespanOffH11", pytest.param("asgi", marks=needs_asgi)])
def test_lifespan_that_is_off_is_not_run(kind: str, site: Project) -> None:
    """Neither at the start nor by a save."""
    with serve(site, kind, "recorded:app") as server:
        server.wait_ready(LIMIT)
        server.wait_for_log("watching")
        assert not (site.root / "lifespan").exists()
        site.edit("recorded.py", '"v1"', '"v2"')
        server.wait_for_version("v2")
        assert not (site.root / "lifespan").exists()


@pytest.mark.parametrize(
    ("kind", "application", "first", "second"),
    [
        ("kinds.LifespanOn", "recorded:app", "v1", "v2"),
        ("kinds.RootPath", "app:app", "/here-v1", "/here-v2"),
        ("kinds.Factory", "app:build", "v1", "v2"),
        ("kinds.FactoryLifespanOff", "app:build", "v1", "v2"),
        ("kinds.Asgi2", "app:app2", "v1", "v2"),
        ("kinds.Asgi2LifespanOff", "app:app2", "v1", "v2"),
        ("kinds.Wsgi", "app:wsgi", "v1", "v2"),
    ],
)
def test_keywords_of_the_worker_class_hold(kind: str, application: str, first: str, second: str, site: Project) -> None:
    """Before and after a save, as without the hooks."""
    with serve(site, kind, application) as server:
        server.wait_ready(LIMIT)
        server.wait_for_log("watching")
        assert server.version() == first
        site.edit(application.partition(":")[0] + ".py", '"v1"', '"v2"')
        server.wait_for_version(second)


unseen = pytest.mark.xfail(
    strict=True, reason="the start-up of an application behind a factory or of ASGI 2 is not seen: told as reloaded"
)


@pytest.mark.parametrize(
    ("kind", "application"),
    [
        pytest.param(UVICORN, "recorded:app", id="uvicorn"),
        pytest.param("kinds.LifespanOn", "recorded:app", id="on"),
        pytest.param("kinds.Factory", "recorded:build", id="factory", marks=unseen),
        pytest.param("kinds.Asgi2", "recorded:app2", id="asgi2", marks=unseen),
    ],
)
def test_failed_lifespan_startup_keeps_old_code_serving(kind: str, application: str, site: Project) -> None:
    """A save whose lifespan fails is refused, whatever the keywords; its repair goes in."""
    with serve(site, kind, application) as server:
        server.wait_ready(LIMIT)
        server.wait_for_log("watching")
        site.edit("recorded.py", 'FAILURE = ""', 'FAILURE = "no database"')
        server.wait_for_log(REFUSED + "no database", limit=LIMIT)
        assert server.version() == "v1"
        site.edit("recorded.py", 'FAILURE = "no database"', 'FAILURE = "" or None')
        site.edit("recorded.py", '"v1"', '"v2"')
        server.wait_for_version("v2")
