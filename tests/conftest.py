"""Fixtures of the tests with real servers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("harness")

from harness import Project  # noqa: E402


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small WSGI project, version v1 released."""
    project = Project(tmp_path / "project")
    project.release()
    return project
