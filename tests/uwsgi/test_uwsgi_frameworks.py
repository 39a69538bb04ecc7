"""Projects of the frameworks under uWSGI: the first save, broken ones, and the repair."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import HAVE_UWSGI, Uwsgi, patterns
from harness.frameworks import (
    DJANGO,
    FRAMEWORKS,
    Framework,
    Site,
    assert_each_save_is_served,
    assert_survives,
    each_framework,
    needs,
)

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")


def uwsgi(site: Site) -> Uwsgi:
    """Nobody has asked it for anything yet."""
    framework = site.framework
    # A roll that follows another at once need not be paced: that is no matter of the framework.
    options = ("--disable-logging", "--forkbomb-delay", "0")
    # `module = shop.wsgi` is enough where the callable has the name that uWSGI looks for.
    target = framework.application.replace(":application", "")
    return Uwsgi(site, *options, workers=2, target=("--module", target), environment=framework.environment, wait=False)


@each_framework(FRAMEWORKS)
def test_the_first_save_broken_ones_and_the_repair(framework: Framework, tmp_path: Path) -> None:
    """A save of the views before any visitor is served by all workers; broken ones are refused, the repair is served."""
    site = Site(tmp_path / "project", framework)
    with uwsgi(site) as server:
        assert_survives(server, site)


@needs(DJANGO)
def test_django_with_broken_views_at_the_start(tmp_path: Path) -> None:
    """No request is needed to find them: they are told, and their repair is served."""
    site = Site(tmp_path / "project", DJANGO)
    place = site.spoil(DJANGO.views, "undefined_name")
    with uwsgi(site) as server:
        report = server.wait_for_log(patterns.REFUSED)
        assert report["why"].startswith(f"{DJANGO.views}, line {place}: NameError")
        version = site.publish(DJANGO.views)
        server.wait_until_ready_with(version)
        server.wait_for_everyone(version)


@needs(DJANGO)
def test_django_each_kind_of_file(tmp_path: Path) -> None:
    """Template tags, models and URLs are as good as views: the first save of each is served."""
    site = Site(tmp_path / "project", DJANGO)
    with uwsgi(site) as server:
        assert_each_save_is_served(server, site)
