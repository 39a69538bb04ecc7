"""Fixtures of the tests with real servers."""

from __future__ import annotations

import inspect
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("harness")

from harness import Project  # noqa: E402


def pytest_configure() -> None:
    """A run that is told to end takes its servers along, as one that is interrupted does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that put a server under load: nothing else may run beside them, but for those that only count."""
    for item in items:
        if isinstance(item, pytest.Function) and _is_about_load(item) and item.get_closest_marker("counts") is None:
            item.add_marker("load")


def _is_about_load(item: pytest.Function) -> bool:
    if item.path.name.startswith("test_uwsgi"):
        # The others only count failures.
        return item.path.name in ("test_uwsgi_good_saves.py", "test_uwsgi_storm.py")
    return "server.load(" in inspect.getsource(item.function)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small WSGI project, version v1 released."""
    project = Project(tmp_path / "project")
    project.release()
    return project
