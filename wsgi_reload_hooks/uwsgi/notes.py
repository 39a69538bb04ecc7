"""Reads and writes the notes in a server's `SharedState`: their names, and the form of loaded files in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..watching.signature import Digest, Signature
from .server import Slot
from .shared_state import Note, SharedState, Stamp

APPROVED = "approved"
"""The code that was tried last and is good: ``began`` (the trial), ``files``, ``changed``, ``request``, ``done``."""
LOAD_FAILURE = "load-failure"
"""Code that did not load in a worker though its gate was open: ``at``, ``why``, ``files``."""
REFUSAL = "refusal"
"""What was reported as refused last."""
PAUSE = "pause"
"""``until``: when the pause ends."""
HISTORY = "history"
COUNTERS = "counters"
"""The file by which workers notice that they are to forget translations and templates; no note."""

Loaded = dict[str, tuple[Signature | None, Digest]]
"""Path to the signature before it was loaded, and to the content."""


def worker_note(number: int) -> str:
    """The name of a worker's own note: ``pid``, ``began``, ``held``, ``loaded``, ``inherited``, ``assets``, ``files``."""
    return f"worker-{number}"


def exit_request_name(number: int) -> str:
    """The name of the pipe by which a worker is asked to exit."""
    return f"exit-{number}"


def encoded(files: Loaded) -> dict[str, Any]:
    """*files* in the form of a note."""
    return {path: [seen, content.hex()] for path, (seen, content) in files.items()}


def decoded(files: dict[str, Any]) -> Loaded:
    """The files of a note."""
    return {
        path: (None if seen is None else Signature(*seen), bytes.fromhex(content))
        for path, (seen, content) in files.items()
    }


class WorkerNotes:
    """Reads the notes of the workers when they change. For one thread, the leader's."""

    def __init__(self, state: SharedState) -> None:
        self._state = state
        self._read: dict[str, tuple[Stamp, Note | None]] = {}
        self._load_failure: Stamp = None
        self.waiting = False
        """Whether a worker waits for good code, or there is none at all: then the master itself waits."""

    @property
    def by_pid(self) -> dict[int, Note]:
        """The last note of each worker."""
        return {note["pid"]: note for _, note in self._read.values() if note is not None}

    def read(self, slots: Sequence[Slot], changed: Callable[[int, Note], object]) -> None:
        """Read the notes of the workers in *slots*; *changed* is called with a worker's number and each new note."""
        self.waiting = not slots
        for slot in slots:
            name = worker_note(slot.number)
            stamp = self._state.stamp(name)
            if name not in self._read or self._read[name][0] != stamp:
                note = self._state.read(name)
                self._read[name] = stamp, note
                if note is not None and note["pid"] == slot.pid:
                    changed(slot.number, note)
            note = self._read[name][1]
            self.waiting = self.waiting or bool(note and note["pid"] == slot.pid and note["held"])

    def load_failure(self) -> Note | None:
        """The note of a load failure, if it is another one than at the last call."""
        stamp = self._state.stamp(LOAD_FAILURE)
        if stamp == self._load_failure:
            return None
        self._load_failure = stamp
        return self._state.read(LOAD_FAILURE)
