"""Lines of the log: text for people, and the same as JSON for programs."""

from __future__ import annotations

import datetime
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from wsgi_reload_hooks.core.log import BROKEN_START, NOT_REPLACED, REFUSED, ReloadLog
from wsgi_reload_hooks.core.refusal import Refusal
from wsgi_reload_hooks.core.streams import Console
from wsgi_reload_hooks.uwsgi.server import Log as UwsgiLog

pytestmark = pytest.mark.unit

LOGS = [Console(verbose=True), UwsgiLog()]


def journal(log: Any, root: Path, json: bool = True) -> ReloadLog:
    return ReloadLog(log, str(root), json)


def refused(root: Path) -> Refusal:
    return Refusal("NameError: name 'x'", str(root / "app.py"), 3, 'File "app.py"\n  x = 100%', ("app.py",))


def say_all(journal: ReloadLog, root: Path) -> None:
    """One line of each kind."""
    journal.info("reloaded in %.2f s: %s", 1.5, "100%", event="reloaded", seconds=1.5, files=["a.py"], workers=4)
    journal.info("100% sure")
    journal.warning("a %s", "line\nbreak")
    journal.failure("it raised", ValueError("no\ngood"))
    journal.refusal(REFUSED, refused(root))
    journal.refusal(BROKEN_START, Refusal("gone"))
    journal.refusal(NOT_REPLACED, Refusal("gone"))


@pytest.mark.parametrize("log", LOGS)
def test_each_line_is_an_object(log: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With JSON each line that is written is one object: time, level, event, message, and what programs need."""
    began = time.time()
    say_all(journal(log, tmp_path), tmp_path)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    for line in lines:
        assert line["at"].endswith("Z") and len(line["at"]) == len("2026-11-21T14:02:11.123Z")
        at = datetime.datetime.fromisoformat(line.pop("at").replace("Z", "+00:00")).timestamp()
        assert began - 0.001 <= at <= time.time()
    good, sure, warning, failure, bad, start, other = lines
    assert good == {
        "level": "info",
        "event": "reloaded",
        "message": "reloaded in 1.50 s: 100%",
        "seconds": 1.5,
        "files": ["a.py"],
        "workers": 4,
    }
    assert sure == {"level": "info", "event": "info", "message": "100% sure"}
    assert warning == {"level": "warning", "event": "warning", "message": "a line\nbreak"}
    assert (failure["level"], failure["event"], failure["message"]) == ("error", "failure", "it raised")
    assert failure["traceback"].endswith("ValueError: no\ngood")
    assert bad == {
        "level": "error",
        "event": "refused",
        "message": "refused, still serving the previous version: app.py, line 3: NameError: name 'x'",
        "reason": "NameError: name 'x'",
        "path": str(tmp_path / "app.py"),
        "line": 3,
        "traceback": 'File "app.py"\n  x = 100%',
    }
    assert (start["event"], start["path"], start["line"]) == ("broken_start", None, None)
    assert other["event"] == "not_replaced"


@pytest.mark.parametrize("log", LOGS)
def test_text_is_as_ever(log: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without JSON there are lines of text, with the traceback below a refusal and a failure."""
    say_all(journal(log, tmp_path, json=False), tmp_path)
    text = capfd.readouterr().err
    assert "[INFO] reload: reloaded in 1.50 s: 100%\n" in text
    assert "[INFO] reload: 100% sure\n" in text
    assert "[ERROR] reload: it raised\nValueError: no\ngood\n" in text
    place = "app.py, line 3: NameError: name 'x'\n  File \"app.py\"\n    x = 100%\n"
    assert f"[ERROR] reload: refused, still serving the previous version: {place}" in text


def test_a_log_that_knows_no_json_gets_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A logger of the user's writes the line as text, its own time and level before it."""
    with caplog.at_level(logging.DEBUG):
        say_all(journal(logging.getLogger("theirs"), tmp_path), tmp_path)
        journal(logging.getLogger("theirs"), tmp_path).debug("setting %s", "x")
    assert caplog.messages[0] == "reload: reloaded in 1.50 s: 100%"
    assert caplog.messages[-1] == "reload: setting x"
    assert "NameError: name 'x'\n  File \"app.py\"\n    x = 100%" in caplog.text and "ValueError: no" in caplog.text


def test_names_that_are_no_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file name that cannot be decoded is no reason to lose the line."""
    name = str(tmp_path / "a\udcff.py")
    journal(Console(), tmp_path).refusal(REFUSED, Refusal("gone", name))
    assert json.loads(capfd.readouterr().err)["path"] == name
