"""The recipe that has circulated for uWSGI since Django 1: only its import has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import HAVE_UWSGI, Project, Uwsgi, wait_until

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")

RECIPE = """\
import uwsgi
from uwsgidecorators import timer

from wsgi_reload_hooks import code_changed


@timer(1)
def change_code_gracefull_reload(sig):
    if code_changed():
        uwsgi.reload()
"""


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "not lazy"])
def test_the_timer_recipe(lazy: bool, tmp_path: Path) -> None:
    """Imported by the application, without these hooks: saves are served, one after the other."""
    project = Project(tmp_path / "project", import_seconds=0.0, imports="import recipe")
    project.save("recipe.py", RECIPE)
    project.release()
    with Uwsgi(project, hooks=False, lazy=lazy, workers=2) as server:
        for saves in range(1, 3):
            # Of another size: saved before the first call, it differs from what the byte code was made of.
            project.release(bottom="#" * saves)
            server.wait_for_version(project.version)
            wait_until(lambda saves=saves: server.execs() >= saves, "uWSGI was executed anew")  # type: ignore[misc]
            server.wait_for_workers(2)
