"""Translations and templates of Django under uWSGI: reset in every worker, without a restart."""

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
from harness import HAVE_UWSGI, Uwsgi, patterns

pytestmark = [
    pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed"),
    pytest.mark.skipif(not HAVE_DJANGO, reason="Django is not installed"),
]
LAZY = pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "not lazy"])


@LAZY
@pytest.mark.parametrize("options", [(), ("--threads", "3")], ids=["no threads", "threads"])
def test_translations_and_templates(lazy: bool, options: tuple[str, ...], tmp_path: Path) -> None:
    """Edited, born or gone: every worker answers what is on disk, and is the one that it was."""
    site = Site(tmp_path / "project")
    with Uwsgi(site, *options, workers=2, lazy=lazy) as server:
        server.wait_for_log(patterns.WATCHING)
        check_translations_and_templates(server, site)
        assert server.execs() == 0


@LAZY
def test_broken_translations(lazy: bool, tmp_path: Path) -> None:
    """A broken `.mo` is refused, told once, and its repair goes in."""
    site = Site(tmp_path / "project")
    with Uwsgi(site, workers=2, lazy=lazy) as server:
        server.wait_for_log(patterns.WATCHING)
        check_broken_translations(server, site)


@LAZY
def test_beside_code(lazy: bool, tmp_path: Path) -> None:
    """Broken code does not hold a template back, and after a reload, by whoever leads then, both go on."""
    site = Site(tmp_path / "project")
    with Uwsgi(site, workers=2, lazy=lazy) as server:
        server.wait_for_log(patterns.WATCHING)
        check_beside_code(server, site)
