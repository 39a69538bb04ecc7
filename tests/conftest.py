"""Fixtures of the tests with real servers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("harness")

from harness import Project  # noqa: E402


def pytest_configure() -> None:
    """A run that is told to end takes its servers along, as one that is interrupted does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say once more what failed, below the log of the server: who sees only the end of a long output sees this."""
    report = yield
    if report.failed and call.excinfo is not None:
        report.sections.append((f"What failed in {item.name}", call.excinfo.exconly()))
    return report


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small WSGI project, version v1 released."""
    project = Project(tmp_path / "project")
    project.release()
    return project
