"""Defines the reload machine's data: phases, attempts, and the commands that it returns."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..core.refusal import Refusal


class Phase(enum.Enum):
    """IDLE: what is on disk is in service. TRYING: new code is tried next to the old. SWITCHING: it takes over.
    REFUSED: it was no good; the old code serves until a repair.
    """

    IDLE = "idle"
    TRYING = "trying"
    SWITCHING = "switching"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """Describes one try to put what is on disk into service. Attempts are compared by identity.

    *request*: what asked for it (``HUP``, ``wsgi-reload``, ``start``), None: a change. *since*: when the first of its
    changes was noticed. *first*: nothing has been in service before it.
    """

    number: int
    paths: frozenset[str]
    request: str | None
    since: float
    first: bool


class News(enum.Enum):
    """Names what a `Report` is about."""

    TRYING = "trying"
    REFUSED = "refused"
    STILL_REFUSED = "still refused"
    REVERTED = "reverted"
    UNAVAILABLE = "unavailable"
    NOT_REPLACED = "not replaced"
    RELOADED = "reloaded"


@dataclass(frozen=True, slots=True)
class StartTrial:
    """Try *attempt* next to what serves; the answer is `passed`, `failed` or `unavailable`."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class CancelTrial:
    """End the trial of *attempt*; its result would be ignored."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Switch:
    """Put *attempt* into service; the answer is `switched`."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Report:
    """Report news to the user. *paths*: the files concerned; *seconds*: from the save to the switch."""

    news: News
    attempt: Attempt | None
    paths: frozenset[str]
    why: Refusal | None = None
    seconds: float = 0.0


Command = StartTrial | CancelTrial | Switch | Report
