"""The reload loop with a backend that only notes what it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edits import save

from wsgi_reload_hooks.core.log import ReloadLog
from wsgi_reload_hooks.core.settings import Settings
from wsgi_reload_hooks.reload.loop import ReloadLoop
from wsgi_reload_hooks.reload.machine import Attempt, Report
from wsgi_reload_hooks.report.callbacks import Callbacks
from wsgi_reload_hooks.report.history import History
from wsgi_reload_hooks.report.publisher import Publisher
from wsgi_reload_hooks.trial.plan import Outcome
from wsgi_reload_hooks.trial.trial import FinishedTrial
from wsgi_reload_hooks.watching.engines import engine
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.watching.scanner import Scanner
from wsgi_reload_hooks.watching.signature import Digests, known_signature


class Recorder:
    """Each trial succeeds at once, and so does each switch."""

    verb = "reloaded"

    def __init__(self) -> None:
        self.tried: list[Attempt] = []

    def start_trial(self, attempt: Attempt) -> FinishedTrial:
        self.tried.append(attempt)
        return FinishedTrial(Outcome(None, {path: known_signature(path) for path in attempt.paths}, 0.0))

    def start_switch(self, attempt: Attempt) -> None:
        pass

    def poll_switch(self, now: float) -> bool:
        return True

    def status(self) -> Mapping[str, Any]:
        return {"workers": 1}

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
        pass


def test_content_that_a_worker_reports_counts_and_not_the_signature(tmp_path: Path) -> None:
    """A file that was touched after a worker loaded it is in service as it is; one that was saved is a change."""
    path = save(tmp_path / "app.py", "old\n")
    settings = Settings(step=0.0, engine="stat")
    files, scanner, backend = Files(settings, str(tmp_path)), Scanner(), Recorder()
    log = ReloadLog(logging.getLogger(), str(tmp_path))
    publisher = Publisher(settings, log, History(root=str(tmp_path)), Callbacks(settings, log, str(tmp_path)))
    loop = ReloadLoop(backend, settings, files, scanner, log, publisher)
    loop.drive(engine(settings, files, scanner, log.warning))
    loop.watched.listed(())
    loop.machine.served()
    seen, content = known_signature(str(path)), Digests().now(str(path))
    save(path, "old\n")
    loop.loaded(str(path), seen, content=content)
    loop.step(1e9)
    assert backend.tried == []
    save(path, "new\n")
    loop.loaded(str(path), seen, content=content)
    loop.step(2e9)
    assert [attempt.paths for attempt in backend.tried] == [{str(path)}]
    loop.close()
