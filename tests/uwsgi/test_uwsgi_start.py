"""The start of uWSGI: broken code, wrong set-ups, wrong settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from harness import HAVE_UWSGI, Project, Uwsgi, holds, patterns, wait_until

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")

SET_UPS: dict[str, tuple[bool, Sequence[str]]] = {
    "lazy": (True, ()),
    "lazy, need-app": (True, ("--need-app",)),
    "not lazy": (False, ()),
}
NO_TRACEBACK_OF_OURS = r"File \".*/wsgi_reload_hooks/"
TOLD = patterns.OURS + r".*"


def told(server: Uwsgi) -> list[str]:
    """The lines of the hooks."""
    return [found.group() for found in patterns.find(TOLD, server.log)]


@pytest.mark.parametrize("set_up", SET_UPS)
@pytest.mark.parametrize(
    "cause",
    [
        pytest.param("undefined_name", marks=pytest.mark.adapters),
        "import sys; sys.exit(3)",
        pytest.param("os._exit(3)", marks=pytest.mark.matrix),
    ],
)
def test_broken_at_the_start_waits_for_the_repair(cause: str, set_up: str, project: Project) -> None:
    """Broken code at the start: one report, no respawn after respawn, and it comes to life by the repair."""
    lazy, options = SET_UPS[set_up]
    if not lazy and cause != "undefined_name":
        pytest.skip("the master itself loads it, and ends")
    project.broken(top=cause)
    with Uwsgi(project, *options, workers=2, lazy=lazy, wait=False) as server:
        server.wait_log(patterns.WAITING_FOR_REPAIR)
        holds(lambda: not server.exited(), "the server lives", seconds=0.5)
        assert server.count(patterns.UWSGI_WORKER) <= 8
        project.release()
        server.wait_until_ready_with(project.version)
        assert server.count(patterns.WAITING_FOR_REPAIR) == 1
        server.wait_for_workers(2)
        server.wait_log(patterns.RELOADED)
        project.release()
        server.wait_for_version(project.version)
        server.wait_log(patterns.RELOADED, 2)
        assert server.count(NO_TRACEBACK_OF_OURS) == 0


@pytest.mark.adapters
def test_the_application_file_may_come_later(project: Project) -> None:
    """Started before `app.py` exists, the server serves it when it appears."""
    (project.root / "app.py").unlink()
    with Uwsgi(project, workers=2, wait=False) as server:
        server.wait_log(patterns.WAITING_FOR_REPAIR)
        project.release()
        server.wait_until_ready_with(project.version)
        server.wait_for_workers(2)
        server.wait_log(patterns.RELOADED)


WRONG: dict[str, tuple[Mapping[str, object], Sequence[str], str]] = {
    "no master": ({"master": False, "workers": 0}, (), r"disabled: uWSGI runs without a master process; add --master"),
    "one worker": ({"workers": 1}, (), r"one worker: .*add processes"),
    "not lazy": ({"lazy": False}, (), r"lazy-apps is off: .*everybody waits for it; add lazy-apps"),
    "not lazy, router": ({"lazy": False, "router": True}, (), r"lazy-apps is off: .*router are lost; add lazy-apps"),
    "py-autoreload": ({}, ("--py-autoreload", "60"), r"py-autoreload is on, too: .*remove it"),
    "touch-reload": ({}, ("--touch-reload", "app.py"), r"touch-reload is on, too: .*remove it"),
    "a mule": ({}, ("--mule",), r"mules?: not rolled"),
    "a bad setting": ({"environment": {"WSGI_RELOAD_INTERVAL": "x"}}, (), r".*interval.*saves are not served"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_set_up_is_told_in_one_line(wrong: str, project: Project) -> None:
    """What will bite is told once, in one line, with what to do; the application is served all the same."""
    keywords, options, line = WRONG[wrong]
    # What each of them needs differs too much to be told to mypy.
    with Uwsgi(project, *options, **{"workers": 2, **keywords}) as server:  # type: ignore[arg-type]
        server.wait_log("(?i)" + patterns.OURS + line)
        assert server.version() == project.version
        problems = [text for text in told(server) if "watching" not in text]
        if wrong == "a bad setting":
            # Each lazy worker reads its settings.
            assert 1 <= len(problems) <= 2, problems
        else:
            assert len(problems) == 1, problems
        assert server.count("Traceback") == 0
        assert server.count(patterns.UWSGI_WORKER) <= 2


def test_a_target_that_cannot_be_found_is_told(project: Project) -> None:
    """No application to be found in the options: one line, no traceback."""
    with Uwsgi(project, workers=2, target=(), wait=False) as server:
        wait_until(lambda: told(server), "a line")
        wait_until(lambda: server.count(patterns.UWSGI_WORKER) == 2, "two workers")
        assert server.count("Traceback") == 0
        holds(lambda: not server.exited(), "the server lives", seconds=0.3)
        assert server.count(patterns.UWSGI_WORKER) == 2


@pytest.mark.adapters
@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "not lazy"])
def test_disabled_leaves_uwsgi_as_it_is(lazy: bool, project: Project) -> None:
    """With enabled = false nothing is told, watched or replaced."""
    with Uwsgi(project, workers=2, lazy=lazy, environment={"WSGI_RELOAD_ENABLED": "false"}) as server:
        server.wait_for_workers(2)
        workers, version = server.workers(), project.version
        project.release()
        holds(lambda: server.workers() == workers and server.version() == version, "as it was", seconds=0.6)
        assert told(server) == []


def test_the_settings_of_the_project_file(project: Project) -> None:
    """`pyproject.toml` is read in the folder of the server."""
    project.save("pyproject.toml", "[tool.wsgi_reload_hooks]\nengine = 'stat'\ninterval = 0.1\n")
    with Uwsgi(project, workers=2) as server:
        assert server.wait_log(patterns.WATCHING)["interval"] == "0.1"
