"""The backend under test."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("contract.backends")

from contract.backends import BACKENDS, Backend  # noqa: E402


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """The one that the cell names, not started yet."""
    return BACKENDS[request.param](tmp_path / "project")
