"""Translations and templates of Django under gunicorn: reset in every worker, without a restart."""

from __future__ import annotations

from pathlib import Path

import pytest
from django_site import (
    HAVE_DJANGO,
    Site,
    check_beside_code,
    check_broken_translations,
    check_translations_and_templates,
)
from harness import UVICORN, Gunicorn, each, is_asgi

pytestmark = pytest.mark.skipif(not HAVE_DJANGO, reason="Django is not installed")


@each(("sync", "gthread", "gevent", "asgi", UVICORN))
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
