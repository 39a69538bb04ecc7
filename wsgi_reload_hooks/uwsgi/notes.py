"""Reads and writes the notes in a server's `SharedState`: their names, their schemas, and loaded files in them.

All processes of a server are of one user: the schemas keep damage out, no enemy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.message import Check, Malformed, Schema, boolean, fields, integer, listed, mapping, number, optional, text
from ..core.message import row as row_of
from ..process.counters import KINDS
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
RESPAWNS = "respawns"
"""How many workers the master has forked again: ``total``, ``row`` (of them in a row), ``at``."""
COUNTERS = "counters"
"""The file by which workers notice that they are to forget translations and templates; no note."""

Loaded = dict[str, tuple[Signature | None, Digest]]
"""Path to the signature before it was loaded, and to the content."""


_AT_MOST = 1_000_000


def _digest(value: object) -> str:
    try:
        return bytes.fromhex(str(value)).hex()
    except ValueError:
        raise Malformed("no digest") from None


_PATHS = listed(text(), _AT_MOST)
_SIGNATURE = row_of(integer(-(2**63)), integer(), integer(0, 2**64 - 1))
_FILES = mapping(text(), row_of(optional(_SIGNATURE), _digest), _AT_MOST)
_REFUSAL: Schema = {
    "reason": text(),
    "path": optional(text()),
    "line": optional(integer()),
    "traceback": text(),
    "files": _PATHS,
    "about": text(),
}
_ASSETS: Schema = {"since": number, "folders": mapping(text(), _PATHS, len(KINDS))}
_WORKER: Schema = {
    # In a container the master may have number 1.
    "pid": integer(1, 2**31 - 1),
    "began": number,
    "held": boolean,
    "loaded": boolean,
    "inherited": _PATHS,
    "assets": lambda value: {} if value == {} else fields(_ASSETS)(value),
    "files": _FILES,
}
_CHECKS: dict[str, Check] = {
    APPROVED: fields(
        {
            "began": number,
            "asked": number,
            "files": _FILES,
            "changed": _PATHS,
            "request": optional(text()),
            "done": boolean,
        }
    ),
    LOAD_FAILURE: fields({"at": number, "why": fields(_REFUSAL), "files": _FILES}),
    REFUSAL: fields(_REFUSAL),
    PAUSE: fields({"until": number}),
    RESPAWNS: fields({"total": integer(), "row": integer(), "at": number}),
}


def read(state: SharedState, name: str) -> Note | None:
    """The note of that *name* in *state*, checked; None where there is none, or it is damaged. Lists are tuples."""
    note = state.read(name)
    try:
        return None if note is None else _CHECKS.get(name, fields(_WORKER))(note)
    except Malformed:
        return None


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
                note = read(self._state, name)
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
        return read(self._state, LOAD_FAILURE)
