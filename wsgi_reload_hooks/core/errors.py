"""Errors of commands: one line for the user, and the exit code."""

from __future__ import annotations

ERROR = 1

USAGE = 2


class Failure(Exception):
    """A command cannot go on: the text is one line that says why and what to do. *status*: its exit code."""

    def __init__(self, text: str, status: int = ERROR) -> None:
        super().__init__(" ".join(text.split("\n")))
        self.status = status
