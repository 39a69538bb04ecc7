"""The gate that each lazy worker passes before it loads the application: it waits while the disk is not what was approved.

Workers load from the disk, which may have changed since the trial. Moved here as a whole: it ends with generations.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..watching.signature import UNKNOWN, Digests, known_signature
from .notes import APPROVED, LOAD_FAILURE, Loaded, decoded, read
from .shared_state import Note, SharedState


def differing(files: Loaded, digests: Digests) -> list[str]:
    """Which of *files* have another content on disk by now."""
    return [
        path
        for path, (found, digest) in files.items()
        if (found is None or known_signature(path) != found) and digests.now(path) != digest
    ]


def is_behind(note: Note, approved: Note) -> bool:
    """Whether the worker of this *note* loaded something else than what was *approved*."""
    if note["held"] or note["began"] >= approved["began"]:
        return False
    if approved.get("request"):
        return True
    loaded, good = decoded(note["files"]), decoded(approved["files"])
    # A trial does not load what requests import: of that, only what is younger has the new text for sure.
    if any(path not in loaded or path not in good for path in approved["changed"]):
        return True
    return any((path in good and good[path][1] != digest) or digest == UNKNOWN for path, (_, digest) in loaded.items())


class Gate:
    """Of one worker, or of the master where that loads the application."""

    def __init__(self, state: SharedState, digests: Digests) -> None:
        self._state = state
        self._digests = digests

    def pass_through(self, waits: Callable[[], object], held: Callable[[], float]) -> Note | None:
        """Wait until what is on disk is what was approved, or nothing was approved yet; the note of what was.

        *waits* is called once if there is anything to wait for; *held* while there is, and returns the seconds until the
        next look.
        """
        if self.must_wait():
            waits()
            while self.must_wait():
                time.sleep(held())
        return read(self._state, APPROVED)

    def must_wait(self) -> bool:
        """Whether what is on disk is not known to load."""
        approved, failure = read(self._state, APPROVED), read(self._state, LOAD_FAILURE)
        approved_at = approved["began"] if approved is not None else 0.0
        if failure is not None and failure["at"] > approved_at:
            return True
        return approved is not None and bool(differing(decoded(approved["files"]), self._digests))
