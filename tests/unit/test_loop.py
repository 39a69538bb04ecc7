"""The reload loop with a backend of a few lines: what it calls, logs and survives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from edits import save

from wsgi_reload_hooks.core.log import ReloadLog
from wsgi_reload_hooks.core.refusal import Refusal
from wsgi_reload_hooks.core.settings import Settings
from wsgi_reload_hooks.reload.commands import Attempt, Phase, Report
from wsgi_reload_hooks.reload.loop import ReloadLoop
from wsgi_reload_hooks.reload.reporter import START
from wsgi_reload_hooks.report.callbacks import Callbacks
from wsgi_reload_hooks.report.history import History
from wsgi_reload_hooks.report.publisher import Publisher
from wsgi_reload_hooks.trial.plan import Outcome
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.watching.scanner import Scanner
from wsgi_reload_hooks.watching.signature import Digests, known_signature

pytestmark = pytest.mark.unit

GOOD = Outcome(None, {}, 0.0)
BAD = Outcome(Refusal("NameError: x"), {}, 0.0)


class Lines:
    """A server's log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *arguments: object) -> None:
        self.lines.append(text % arguments if arguments else text)

    warning = error = debug = info


class Trial:
    """Ends when the test says so."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.outcome: Outcome | OSError | None = None

    def poll(self) -> Outcome | None:
        if self.outcome is not None:
            self.calls.append("poll")
        if isinstance(self.outcome, OSError):
            raise self.outcome
        return self.outcome

    def cancel(self) -> None:
        self.calls.append("cancel")


class Backend:
    """Notes its calls; `raises` is what the next trial cannot be started for."""

    verb = "reloaded"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.raises: Exception | None = None
        self.trial = Trial(self.calls)
        self.attempts: list[Attempt] = []
        self.switched = True

    def start_trial(self, attempt: Attempt) -> Trial:
        self.calls.append("start_trial")
        self.attempts.append(attempt)
        raises, self.raises = self.raises, None
        if raises is not None:
            raise raises
        self.trial = Trial(self.calls)
        return self.trial

    def start_switch(self, attempt: Attempt) -> None:
        self.calls.append("start_switch")

    def poll_switch(self, now: float) -> bool:
        self.calls.append("poll_switch")
        return self.switched

    def status(self) -> Mapping[str, Any]:
        return {"workers": 2}

    def busy(self) -> bool:
        return False

    def loaded_by(self, path: str) -> list[int]:
        return []

    def examine(self) -> dict[str, Any]:
        return {}

    def listed_files(self) -> Iterable[str]:
        return ()

    def serves(self) -> bool:
        return True

    def reported(self, report: Report) -> None:
        """Nothing besides."""


class World:
    """A project with one loaded file, its backend, loop and log."""

    def __init__(self, root: Path) -> None:
        self.path = str(save(root / "app.py", "VERSION = 1\n"))
        settings = Settings()
        self.lines = Lines()
        self.log = ReloadLog(self.lines, str(root))
        history = History("gunicorn", "", os.getpid(), str(root))
        self.backend = Backend()
        publisher = Publisher(settings, self.log, history, Callbacks(settings, self.log, str(root)))
        self.loop = ReloadLoop(self.backend, settings, Files(settings, str(root)), Scanner(), self.log, publisher)
        self.loop.loaded(self.path, known_signature(self.path))
        self.loop.machine.served()
        self.now = 100.0

    def save(self, text: str) -> None:
        save(Path(self.path), text)
        self.loop.changed({self.path}, self.now)

    def end(self, outcome: Outcome | OSError) -> None:
        self.backend.trial.outcome = outcome
        self.loop.step(self.now)

    def said(self) -> list[str]:
        """The log lines but for debug ones, without the prefix."""
        said, self.lines.lines = self.lines.lines, []
        return [line.partition("reload: ")[2] for line in said if " -> " not in line]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_changed_path_enters_the_backend_at_four_places(world: World) -> None:
    """Trial, its outcome, switch, and whether that is over."""
    world.save("VERSION = 2\n")
    world.end(GOOD)
    assert world.backend.calls == ["start_trial", "poll", "start_switch", "poll_switch"]
    assert world.said() == ["reloaded in 0.00 s: app.py; 2 workers"]


def test_request_is_named_in_the_report(world: World) -> None:
    """A HUP is served whatever the files say."""
    world.loop.request_now("HUP", world.now)
    world.end(GOOD)
    assert world.said() == ["reloaded in 0.00 s: HUP; 2 workers"]


def test_first_start_is_not_reported_as_a_reload(world: World) -> None:
    """A program that is started for the first time was not restarted."""
    world.loop.request_now(START, world.now)
    world.end(GOOD)
    assert world.said() == [] and world.loop.machine.phase is Phase.IDLE


def test_repaired_start_is_no_longer_shown_as_refused(world: World) -> None:
    """Also where no file and no request has a name for the log."""
    world.loop.request_now(START, world.now)
    world.end(BAD)
    assert world.loop.status()["refused"]
    world.loop.request_now(START, world.now)
    world.end(GOOD)
    assert not world.loop.status()["refused"]
    world.loop.retry(world.now)
    world.end(BAD)
    world.loop.retry(world.now)
    world.end(GOOD)
    assert not world.loop.status()["refused"]


def test_refusal_is_logged_once_then_still_refused_then_reverted(world: World) -> None:
    """The same fault again is one short line."""
    for expected in ("refused, still serving the previous version: NameError: x", "still refused: NameError: x"):
        world.save(f"# {expected}\n")
        world.end(BAD)
        assert world.said() == [expected]
    world.save("VERSION = 1\n")
    assert world.said() == ["app.py: change reverted, nothing to reload"]


def test_no_process_for_the_trial_is_told_once_and_retried(world: World) -> None:
    """At its start or later, it says nothing about the code."""
    world.backend.raises = OSError(11, "Resource temporarily unavailable")
    world.save("VERSION = 2\n")
    reason = "cannot start the trial process, retrying every 5 s: Resource temporarily unavailable"
    assert world.said() == [reason] and world.loop.machine.phase is Phase.TRYING
    world.loop.step(world.now + 4.9)
    assert world.backend.calls == ["start_trial"]
    world.now += 5.0
    world.loop.step(world.now)
    assert world.backend.calls == ["start_trial", "start_trial"]
    world.end(OSError(12, "Cannot allocate memory"))
    assert world.said() == []
    world.now += 5.0
    world.loop.step(world.now)
    world.end(GOOD)
    assert world.said() == ["reloaded in 10.00 s: app.py; 2 workers"]


def test_hook_that_raises_refuses_the_attempt_and_the_next_change_heals_it(world: World) -> None:
    """Nothing that the user's code raises leaves an attempt stuck."""
    world.backend.raises = RuntimeError("no number is left")
    world.save("VERSION = 2\n")
    (line, *_) = world.said()
    assert "refused" in line and "RuntimeError: no number is left" in line
    world.save("VERSION = 3\n")
    world.end(GOOD)
    assert world.said() == ["reloaded in 0.00 s: app.py; 2 workers"]


def test_save_during_a_trial_cancels_it(world: World) -> None:
    """The second one is tried, and goes into service."""
    world.save("VERSION = 2\n")
    world.save("VERSION = 3\n")
    world.end(GOOD)
    assert world.backend.calls == ["start_trial", "cancel", "start_trial", "poll", "start_switch", "poll_switch"]


def test_save_during_a_switch_is_tried_at_once_and_told_with_the_first(world: World) -> None:
    """The switch that it overtakes is not reported by itself."""
    world.backend.switched = False
    world.save("VERSION = 2\n")
    world.end(GOOD)
    world.save("VERSION = 3\n")
    world.backend.switched = True
    world.end(GOOD)
    assert world.said() == ["reloaded in 0.00 s: app.py; 2 workers"]


def test_lost_worker_that_met_a_save_first_starts_an_attempt(world: World) -> None:
    """The change is tried, and the worker's failure is not told by itself."""
    save(Path(world.path), "broken\n")
    world.loop.lost(Refusal("NameError: broken"), {world.path: b"?"}, world.now)
    assert world.backend.calls == ["start_trial"] and world.said() == []


def test_lost_worker_of_good_code_is_told_once(world: World) -> None:
    """What it met may pass by itself."""
    for _ in range(2):
        world.loop.lost(Refusal("OSError: no database"), {}, world.now)
    assert world.said() == ["a worker could not be replaced, trying again every 5 s: OSError: no database"]


def test_file_outside_the_project_that_is_gone_is_forgotten(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A module that was written, loaded and removed is no change."""
    path = save(tmp_path_factory.mktemp("elsewhere") / "made.py", "")
    world.loop.loaded(str(path), known_signature(str(path)))
    path.unlink()
    world.loop.changed({str(path)}, world.now)
    assert world.backend.calls == [] and world.loop.machine.in_service(str(path)) is None


def test_content_that_a_worker_reports_counts_and_not_the_signature(world: World, tmp_path: Path) -> None:
    """A file that was only touched after a worker loaded it is no change."""
    path = save(tmp_path / "views.py", "")
    seen, content = known_signature(str(path)), Digests().now(str(path))
    os.utime(path, (1, 1))
    world.loop.loaded(str(path), seen, content=content)
    world.loop.changed({str(path)}, world.now)
    assert world.loop.machine.in_service(str(path)) == content
    assert world.backend.calls == []
