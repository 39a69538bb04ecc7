"""What is watched under uWSGI, beside what a rehearsal loads."""

from __future__ import annotations

import pytest
from harness import HAVE_UWSGI, Project, Uwsgi, patterns

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")


@pytest.mark.adapters
@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "not lazy"])
def test_a_lazily_imported_module_is_watched(lazy: bool, project: Project) -> None:
    """A module that each worker has imported inside a request: its save is served by all of them."""
    project.save("lazy_part.py", "VERSION = 'lazy1'\n")
    with Uwsgi(project, workers=2, lazy=lazy) as server:
        server.wait_log(patterns.WATCHING)
        server.wait_for_everyone("lazy1", "/lazy")
        project.save("lazy_part.py", "VERSION = 'lazy2'\n")
        server.wait_for_everyone("lazy2", "/lazy")
