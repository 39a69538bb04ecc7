"""Keeps the counters and the last events of a server's reloads, for `status`, metrics and the next leader."""

from __future__ import annotations

import dataclasses
from typing import Any

PATHS_AT_MOST = 50
"""So many changed paths of a reload are kept."""


@dataclasses.dataclass
class History:
    """Times are seconds since the epoch, durations seconds; both are floats.

    *server* is ``gunicorn``, ``uwsgi`` or ``run``, *version* its version or ours, *root* the project's
    folder.
    """

    server: str = ""
    version: str = ""
    pid: int = 0
    root: str = ""
    started: float = 0.0
    engine: str = ""
    watched: int = 0
    workers: int = 0
    reloads: int = 0
    refusals: int = 0
    seconds: float = 0.0
    """All reloads together, each from the save to the moment it was in service."""
    last_reload: dict[str, Any] | None = None
    """``at``, ``seconds``, ``paths`` (`PATHS_AT_MOST`), ``names`` (a few of them, for people)."""
    last_refusal: dict[str, Any] | None = None
    """``at``, ``reason``, ``path``, ``line``, ``traceback``."""
    refused: bool = False
    """Whether what is on disk right now is refused."""
    paused: bool = False

    def as_note(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_note(cls, note: object) -> History:
        """What `as_note` made, perhaps in another version of this: what is missing or strange has its default."""
        record = cls()
        if isinstance(note, dict):
            for field in dataclasses.fields(cls):
                value = note.get(field.name, field.default)
                if _fits(value, field.default, _OPTIONAL.get(field.name)):
                    setattr(record, field.name, float(value) if type(field.default) is float else value)
        return record


_OPTIONAL: dict[str, type] = {"last_reload": dict, "last_refusal": dict}


def _fits(value: object, default: object, optional: type | None) -> bool:
    if default is None and value is None:
        return True
    wanted = optional or type(default)
    return type(value) is wanted or (wanted is float and type(value) is int)
