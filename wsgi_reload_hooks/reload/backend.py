"""Defines what an adapter implements: the `Backend` of a reload loop, and the trials that it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ..control.channel import Message
from ..trial.plan import Outcome
from .commands import Attempt, Report


class Trial(Protocol):
    """New code being tried next to the code that serves."""

    def poll(self) -> Outcome | None:
        """The outcome, None while it runs. Raises OSError where it cannot be tried."""

    def cancel(self) -> None:
        """End it, with all that it has started. May be called at any time, and again."""


class Backend(Protocol):
    """Defines what differs between servers. The reload loop's thread calls all methods; none of them waits."""

    verb: str
    """How a switch is reported: ``reloaded``, ``restarted``; nothing where the backend reports it by itself."""

    def start_trial(self, attempt: Attempt) -> Trial:
        """Start a trial of *attempt*. Raises OSError if none can be started: this says nothing about the code."""

    def start_switch(self, attempt: Attempt) -> None:
        """Begin to put *attempt*, whose trial was good, into service."""

    def poll_switch(self, now: float) -> bool:
        """Continue the switch. Tells whether the attempt is in service everywhere."""

    def status(self) -> Mapping[str, Any]:
        """What `wsgi-reload status` shows of this server besides its history: ``pids``, ``workers``, ``engine``."""

    def busy(self) -> bool:
        """Tell whether old workers may still take requests."""

    def loaded_by(self, path: str) -> list[int]:
        """Return the pids of the workers that have loaded *path*."""

    def examine(self) -> Message:
        """``findings`` about the server's own options, and the ``application`` that they name; JSON."""

    def listed_files(self) -> Iterable[str]:
        """Files that count without being loaded or listed by the user: configurations, the script itself."""

    def serves(self) -> bool:
        """Tell whether old code serves while a refusal is reported."""

    def reported(self, report: Report) -> None:
        """Do what the backend does after *report* was logged."""
