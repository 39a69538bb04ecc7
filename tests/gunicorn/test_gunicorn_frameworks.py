"""Projects of the frameworks under gunicorn: the first save, broken ones, and the repair."""

from __future__ import annotations

from pathlib import Path

from harness import Gunicorn, patterns
from harness.frameworks import (
    DJANGO,
    FRAMEWORKS,
    VARIANTS,
    Framework,
    Site,
    assert_each_save_is_served,
    assert_survives,
    each_framework,
    needs,
)


def gunicorn(site: Site) -> Gunicorn:
    """Nobody has asked it for anything yet."""
    framework = site.framework
    return Gunicorn(site, workers=2, application=framework.application, environment=framework.environment, wait=False)


@each_framework((*FRAMEWORKS, *VARIANTS))
def test_the_first_save_broken_ones_and_the_repair(framework: Framework, tmp_path: Path) -> None:
    """A save of the views before any visitor is served by all workers; broken ones are refused, the repair is served."""
    site = Site(tmp_path / "project", framework)
    with gunicorn(site) as server:
        assert_survives(server, site)


@needs(DJANGO)
def test_django_with_broken_views_at_the_start(tmp_path: Path) -> None:
    """No request is needed to find them: the server waits for the repair of what is imported at the first one."""
    site = Site(tmp_path / "project", DJANGO)
    place = site.spoil(DJANGO.views, "undefined_name")
    with gunicorn(site) as server:
        report = server.wait_for_log(patterns.WAITING_FOR_REPAIR)
        assert report["why"].startswith(f"{DJANGO.views}, line {place}: NameError")
        server.wait_until_ready_with(site.publish(DJANGO.views))


@needs(DJANGO)
def test_django_each_kind_of_file(tmp_path: Path) -> None:
    """Template tags, models and URLs are as good as views: the first save of each is served."""
    site = Site(tmp_path / "project", DJANGO)
    with gunicorn(site) as server:
        assert_each_save_is_served(server, site)
