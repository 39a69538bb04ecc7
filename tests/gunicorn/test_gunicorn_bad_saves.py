"""A bad save is refused: one report, and the old code goes on serving until the repair."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from breakages import BOOT_TIMEOUT, BREAKAGES, IMPORT_SECONDS, LIFESPAN, assert_calm, project_with_dependencies
from harness import (
    GUNICORN,
    Gunicorn,
    Project,
    assert_mostly,
    each,
    holds,
    is_asgi,
    patterns,
    processes,
    wait_until,
)


@pytest.mark.load
@each(versions=("gthread",), matrix=("gthread", "tornado"))
def test_each_breakage_and_its_repair_under_load(worker_class: str, tmp_path: Path) -> None:
    """Every kind of broken code: one report, no boot loop, no failed request; the repair is served soon."""
    project = project_with_dependencies(tmp_path / "project", worker_class)
    delays = {}
    with Gunicorn(project, worker_class=worker_class, environment=BOOT_TIMEOUT) as server:
        server.wait_for_log(patterns.WATCHING)
        with server.load() as load:
            for number, breakage in enumerate([*BREAKAGES, *([LIFESPAN] if is_asgi(worker_class) else [])], 1):
                boots = server.count(patterns.BOOTING)
                breakage.do(project)
                report = server.wait_for_log(patterns.REFUSED, number)
                assert re.search(breakage.why, report["why"]), (breakage.name, report["why"])
                refused = time.monotonic()
                # Four, and perhaps some that gunicorn put in for the dead.
                assert_calm(server, boots + 8, number, breakage.name)
                assert load.versions(refused) == {project.version}, breakage.name
                breakage.repair(project)
                saved = project.release()
                delays[breakage.name] = load.seconds(saved, load.wait_for(project.version))
                load.wait_for_only(project.version)
        assert load.failed == []
        server.wait_for_workers(4)
        assert "broken" not in load.versions(0.0)
        assert_mostly([*delays.values()], IMPORT_SECONDS + 0.6)
        assert server.count(r"out of memory") == 0


@pytest.mark.adapters
def test_the_report_ends_with_the_last_lines_of_the_traceback(project: Project) -> None:
    """A refusal names file and line, and shows the end of the traceback, once."""
    project.save("views.py", "def broken():\n    return undefined_name\n\nbroken()\n")
    with Gunicorn(project) as server:
        project.release(top="import views")
        report = server.wait_for_log(patterns.REFUSED)
        assert report["why"].startswith("views.py, line 2: NameError: name 'undefined_name' is not defined")
        entry = server.log[report.end() :]
        assert re.search(r'File ".*views\.py", line 2', entry)
        assert "return undefined_name" in entry
        assert entry.count("Traceback") <= 1
        assert server.log[: report.start()].count("undefined_name") == 0


@pytest.mark.parametrize("cause", ["os._exit(3)", "import ctypes; ctypes.string_at(0)", "while True:\n    pass"])
def test_a_death_without_a_word_names_the_file(cause: str, tmp_path: Path) -> None:
    """Code that ends or hangs the new worker in its import is reported with the file it is in."""
    project = project_with_dependencies(tmp_path / "project", "sync")
    with Gunicorn(project, workers=2, environment={"WSGI_RELOAD_BOOT_TIMEOUT": "1.0"}) as server:
        project.broken(top=cause)
        assert "app.py" in server.wait_for_log(patterns.REFUSED)["why"]
        assert server.version() == project.version


@pytest.mark.adapters
def test_other_broken_saves_are_told_but_the_same_one_is_not(project: Project) -> None:
    """The same refusal is not repeated; another reason is a new report."""
    with Gunicorn(project) as server:
        project.broken(top="first_name")
        server.wait_for_log(patterns.refused("first_name"))
        project.broken(top="second_name")
        server.wait_for_log(patterns.refused("second_name"))
        holds(lambda: server.count(patterns.REFUSED) == 2, "two refusals, two reports")
        assert server.version() == project.version


def test_a_good_save_elsewhere_does_not_hide_a_refused_one(project: Project) -> None:
    """While a refused file stays broken no other save goes into service."""
    project.save("other.py", "VALUE = 1\n")
    project.imports = "import other"
    project.release()
    with Gunicorn(project) as server:
        good = project.version
        project.broken(top="undefined_name")
        server.wait_for_log(patterns.REFUSED)
        project.save("other.py", "VALUE = 2\n")
        holds(lambda: server.version() == good, "the version before the refusal")
        project.release()
        server.wait_for_version(project.version)


def test_an_undone_save_needs_no_reload(project: Project) -> None:
    """Broken code taken back to what runs: nothing to do, and the next save is served as always."""
    with Gunicorn(project) as server:
        before, text = server.workers(), (project.root / "app.py").read_text()
        project.broken(top="undefined_name")
        server.wait_for_log(patterns.REFUSED)
        project.save("app.py", text)
        server.wait_for_workers(4)
        assert server.version() == project.version
        holds(lambda: server.count(patterns.REFUSED) == 1, "one refusal, one report")
        project.release()
        server.wait_for_version(project.version)
        wait_until(lambda: not set(server.workers()) & set(before), "the old workers left")


@pytest.mark.adapters
def test_a_new_module_repairs_a_failed_import(project: Project) -> None:
    """The file that an import did not find appears: the refused code goes into service."""
    with Gunicorn(project) as server:
        project.release(top="import not_there_yet")
        server.wait_for_log(patterns.refused("not_there_yet"))
        project.save("not_there_yet.py", "")
        server.wait_for_version(project.version)


def test_a_new_module_repairs_what_was_refused_during_the_start(project: Project) -> None:
    """A save that is refused before the last worker of the start is there: its repair is noticed all the same."""
    late = "late = os.path.exists('first')\nopen('first', 'w').close()\nwhile late and not os.path.exists('go'): time.sleep(0.01)"
    project.release(top=late)
    with Gunicorn(project, workers=2) as server:
        project.release(top="import not_there_yet")
        server.wait_for_log(patterns.refused("not_there_yet"))
        project.save("go", "")
        server.wait_for_log(patterns.WATCHING)
        project.save("not_there_yet.py", "")
        server.wait_for_version(project.version)


def test_a_new_package_repairs_a_failed_import(project: Project) -> None:
    """The folder that an import did not find appears: the refused code goes into service."""
    with Gunicorn(project) as server:
        project.release(top="from deep.inside import thing")
        server.wait_for_log(patterns.refused("deep"))
        project.save("deep/inside.py", "thing = 1\n")
        server.wait_for_version(project.version)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder that takes no files")
@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["each", "preload"])
def test_no_room_for_new_workers_is_retried_and_no_refusal(options: list[str], project: Project) -> None:
    """Where no file for a worker can be made the save waits: nothing is said about the code, the retry needs no save."""
    room = project.root / "room"
    (project.root / "files").mkdir()
    room.symlink_to("files")
    with Gunicorn(project, *options, "--worker-tmp-dir", str(room), workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        good, before = project.version, server.workers()
        room.unlink()
        room.symlink_to("/proc")
        project.release()
        server.wait_for_log(patterns.OURS + "cannot start the trial process, retrying every 5 s: ")
        assert server.version() == good and server.workers() == before
        room.unlink()
        room.symlink_to("files")
        server.wait_for_version(project.version)
        server.wait_for_log(patterns.RELOADED)
        assert server.count("cannot start the trial process") == 1
        assert server.count(patterns.REFUSED) == 0


@pytest.mark.parametrize("cause", ["os._exit(3)", "import sys; sys.exit(4)", "raise SystemExit(3)"])
def test_a_hup_does_not_let_broken_code_in(cause: str, project: Project) -> None:
    """HUP with broken code on disk: the server lives, the old version serves."""
    with Gunicorn(project) as server:
        with server.load() as load:
            project.broken(top=cause)
            server.hup()
            server.wait_for_log(patterns.REFUSED)
            server.hup()
            load.run(200)
            assert not server.exited()
            good = project.version
            project.release()
            load.wait_for_only(project.version)
        assert load.failed == []
        assert load.versions(0.0) == {good, project.version}


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_without_any_worker_visitors_get_an_error_page_until_the_repair(worker_class: str, project: Project) -> None:
    """Every worker killed while the disk is broken: visitors get an error answer at once, no boot loop."""
    with Gunicorn(project, worker_class=worker_class) as server:
        project.broken(top="undefined_name")
        server.wait_for_log(patterns.REFUSED)
        for pid in server.workers():
            processes.kill(pid)
        wait_until(lambda: server.get()[0] in (500, 503), "an error page")
        status, text = server.get()
        assert status in (500, 503)
        assert "Traceback" not in text
        boots = server.count(patterns.BOOTING)
        holds(lambda: server.count(patterns.BOOTING) <= boots + 1, "no boot loop")
        project.release()
        wait_until(lambda: server.get()[0] == 200, "the repaired version answers")
        # Who has the error page may be the last to leave.
        server.wait_for_workers(4)
        server.wait_for_version(project.version)


@each(("sync", "gthread"), versions=("gthread",), adapters=("sync",))
def test_max_requests_while_the_disk_is_broken(worker_class: str, project: Project) -> None:
    """Workers that reach max_requests beside a broken file: the server lives and no request fails."""
    # gthread before 24.0 drops kept-alive connections at max_requests, with and without us.
    keep_alive = worker_class == "sync" or GUNICORN >= (24, 0)
    with Gunicorn(project, "--max-requests", "30", worker_class=worker_class) as server:
        with server.load(keep_alive=keep_alive) as load:
            load.run(50)
            boots = server.count(patterns.BOOTING)
            project.broken(top="undefined_name")
            began = time.monotonic()
            wait_until(lambda: load.answers[-1].start > began + 4.0, "4 s of broken disk")
            assert server.count(patterns.REFUSED) == 1
            assert server.count(patterns.BOOTING) < boots + 12
            assert load.versions(began) == {project.version}
            project.release()
            load.wait_for_only(project.version)
        assert load.failed == []
        server.wait_for_workers(4)
