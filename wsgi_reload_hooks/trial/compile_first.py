"""Compiles the changed sources in the helper process, then starts the trial that follows."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from ..core.refusal import Refusal
from ..process.helper import Helper, HelperDied
from .plan import Outcome

# Seconds. Most sources compile in less: then the trial continues in the same step.
_PATIENCE = 0.01
_SOURCES = (".py", ".pyw")


class NextTrial(Protocol):
    """Defines the trial that starts when the sources compile."""

    def poll(self) -> Outcome | None:
        """The outcome, None while it runs. Raises OSError."""

    def cancel(self) -> None:
        """End it."""


class CompileFirst:
    """Compiles the sources among *paths* with *helper*; *then* starts the trial that follows, or raises OSError.

    A file is refused if compiling it kills the helper twice, or takes longer than *timeout* seconds.
    *about*: what is refused, for the log (see `Refusal`). For one thread;
    raises OSError where no process can be had.
    """

    def __init__(
        self, helper: Helper, paths: Iterable[str], then: Callable[[], NextTrial], timeout: float, about: str = ""
    ) -> None:
        self._helper = helper
        self._then = then
        self._timeout = timeout
        self._about = about
        self._deadline = time.monotonic() + timeout
        self._next: NextTrial | None = None
        self._refusal: Refusal | None = None
        self._crashed: set[str] = set()
        sources = sorted(path for path in paths if path.endswith(_SOURCES))
        self._requests = deque([sources] if sources else [])
        self._number = helper.compile(sources) if sources else 0

    def poll(self) -> Outcome | None:
        """The outcome, None while it runs. Raises OSError."""
        while self._next is None:
            if not self._requests:
                self._next = self._then()
            elif not self._go_on():
                if self._refusal is None:
                    return None
                return Outcome(dataclasses.replace(self._refusal, about=self._about), {}, 0.0)
        return self._next.poll()

    def cancel(self) -> None:
        """Stop the trial, with all that it has started."""
        if self._next is not None:
            self._next.cancel()
        elif self._requests:
            # The helper may hang on one of the files.
            self._helper.close()

    def _go_on(self) -> bool:
        """Handle the answer to the first request. Tells whether there is more to do at once."""
        paths = self._requests[0]
        try:
            answer = self._helper.answer(self._number, _PATIENCE)
        except HelperDied:
            self._find_the_crash(paths)
        else:
            if answer is None:
                self._look_at_the_clock(paths)
                return False
            if answer[0] is not None:
                self._refusal = Refusal(**answer[0], files=(answer[0]["path"],))
                return False
            self._requests.popleft()
        if self._refusal is None and self._requests:
            self._number = self._helper.compile(self._requests[0])
        return self._refusal is None

    def _find_the_crash(self, paths: list[str]) -> None:
        """Compile *paths*, on which the helper died, one by one; a single file is compiled once more."""
        if len(paths) > 1:
            self._requests = deque([path] for path in paths)
        elif paths[0] in self._crashed:
            self._refusal = Refusal("compiling it ends the process that compiles", paths[0], files=(paths[0],))
        self._crashed.update(paths if len(paths) == 1 else ())

    def _look_at_the_clock(self, paths: list[str]) -> None:
        if time.monotonic() > self._deadline:
            self._helper.close()
            where = paths[0] if len(paths) == 1 else None
            self._refusal = Refusal(f"it did not compile within {self._timeout:g} s", where, files=tuple(paths))
