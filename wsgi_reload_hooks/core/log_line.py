"""Defines `Line`, a line of the log that is text for people and one JSON object for programs."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping


class Line(str):
    """Holds the *text* that people read, and the same line as JSON; the log that writes it chooses one of the two.

    *event*: one word for programs. *message*: the text without prefix and traceback. *fields*: what programs would
    otherwise have to parse out of the text.
    """

    level: str
    event: str
    message: str
    fields: Mapping[str, object]
    at: float

    def __new__(cls, text: str, level: str, event: str, message: str, fields: Mapping[str, object]) -> Line:
        line = super().__new__(cls, text)
        line.level, line.event, line.message, line.fields = level, event, message, fields
        line.at = time.time()
        return line

    def json(self) -> str:
        """Return the line as one JSON object, without a line break."""
        at = datetime.datetime.fromtimestamp(self.at, datetime.timezone.utc).isoformat(timespec="milliseconds")
        said = {"at": at.replace("+00:00", "Z"), "level": self.level, "event": self.event, "message": self.message}
        return json.dumps({**said, **self.fields}, default=str)
