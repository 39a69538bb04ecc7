"""Wait for a condition, with a limit; never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LIMIT = 15.0
PAUSE = 0.01

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], what: str | Callable[[], str], limit: float = LIMIT) -> T:
    """Ask until the answer is true and return it; an AssertionError says what never came."""
    end = time.monotonic() + limit
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(PAUSE)


def the_only(find: Callable[[], list[T]], what: str) -> T:
    """The one that is found, as soon as there are no others."""

    def alone() -> list[T]:
        found = find()
        return found if len(found) == 1 else []

    return wait_until(alone, lambda: f"one {what}; there are {find()}")[0]


def holds(condition: Callable[[], bool], what: str, seconds: float = 1.0) -> None:
    """Ask all the time, once at least, and fail at the first no."""
    end = time.monotonic() + seconds
    while True:
        assert condition(), f"held no longer: {what}"
        if time.monotonic() > end:
            return
        time.sleep(PAUSE)


def quietly(condition: Callable[[], T]) -> T | None:
    """The answer, or None while the server is not there."""
    try:
        return condition()
    except OSError:
        return None
