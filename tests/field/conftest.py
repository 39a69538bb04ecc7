"""Fixture of the tests of faults found in the field."""

from __future__ import annotations

import pytest

SOON = 3.0
LIMIT = 15.0


@pytest.fixture
def limit(request: pytest.FixtureRequest) -> float:
    """Seconds to wait for what should come: few where it is known that it does not come yet."""
    return LIMIT if request.node.get_closest_marker("xfail") is None else SOON
