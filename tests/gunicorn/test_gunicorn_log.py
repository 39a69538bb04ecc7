"""JSON lines through gunicorn's own logger, in this process."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wsgi_reload_hooks.core.log import REFUSED, ReloadLog
from wsgi_reload_hooks.core.refusal import Refusal
from wsgi_reload_hooks.gunicorn.log import GunicornLog

pytestmark = pytest.mark.unit

glogging = pytest.importorskip("gunicorn.glogging")
config = pytest.importorskip("gunicorn.config")


@pytest.fixture(autouse=True)
def fresh_loggers() -> Iterator[None]:
    """gunicorn's loggers are the process's: leave them as they were."""
    yield
    for name in ("gunicorn.error", "gunicorn.access"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True


def made(tmp_path: Path, json: bool = True, **settings: Any) -> tuple[Any, ReloadLog]:
    """gunicorn's logger with these *settings* of gunicorn's, and a journal that writes to it."""
    cfg = config.Config()
    for name, value in settings.items():
        cfg.set(name, value)
    log = glogging.Logger(cfg)
    return log, ReloadLog(GunicornLog(log), str(tmp_path), json)


def say(journal: ReloadLog) -> None:
    journal.info("reloaded in %.2f s: %s", 1.5, "100%", event="reloaded", workers=4)
    journal.refusal(REFUSED, Refusal("NameError", None, None, "a\nb"))
    journal.failure("it raised", ValueError("no\ngood"))


EVENTS = ["reloaded", "refused", "failure"]


def test_our_lines_are_whole_and_theirs_as_ever(tmp_path: Path) -> None:
    """In a log file of gunicorn's our lines are objects and nothing else, also after its configuration was loaded anew."""
    path = tmp_path / "error.log"
    log, journal = made(tmp_path, errorlog=str(path))
    for _ in range(2):
        log.info("theirs %s", "100%")
        say(journal)
        for handler in log.error_log.handlers:
            # gunicorn forgets it, open.
            handler.close()
        log.setup(log.cfg)
    theirs: list[str] = []
    ours: list[str] = []
    for line in path.read_text().splitlines():
        (ours if line.startswith("{") else theirs).append(line)
    assert [json.loads(line)["event"] for line in ours] == EVENTS * 2
    assert [line.rpartition("] ")[0].count("[") for line in theirs] == [3, 3]


def test_text_goes_through(tmp_path: Path) -> None:
    """Without JSON gunicorn formats our lines as its own."""
    path = tmp_path / "error.log"
    _, journal = made(tmp_path, json=False, errorlog=str(path))
    say(journal)
    text = path.read_text()
    assert f"[{os.getpid()}] [INFO] reload: reloaded in 1.50 s: 100%\n" in text
    assert "[ERROR] reload: it raised\nValueError: no\ngood\n" in text


class Keeping(logging.Handler):
    """A handler of the user's."""

    def emit(self, record: logging.LogRecord) -> None:
        vars(self).setdefault("records", []).append(record)


def test_a_formatter_of_the_users_gets_the_fields(tmp_path: Path) -> None:
    """What a logconfig sets up is left alone: it gets text, with our fields as attributes of the record."""
    log, journal = made(tmp_path)
    handler = Keeping()
    for each in list(log.error_log.handlers):
        log.error_log.removeHandler(each)
    log.error_log.addHandler(handler)
    say(journal)
    good, bad, failure = vars(handler)["records"]
    assert good.getMessage() == "reload: reloaded in 1.50 s: 100%"
    assert (good.event, good.workers, good.levelname) == ("reloaded", 4, "INFO")
    assert bad.traceback == "a\nb" and bad.event == "refused"
    assert failure.exc_info is not None and str(failure.exc_info[1]) == "no\ngood"


def test_a_logger_class_of_the_users(tmp_path: Path) -> None:
    """One that is none of gunicorn's gets text."""

    class Theirs:
        def __init__(self) -> None:
            self.lines: list[str] = []

        def info(self, text: str, *arguments: object) -> None:
            self.lines.append(text % arguments if arguments else text)

    theirs = Theirs()
    ReloadLog(GunicornLog(theirs), str(tmp_path), json=True).info("%d %%", 5)
    assert theirs.lines == ["reload: 5 %"]
