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
    """Mark the tests that put a server under load: nothing else may run beside them."""
    for item in items:
        if isinstance(item, pytest.Function) and "server.load(" in inspect.getsource(item.function):
            item.add_marker("load")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small WSGI project, version v1 released."""
    project = Project(tmp_path / "project")
    project.release()
    return project
