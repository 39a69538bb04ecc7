"""uWSGI under lazy-apps: an application registers signals (timers, cron jobs), and a save replaces its workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import HAVE_UWSGI, Project, Uwsgi, patterns, wait_until
from harness.waiting import quietly

pytestmark = [pytest.mark.field, pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")]

DEAD_OR_WRONG = r"DAMN ! worker \d+|error managing signal"
RAISED = 20

dangling = pytest.mark.xfail(
    strict=True,
    reason="uWSGI's table of signals outlives a worker: the next one calls what is at the address of the old handler",
)


class Signals:
    """The running application of `tests/apps/uwsgi_signals`."""

    def __init__(self, server: Uwsgi) -> None:
        self._server = server

    def raise_all(self, version: str) -> None:
        """Raise all registered signals, until *version* has answered some, or something is wrong."""

        def enough() -> bool:
            quietly(lambda: self._server.ask("/raise"))
            return self._calls().count(version) > RAISED or bool(self.trouble())

        wait_until(enough, f"{version} answers signals")

    def trouble(self) -> list[str]:
        """What was called instead of a handler, and what uWSGI says about it."""
        wrong = [call for call in self._calls() if call not in ("v1", "v2")]
        return wrong + [found[0] for found in patterns.find(DEAD_OR_WRONG, self._server.log)]

    def _calls(self) -> list[str]:
        calls = self._server.project.root / "calls"
        return calls.read_text().split() if calls.exists() else []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("timer", "timer", marks=dangling),
        pytest.param("timer of all workers", "timer of all workers", marks=dangling),
        pytest.param("cron", "cron", marks=dangling),
        pytest.param("signal", "signal", marks=dangling),
        # The new handler replaces the old one, which has the same number.
        ("signal 7", "signal 7"),
        # The new code registers the number of the old handler no more.
        pytest.param("timer", "signal 7", marks=dangling),
        pytest.param("signal 7", "signal", marks=dangling),
    ],
)
def test_signals_reach_only_handlers_of_the_new_code(before: str, after: str, tmp_path: Path) -> None:
    """In a replaced worker a signal calls the handler of the new code or nothing, and no worker dies of it."""
    project = Project(tmp_path / "project")
    project.copy("uwsgi_signals")
    project.edit("app.py", '"v1", "none", 0', f'"v1", "{before}", 0')
    with Uwsgi(project, workers=2) as server:
        signals = Signals(server)
        server.wait_for_log(patterns.WATCHING)
        signals.raise_all("v1")
        assert signals.trouble() == []
        project.edit("app.py", f'"v1", "{before}", 0', f'"v2", "{after}", 20_000')
        server.wait_for_version("v2")
        signals.raise_all("v2")
        assert signals.trouble() == []
