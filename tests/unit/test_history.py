"""The record of what happened, as it is handed on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wsgi_reload_hooks.report.history import History

pytestmark = pytest.mark.unit

FULL = History(
    server="uwsgi",
    version="2.0.31",
    pid=7,
    root="/srv/shop",
    started=1.5,
    engine="stat",
    watched=12,
    workers=4,
    reloads=3,
    refusals=2,
    seconds=4.5,
    last_reload={"at": 2.5, "seconds": 1.5, "paths": ["/srv/shop/app.py"], "names": "app.py"},
    last_refusal={"at": 2.0, "reason": "no", "path": None, "line": None, "traceback": ""},
    refused=True,
    paused=True,
)


@pytest.mark.parametrize("record", [History(), FULL])
def test_a_note_is_the_record(record: History) -> None:
    """What is written down as JSON is read again as it was."""
    assert History.from_note(json.loads(json.dumps(record.as_note()))) == record


@pytest.mark.parametrize("note", [None, [], "x", {}, {"no such": 1}])
def test_nothing_known_is_a_fresh_record(note: Any) -> None:
    """What is missing or unknown has its default."""
    assert History.from_note(note) == History()


def test_strange_values_have_their_defaults() -> None:
    """A value of another type is not taken; a whole number is a duration, too."""
    note = {**FULL.as_note(), "pid": "7", "reloads": None, "refused": 1, "last_reload": []}
    record = History.from_note({**note, "seconds": 4})
    assert (record.pid, record.reloads, record.refused, record.last_reload) == (0, 0, False, None)
    assert record.seconds == 4.0 and record.server == "uwsgi" and record.last_refusal == FULL.last_refusal
