"""Durations of servers under load: asserted only where TEST_DURATIONS is set, on a machine with nothing else to do.

Everywhere else the same tests assert what clients see: versions, failures, log lines. `tests/benchmarks` compares
durations with those of other ways in one run.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence

# What a busy machine explains.
NOISE = 3.0
_ASSERTED = bool(os.environ.get("TEST_DURATIONS"))


def assert_mostly(times: Sequence[float], limit: float, noise: float = NOISE) -> None:
    """Most of *times* (seconds) keep the *limit*, and none exceeds it by more than *noise*."""
    assert times
    if _ASSERTED:
        assert statistics.median(times) <= limit, times
        assert max(times) <= limit + noise, times
