"""Translations and templates of Django under gunicorn: reset in every worker, without a restart."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from django_site import (
    HAVE_DJANGO,
    PAGE,
    TEMPLATES_RESET,
    Site,
    check_beside_code,
    check_broken_translations,
    check_translations_and_templates,
    wait_for_all,
)
from harness import UVICORN, Gunicorn, each, is_asgi, processes, wait_until
from harness.steering import let_it_hear

pytestmark = pytest.mark.skipif(not HAVE_DJANGO, reason="Django is not installed")


@each(("sync", "gthread", "gevent", "asgi", UVICORN), adapters=("gthread",))
def test_translations_and_templates(worker_class: str, tmp_path: Path) -> None:
    """Edited, born or gone: every worker answers what is on disk, and is the one that it was."""
    site = Site(tmp_path / "project", asgi=is_asgi(worker_class))
    with Gunicorn(site, worker_class=worker_class, workers=2) as server:
        check_translations_and_templates(server, site)


@pytest.mark.parametrize("engine", ["stat", "auto"])
def test_broken_translations(engine: str, tmp_path: Path) -> None:
    """A broken `.mo` is refused, told once, and its repair goes in, however changes are noticed."""
    site = Site(tmp_path / "project")
    with Gunicorn(site, worker_class="gthread", workers=2, environment={"WSGI_RELOAD_ENGINE": engine}) as server:
        check_broken_translations(server, site)


def test_beside_code(tmp_path: Path) -> None:
    """Broken code does not hold a template back, and after a reload both go on."""
    site = Site(tmp_path / "project")
    with Gunicorn(site, workers=2) as server:
        check_beside_code(server, site)


def test_beside_another_arbiter(tmp_path: Path) -> None:
    """After USR2 the workers of both arbiters are reset, each by its own; then those of the new one alone."""
    site = Site(tmp_path / "project")
    # With `-m gunicorn` the second start would find gunicorn/http before the standard library's http.
    program = tmp_path / "gunicorn"
    program.write_text("from gunicorn.app.wsgiapp import run\n\nrun()\n")
    with Gunicorn(site, workers=2, program=[str(program)]) as server:
        server.send(signal.SIGUSR2)
        second = server.successor()

        def workers() -> list[int]:
            found = [pid for arbiter in (server.pid, second) for pid in processes.children(arbiter)]
            return sorted({pid for pid in found if pid != second and not processes.is_listener(pid)})

        wait_until(lambda: len(workers()) == 4, "two workers each")
        wait_for_all(server, "/page.html", "page1", workers)
        let_it_hear(server, second)
        site.save(PAGE, "page2")
        wait_for_all(server, "/page.html", "page2", workers)
        server.wait_for_log(TEMPLATES_RESET, 2)
        server.send(signal.SIGTERM)
        assert server.exit_status() == 0
        server.adopt(second)
        wait_until(lambda: len(workers()) == 2, "the first one ended")
        site.save(PAGE, "page3")
        wait_for_all(server, "/page.html", "page3", workers)
