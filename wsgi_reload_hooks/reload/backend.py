"""What an adapter implements: the `Backend` of a reload loop, and the trials that it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ..control.channel import Message
from ..trial.plan import Outcome
from .machine import Attempt, Report


class Trial(Protocol):
    """New code being tried next to the code that serves."""

    def poll(self) -> Outcome | None:
        """The outcome, None while it runs. Raises OSError where it cannot be tried."""

    def cancel(self) -> None:
        """End it, with all that it has started. May be called at any time, and again."""


class Backend(Protocol):
    """What differs from server to server. All methods are called by the thread that decides, and do not wait."""

    verb: str
    """How a switch is reported: ``reloaded``, ``restarted``; nothing where the backend reports it by itself."""

    def start_trial(self, attempt: Attempt) -> Trial:
        """Begin to try *attempt*. Raises OSError where that cannot be done: this says nothing about the code."""

    def start_switch(self, attempt: Attempt) -> None:
        """*attempt* is good: begin to put it into service."""

    def poll_switch(self, now: float) -> bool:
        """Go on with the switch. Whether the attempt is in service everywhere."""

    def status(self) -> Mapping[str, Any]:
        """What `wsgi-reload status` shows of this server besides its history: ``pids``, ``workers``, ``engine``."""

    def busy(self) -> bool:
        """Whether old workers may still take requests."""

    def loaded_by(self, path: str) -> list[int]:
        """The pids of the workers that have loaded *path*."""

    def examine(self) -> Message:
        """``findings`` about the server's own options, and the ``application`` that they name; JSON."""

    def listed_files(self) -> Iterable[str]:
        """Files that count without being loaded or listed by the user: configurations, the script itself."""

    def serves(self) -> bool:
        """Whether something serves while a refusal is reported."""

    def reported(self, report: Report) -> None:
        """*report* is in the log; what the backend does besides."""
