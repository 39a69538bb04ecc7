"""What one uWSGI worker writes down for the others."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from wsgi_reload_hooks.core.log import ReloadLog
from wsgi_reload_hooks.core.refusal import Refusal
from wsgi_reload_hooks.core.settings import Settings
from wsgi_reload_hooks.uwsgi.notes import APPROVED, encoded, worker_note
from wsgi_reload_hooks.uwsgi.shared_state import SharedState
from wsgi_reload_hooks.uwsgi.worker import Worker
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.watching.signature import MISSING

pytestmark = pytest.mark.unit


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedState:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    return SharedState(os.getpid())


@pytest.fixture
def station(ledger: SharedState) -> Worker:
    files = Files(Settings())
    return Worker(2, files, ledger, (), ReloadLog(logging.getLogger(), files.root))


def approved(path: Path) -> dict[str, object]:
    """*path* does not exist in what was approved."""
    files = encoded({str(path): (None, MISSING)})
    return {"began": 1.0, "asked": 1.0, "files": files, "changed": [], "request": None, "done": True}


def test_a_held_worker_is_held_whatever_else_it_tells(station: Worker, ledger: SharedState, tmp_path: Path) -> None:
    """The thread that watches writes down what is new while the main thread waits: still held, then no longer."""
    changed = tmp_path / "app.py"
    changed.write_text("")
    ledger.write(APPROVED, approved(changed))
    seen = []

    def look() -> float:
        station.mark_loaded()
        station.publish()
        seen.append(note(ledger)["held"])
        changed.unlink()
        return 0.0

    station.pass_gate(look)
    assert seen == [True]
    station.set_number(2)
    assert note(ledger)["held"] is False


def test_a_worker_in_trouble_is_held_until_it_is_another_one(station: Worker, ledger: SharedState) -> None:
    """What it loads while it ends does not make it one to count on."""
    station.report_load_failure(Refusal("no"))
    station.mark_loaded()
    station.publish()
    assert note(ledger)["held"] is True


def note(ledger: SharedState) -> dict[str, object]:
    found = ledger.read(worker_note(2))
    assert found is not None
    return found
