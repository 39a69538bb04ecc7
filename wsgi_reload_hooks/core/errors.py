"""Defines `Failure`, the error that ends a command: one line for the user, and the exit code."""

from __future__ import annotations

ERROR = 1

USAGE = 2


class Failure(Exception):
    """Ends a command. The text is one line that says why and what to do; *status* is the command's exit code."""

    def __init__(self, text: str, status: int = ERROR) -> None:
        super().__init__(" ".join(text.split("\n")))
        self.status = status
