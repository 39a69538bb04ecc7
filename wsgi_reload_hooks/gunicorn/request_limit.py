"""A `max_requests` that asks for a replacement before the worker ends."""

from __future__ import annotations

from collections.abc import Callable


class RequestLimit(int):
    """``max_requests`` that is never reached: the first request beyond it asks the arbiter for a successor instead.

    So a worker leaves when the next one is ready, not before, and never for code that does not load.
    """

    _ask: Callable[[], None]
    _asked: bool

    def __new__(cls, limit: int, ask: Callable[[], None]) -> RequestLimit:
        self = super().__new__(cls, limit)
        self._ask = ask
        self._asked = False
        return self

    def __le__(self, count: int) -> bool:
        # `count >= limit` comes here first: a subclass is asked before the class.
        if not self._asked and int.__le__(self, count):
            self._asked = True
            self._ask()
        return False

    def __add__(self, more: int) -> RequestLimit:
        return RequestLimit(int(self) + more, self._ask)
