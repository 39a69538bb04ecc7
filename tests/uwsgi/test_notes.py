"""What workers write down for each other: a damaged note counts as none."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.fuzz import mutations

from wsgi_reload_hooks.core.refusal import Refusal
from wsgi_reload_hooks.uwsgi import notes
from wsgi_reload_hooks.uwsgi.shared_state import SharedState
from wsgi_reload_hooks.watching.signature import MISSING, Signature

pytestmark = pytest.mark.unit

FILES = notes.encoded({"/srv/app.py": (Signature(1, 2, 3), b"\1\2"), "/srv/gone.py": (None, MISSING)})
REFUSAL = dataclasses.asdict(Refusal("NameError: x", "/srv/app.py", 3, "Traceback ...", ("/srv/app.py",)))
WORKER: dict[str, Any] = {
    "pid": 1,
    "began": 1.5,
    "held": False,
    "loaded": True,
    "inherited": ["/srv/early.py"],
    "assets": {"since": 2.0, "folders": {"translations": ["/srv/locale"]}},
    "files": FILES,
}
NOTES: dict[str, dict[str, Any]] = {
    notes.worker_note(3): WORKER,
    notes.APPROVED: {
        "began": 1.0,
        "asked": 1.0,
        "files": FILES,
        "changed": ["/srv/app.py"],
        "request": None,
        "done": True,
    },
    notes.LOAD_FAILURE: {"at": 3.5, "why": REFUSAL, "files": {}},
    notes.REFUSAL: REFUSAL,
    notes.PAUSE: {"until": 0.0},
    notes.RESPAWNS: {"total": 3, "row": 1, "at": 1.0},
}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedState]:
    """That of this process."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    found = SharedState(os.getpid())
    yield found
    found.clear()


@pytest.mark.parametrize("name", NOTES)
def test_what_is_written_is_read(name: str, state: SharedState) -> None:
    """Each note comes back, lists as tuples."""
    state.write(name, NOTES[name])
    found = notes.read(state, name)
    assert json.dumps(found, sort_keys=True) == json.dumps(NOTES[name], sort_keys=True)
    if found is not None and "files" in found and name != notes.REFUSAL:
        assert notes.encoded(notes.decoded(found["files"])) == notes.encoded(notes.decoded(NOTES[name]["files"]))


def test_a_note_of_another_version_is_none(state: SharedState) -> None:
    """Nobody guesses what it means."""
    state.write(notes.PAUSE, NOTES[notes.PAUSE])
    path = Path(state.place(notes.PAUSE))
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    assert notes.read(state, notes.PAUSE) is None


def test_a_pipe_in_the_place_of_a_note_blocks_nobody(state: SharedState) -> None:
    """What is no regular file is no note."""
    os.mkfifo(state.place(notes.PAUSE))
    assert notes.read(state, notes.PAUSE) is None


def test_damaged_notes(state: SharedState) -> None:
    """Whatever stands there: it is read without an error, as none or as something that the code can rely on."""
    damaged = 0
    for name, note in NOTES.items():
        for data in mutations([json.dumps({**note, "version": 1}).encode()], count=200):
            Path(state.place(name)).write_bytes(data)
            found = notes.read(state, name)
            damaged += found is None
            if found is not None:
                assert found.keys() == note.keys()
                notes.decoded(found["files"] if isinstance(found.get("files"), dict) else {})
    assert damaged > 200
