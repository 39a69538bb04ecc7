"""Hands a leader's state to its successor: the approved code, the last refusal, the pause and the history."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..control.service import ControlService
from ..core.refusal import Refusal
from ..reload.commands import Attempt
from ..report.history import History
from ..watching.signature import Digest, known_signature
from .notes import APPROVED, HISTORY, PAUSE, REFUSAL, Loaded, decoded, encoded, read
from .shared_state import Note, SharedState


class Handover:
    """Keeps it in *state*, where the leader before has left it. Its methods raise OSError (a full disk)."""

    def __init__(self, state: SharedState) -> None:
        self._state = state
        self._paused_until: float | None = None
        self.approved: Note | None = read(state, APPROVED)
        """The note of the code that is in service, or on its way there; None before the first start is over."""

    @property
    def approved_at(self) -> float:
        """When the trial of the approved code began (monotonic seconds), 0.0 where there is none."""
        return float(self.approved["began"]) if self.approved is not None else 0.0

    def service(self) -> Loaded:
        """The files of the approved code."""
        return {} if self.approved is None else decoded(self.approved["files"])

    def switching(self) -> Attempt | None:
        """The attempt whose switch the leader before has not finished."""
        note = self.approved
        if note is None or note["done"]:
            return None
        return Attempt(0, frozenset(note["changed"]), note.get("request"), note["asked"], False)

    def renew(self) -> None:
        """Write again what the gates of workers read, where the runtime directory was deleted."""
        if self.approved is not None:
            self._state.restore(APPROVED, self.approved)

    def approve(self, service: Mapping[str, Digest], began: float, attempt: Attempt | None = None) -> None:
        """*service* is good: the gates open. *began*: when its trial began. Without an *attempt* all workers have it."""
        files: Loaded = {path: (known_signature(path), content) for path, content in service.items()}
        self.approved = {
            "began": began,
            "asked": began if attempt is None else attempt.since,
            "files": encoded(files),
            "changed": [] if attempt is None else sorted(attempt.paths),
            "request": None if attempt is None else attempt.request,
            "done": attempt is None,
        }
        self._state.write(APPROVED, self.approved)
        self.refused(None)

    def switched(self) -> None:
        """All workers have the approved code."""
        if self.approved is not None:
            self.approved = {**self.approved, "done": True}
            self._state.write(APPROVED, self.approved)

    def refused(self, why: Refusal | None) -> None:
        """Keep the refusal that was reported, so that a successor does not report it again; None: there is none."""
        if why is None:
            self._state.remove(REFUSAL)
        else:
            self._state.write(REFUSAL, dataclasses.asdict(why))

    def refusal(self) -> Refusal | None:
        """The refusal that the leader before reported."""
        note = read(self._state, REFUSAL)
        return None if note is None else refusal_of(note)

    def restore_pause(self, control: ControlService | None) -> None:
        """Go on with the pause that the leader before had."""
        note = read(self._state, PAUSE)
        if note is not None and control is not None:
            self._paused_until = note["until"]
            control.pause(note["until"])

    def keep_pause(self, control: ControlService | None) -> None:
        """Keep the pause that *control* has."""
        until = None if control is None else control.paused_until
        before, self._paused_until = self._paused_until, until
        if until is not None:
            (self._state.restore if until == before else self._state.write)(PAUSE, {"until": until})
        elif before is not None:
            self._state.remove(PAUSE)

    def history(self) -> History:
        """What has happened so far."""
        return History.from_note(self._state.read(HISTORY))

    def keep_history(self, note: dict[str, Any]) -> None:
        """Keep what has happened so far."""
        self._state.write(HISTORY, note)


def refusal_of(note: Note) -> Refusal:
    """The refusal that a note has."""
    return Refusal(**{**note, "files": tuple(note["files"])})
