"""A bad save is refused under uWSGI: one report, and the old code goes on serving until the repair."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import HAVE_UWSGI, Project, Uwsgi, assert_mostly, holds, patterns, wait_until

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")

IMPORT_SECONDS = 0.2


def nothing(project: Project) -> None:
    """The repaired `app.py` is all that it takes."""


def write_helper(project: Project) -> None:
    project.save("helper.py", "VERSION = 'helper'\n")


class Breakage(NamedTuple):
    """How it breaks, what the report says, and what is repaired beside `app.py`."""

    name: str
    do: Callable[[Project], object]
    why: str
    repair: Callable[[Project], object] = nothing


BREAKAGES = (
    Breakage("syntax error", lambda project: project.broken(bottom="def"), r"app\.py, line \d+: SyntaxError"),
    Breakage(
        "import error in a dependency",
        lambda project: project.save("helper.py", "\nimport no_such_module\n"),
        r"helper\.py, line 2: ModuleNotFoundError: No module named 'no_such_module'",
        write_helper,
    ),
    Breakage("no callable", lambda project: project.broken(bottom="del app"), r"app"),
    Breakage("sys.exit", lambda project: project.broken(top="import sys; sys.exit(3)"), r"(?i)exit|3"),
    Breakage("os._exit", lambda project: project.broken(top="os._exit(3)"), r"(?i)exit|3"),
    Breakage("endless import", lambda project: project.broken(top="while True:\n    time.sleep(0.01)"), r"4 s"),
)
SET_UPS = {
    "lazy": (True, ()),
    "lazy, need-app": (True, ("--need-app",)),
    "forked": (False, ()),
    "forked, need-app": (False, ("--need-app",)),
}


@pytest.mark.load
@pytest.mark.parametrize(
    "set_up",
    [pytest.param(name, marks=[pytest.mark.matrix] if options else []) for name, (_, options) in SET_UPS.items()],
)
def test_each_breakage_and_its_repair_under_load(set_up: str, tmp_path: Path) -> None:
    """Every kind of broken code: one report, no respawn, no failed request; the repair is served soon."""
    lazy, options = SET_UPS[set_up]
    project = Project(tmp_path / "project", import_seconds=IMPORT_SECONDS, imports="import helper")
    write_helper(project)
    project.release()
    delays = {}
    with Uwsgi(project, *options, lazy=lazy, environment={"WSGI_RELOAD_BOOT_TIMEOUT": "4"}) as server:
        server.wait_log(patterns.WATCHING)
        with server.load() as load:
            for number, breakage in enumerate(BREAKAGES, 1):
                workers = set(server.workers())
                breakage.do(project)
                report = server.wait_log(patterns.REFUSED, number)
                assert re.search(breakage.why, report["why"]), (breakage.name, report["why"])
                refused = time.monotonic()

                def calm(number: int = number) -> bool:
                    return server.count(patterns.REFUSED) == number and server.count(patterns.RELOADED) == number - 1

                holds(calm, f"{breakage.name}: one report", seconds=0.3)
                wait_until(lambda refused=refused: load.versions(refused), "visitors come after it")  # type: ignore[misc]
                assert load.versions(refused) == {project.version}, breakage.name
                assert set(server.workers()) == workers, breakage.name
                breakage.repair(project)
                saved = project.release()
                delays[breakage.name] = load.seconds(saved, load.wait_for(project.version))
                load.wait_for_only(project.version)
                server.wait_log(patterns.RELOADED, number)
        assert load.failed == []
        assert "broken" not in load.versions(0.0)
        assert_mostly([*delays.values()], 2 * IMPORT_SECONDS + 1.0)
        server.wait_for_workers(4)


@pytest.mark.adapters
def test_the_report_ends_with_the_last_lines_of_the_traceback(project: Project) -> None:
    """A refusal names file and line, and shows the end of the traceback, once."""
    project.save("views.py", "def broken():\n    return undefined_name\n\nbroken()\n")
    with Uwsgi(project, workers=2) as server:
        server.wait_log(patterns.WATCHING)
        project.release(top="import views")
        report = server.wait_log(patterns.REFUSED)
        assert report["why"].startswith("views.py, line 2: NameError: name 'undefined_name' is not defined")
        entry = server.log[report.end() :]
        assert re.search(r'File ".*views\.py", line 2', entry)
        assert entry.count("Traceback") <= 1
        assert server.log[: report.start()].count("undefined_name") == 0


@pytest.mark.adapters
def test_other_broken_saves_are_told_but_the_same_one_is_not(project: Project) -> None:
    """Another reason is a new report; the same one is not repeated, nor is it after an undone save."""
    with Uwsgi(project, workers=2) as server:
        server.wait_log(patterns.WATCHING)
        good, text = server.workers(), (project.root / "app.py").read_text()
        project.broken(top="first_name")
        server.wait_log(patterns.refused("first_name"))
        project.broken(top="second_name")
        server.wait_log(patterns.refused("second_name"))
        holds(lambda: server.count(patterns.REFUSED) == 2, "two refusals, two reports", seconds=0.5)
        assert server.version() == project.version
        project.save("app.py", text)
        server.wait_log(patterns.OURS + r"app\.py: change reverted, nothing to reload")
        assert server.workers() == good
        project.release()
        server.wait_for_version(project.version)
        server.wait_log(patterns.RELOADED)


@pytest.mark.adapters
def test_a_new_module_repairs_a_failed_import(project: Project) -> None:
    """The file that an import did not find appears: the refused code goes into service."""
    with Uwsgi(project, workers=2) as server:
        server.wait_log(patterns.WATCHING)
        project.release(top="import not_there_yet")
        server.wait_log(patterns.refused("not_there_yet"))
        project.save("not_there_yet.py", "")
        server.wait_for_version(project.version)
        server.wait_log(patterns.RELOADED)


def test_broken_between_the_proof_and_the_load(project: Project) -> None:
    """What is proven is no longer what is on disk when a worker loads it: its siblings serve until the repair."""
    # Good where it is tried, broken in a worker.
    top = "if 'WSGI_TRIAL' not in os.environ:\n    raise RuntimeError('not here')"
    with Uwsgi(project, workers=4) as server:
        server.wait_log(patterns.WATCHING)
        good = project.version
        with server.load() as load:
            project.release(top=top)
            server.wait_log(patterns.OURS + r".*not here")
            load.run(100)
            assert {answer.version for answer in load.answers[-50:]} == {good}
            project.release()
            load.wait_for_only(project.version)
        assert load.failed == []
        server.wait_for_workers(4)


def test_what_was_in_the_way_once_holds_nothing_up(project: Project) -> None:
    """New code does not load in the first worker, though it is good: the roll goes on by itself, and is told."""
    top = "if 'WSGI_TRIAL' not in os.environ and os.path.exists('once'):\n    os.unlink('once')\n    raise OSError('busy')"
    with Uwsgi(project, workers=3) as server:
        server.wait_log(patterns.WATCHING)
        (project.root / "once").write_text("")
        with server.load() as load:
            project.release(top=top)
            server.wait_log(patterns.OURS + r".*OSError: busy")
            load.wait_for_only(project.version)
            assert server.wait_log(patterns.RELOADED)["what"] == "app.py"
        assert load.failed == []


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "not lazy"])
def test_the_project_vanishes_and_comes_back(lazy: bool, project: Project) -> None:
    """The whole folder deleted: the old code serves, one refusal; written anew, it is served."""
    with Uwsgi(project, workers=2, lazy=lazy) as server:
        server.wait_log(patterns.WATCHING)
        served = project.version
        shutil.rmtree(project.root)
        server.wait_log(patterns.REFUSED)
        assert server.version() == served
        project.release()
        server.wait_for_version(project.version)
        server.wait_log(patterns.RELOADED)
        assert server.count(patterns.REFUSED) == 1
