"""Which saves matter: what the workers loaded, and no other file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Gunicorn, Project, each, holds, patterns, project_for, wait_until

OLD = 1_000_000_000.0


def write_in_place(path: Path, text: str) -> None:
    path.write_text(text)


def replace(path: Path, text: str) -> None:
    sibling = path.with_name(path.name + ".new")
    sibling.write_text(text)
    os.replace(sibling, path)


def keep_a_backup(path: Path, text: str) -> None:
    """Rename the old file away, then write the new one, as vim does with backups."""
    os.rename(path, path.with_name(path.name + "~"))
    path.write_text(text)


def back_date(path: Path, text: str) -> None:
    """As `cp -p` and `rsync -t` do: the new file is older than the one before."""
    sibling = path.with_name(path.name + ".new")
    sibling.write_text(text)
    os.utime(sibling, (OLD, OLD))
    os.replace(sibling, path)


def same_second_and_size(path: Path, text: str) -> None:
    """Whole seconds and size stay as they were: what a stale `.pyc` is keyed by."""
    before = path.stat()
    assert before.st_size == len(text)
    sibling = path.with_name(path.name + ".new")
    sibling.write_text(text)
    second = before.st_mtime_ns // 1_000_000_000 * 1_000_000_000
    os.utime(sibling, ns=(second + 1, second + (before.st_mtime_ns + 1) % 1_000_000_000))
    os.replace(sibling, path)


@pytest.mark.parametrize("way", [write_in_place, replace, keep_a_backup, back_date, same_second_and_size])
def test_every_way_of_saving_is_seen(way: Callable[[Path, str], None], project: Project) -> None:
    """However an editor or a tool writes the file, the new text is served, and named in the log."""
    with Gunicorn(project, workers=2) as server:
        version = project.next_version()
        way(project.root / "app.py", project.source(version))
        server.wait_for_version(version)
        server.wait_for_log(patterns.reloaded(r"app\.py"))


def test_a_folder_switched_by_a_link(tmp_path: Path) -> None:
    """A release switched with a symbolic link is a change of what runs."""
    root = tmp_path / "project"
    releases = Project(root)
    for name in ("one", "two"):
        releases.save(f"{name}/app.py", releases.source(name))
    os.symlink("one", root / "current")
    with Gunicorn(releases, "--pythonpath", str(root / "current"), workers=2) as server:
        assert server.version() == "one"
        os.symlink("two", root / "next")
        os.replace(root / "next", root / "current")
        server.wait_for_version("two")


@pytest.mark.adapters
def test_files_that_nobody_loaded_do_not_reload(project: Project) -> None:
    """A test, a README, a log, byte code, a backup, a new folder: no reload. The next real save is one."""
    project.save("tests/test_app.py", "VALUE = 1\n")
    project.save("README.md", "one\n")
    project.save("script.py", "print(1)\n")
    with Gunicorn(project, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        before = server.workers()
        project.save("tests/test_app.py", "VALUE = 2\n")
        project.save("README.md", "two\n")
        project.save("script.py", "print(2)\n")
        project.save("app.log", "a line\n")
        project.save("app.py~", "half a")
        project.save(".app.py.swp", "half a")
        project.save("__pycache__/app.cpython-399.pyc", "not byte code")
        project.save("new_module.py", "VALUE = 1\n")
        project.save("new_package/__init__.py", "VALUE = 1\n")
        holds(lambda: server.workers() == before, "the same workers")
        assert server.count(patterns.RELOADED) == 0
        project.release()
        server.wait_for_version(project.version)
        assert server.wait_for_log(patterns.RELOADED)["what"] == "app.py"


@pytest.mark.adapters
def test_a_touch_does_not_reload(project: Project) -> None:
    """A loaded file with a new date or a new inode, but the same text: no reload."""
    with Gunicorn(project, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        before, path = server.workers(), project.root / "app.py"
        os.utime(path)
        holds(lambda: server.workers() == before, "the same workers after a touch", seconds=0.7)
        shutil.copy(path, path.with_suffix(".copy"))
        os.replace(path.with_suffix(".copy"), path)
        holds(lambda: server.workers() == before, "the same workers after an identical save", seconds=0.7)
        assert server.count(patterns.RELOADED) == 0
        project.release()
        server.wait_for_version(project.version)


def test_a_change_there_and_back_does_not_reload(project: Project) -> None:
    """A branch switched there and back within one quiet moment leaves the workers alone."""
    # One moment, even if something else has to be done in between.
    environment = {"WSGI_RELOAD_STEP": "2.5", "WSGI_RELOAD_DEBOUNCE": "5"}
    with Gunicorn(project, workers=2, environment=environment) as server:
        server.wait_for_log(patterns.WATCHING)
        before, text = server.workers(), (project.root / "app.py").read_text()
        project.save("app.py", project.source("elsewhere"))
        project.save("app.py", text)
        holds(lambda: server.workers() == before, "the same workers", seconds=3.2)
        assert server.count(patterns.RELOADED) == 0


@each(adapters=("sync", "asgi"), matrix=("gevent", "tornado"))
def test_a_lazily_imported_module_is_watched(worker_class: str, tmp_path: Path) -> None:
    """A module imported inside a request belongs to what is watched, as soon as it is imported."""
    project = project_for(worker_class, tmp_path / "project")
    project.save("lazy_part.py", "VERSION = 'lazy1'\n")
    project.release()
    with Gunicorn(project, worker_class=worker_class, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        before = server.workers()
        project.save("lazy_part.py", "VERSION = 'lazy2'\n")
        holds(lambda: server.workers() == before, "nobody loaded it yet", seconds=0.7)
        assert server.version("/lazy") == "lazy2"
        project.save("lazy_part.py", "VERSION = 'lazy3'\n")
        server.wait_for_version("lazy3", "/lazy")
        server.wait_for_log(patterns.reloaded(r"lazy_part\.py"))


def test_a_lazily_imported_module_saved_twice_in_a_second(project: Project) -> None:
    """Two saves of the same size in one second: the second one is served, not the byte code of the first."""
    project.save("helper.py", "VERSION = 'help0'\n")
    project.imports = "import helper"
    project.release()
    with Gunicorn(project, workers=2) as server:
        # Or the last worker of the start would have loaded the first of them by itself.
        server.wait_for_log(patterns.WATCHING)
        for number in range(1, 6):
            text = f"VERSION = 'help{number}'\n"
            same_second_and_size(project.root / "helper.py", text)
            server.wait_for_version(f"help{number}", "/helper")
        server.wait_for_log(patterns.RELOADED, 5)


def test_a_save_while_a_lazy_import_runs_is_not_lost(project: Project) -> None:
    """Saved between the read of a file and its report, the new text still comes into service."""
    slow = "import time\nVERSION = 'lazy1'\ntime.sleep(0.4)\n"
    project.save("lazy_part.py", slow)
    with Gunicorn(project, workers=2, worker_class="gthread") as server:
        with server.load(clients=1):
            pass
        text = server.get("/lazy")[1]
        assert text.startswith("lazy1")
        project.save("lazy_part.py", slow.replace("lazy1", "lazy2"))
        project.save("app.py", project.source("v99", top="import lazy_part"))
        server.wait_for_version("v99")
        project.save("lazy_part.py", slow.replace("lazy1", "lazy3"))
        server.wait_for_version("lazy3", "/lazy")


def test_many_files_are_one_reload_and_a_short_line(project: Project) -> None:
    """Twenty files saved together are one reload; the log names a few and counts the others."""
    names = [f"part{number}.py" for number in range(20)]
    for name in names:
        project.save(name, "VALUE = 1\n")
    project.imports = "\n".join(f"import {name[:-3]}" for name in names)
    project.release()
    # Together, even if something else has to be done in between.
    environment = {"WSGI_RELOAD_STEP": "2.5", "WSGI_RELOAD_DEBOUNCE": "10"}
    with Gunicorn(project, workers=2, environment=environment) as server:
        server.wait_for_log(patterns.WATCHING)
        for name in names:
            project.save(name, "VALUE = 2\n")
        project.release()
        server.wait_for_version(project.version)
        line = server.wait_for_log(patterns.RELOADED)
        assert line["workers"] == "2"
        assert " and " in line["what"] and "more" in line["what"]
        assert len(line["what"]) < 120
        assert str(project.root) not in line["what"]
        holds(lambda: server.count(patterns.RELOADED) == 1, "one reload", seconds=0.7)


def test_the_start_is_told_in_one_line(project: Project) -> None:
    """At start one line says how many files are watched, how often, and how."""
    with Gunicorn(project, environment={"WSGI_RELOAD_INTERVAL": "0.3", "WSGI_RELOAD_ENGINE": "stat"}) as server:
        line = server.wait_for_log(patterns.WATCHING)
        assert line["interval"] == "0.3"
        assert line["engine"] == "stat"
        assert int(line["files"]) >= 1
        project.release()
        server.wait_for_log(patterns.RELOADED)
        assert server.count(patterns.WATCHING) == 1


def test_debug_tells_where_the_settings_came_from(project: Project) -> None:
    """At debug level the log names the source of a setting."""
    with Gunicorn(project, "--log-level", "debug", environment={"WSGI_RELOAD_INTERVAL": "0.3"}) as server:
        server.wait_for_log(patterns.WATCHING)
        server.wait_for_log(r"\[DEBUG\] reload: .*WSGI_RELOAD_INTERVAL")


@pytest.mark.adapters
def test_extra_files_are_watched_and_the_glob_is_live(project: Project) -> None:
    """A listed template reloads when it is saved, and so does one that appears later."""
    project.save("templates/page.html", "one")
    with Gunicorn(project, workers=2, environment={"WSGI_RELOAD_EXTRA_FILES": "templates/*.html"}) as server:
        project.save("templates/page.html", "two")
        server.wait_for_log(patterns.reloaded(r"templates/page\.html"))
        project.save("templates/other.html", "one")
        server.wait_for_log(patterns.reloaded(r"templates/other\.html"))


def test_excluded_files_are_not_watched(project: Project) -> None:
    """A loaded file that is excluded does not reload."""
    project.save("generated/__init__.py", "VALUE = 1\n")
    project.imports = "import generated"
    project.release()
    with Gunicorn(project, workers=2, environment={"WSGI_RELOAD_EXCLUDE": "generated/*"}) as server:
        server.wait_for_log(patterns.WATCHING)
        before = server.workers()
        project.save("generated/__init__.py", "VALUE = 2\n")
        holds(lambda: server.workers() == before, "the same workers")
        project.release()
        server.wait_for_version(project.version)
        assert server.wait_for_log(patterns.RELOADED)["what"] == "app.py"


@pytest.mark.adapters
def test_disabled_means_plain_gunicorn(project: Project) -> None:
    """With enabled off a save does nothing, and a HUP does what gunicorn does."""
    with Gunicorn(project, workers=2, environment={"WSGI_RELOAD_ENABLED": "false"}) as server:
        before = project.version
        # The last of them, too, has loaded it.
        server.wait_for_everyone(before)
        project.release()
        holds(lambda: server.version() == before, "the version that was started")
        # Of another size: plain gunicorn may believe byte code of the same second.
        project.release(bottom="# a longer text")
        server.hup()
        server.wait_for_version(project.version)
        assert server.count(patterns.RELOADED) == 0


HOSTILE = "evil\n[2026-01-01 00:00:00 +0000] [1] [CRITICAL] the house is on fire\x1b[31m.py"
LOAD_BY_PATH = """
import importlib.util
import sys
spec = importlib.util.spec_from_file_location("odd_name", {path!r})
module = importlib.util.module_from_spec(spec)
sys.modules["odd_name"] = module
spec.loader.exec_module(module)
"""


def test_a_newline_in_a_path_cannot_forge_a_log_line(project: Project) -> None:
    """A loaded file whose name holds a newline and a control sequence is watched, and shown on one line."""
    path = project.root / HOSTILE
    path.write_text("VALUE = 1\n")
    project.release(top=LOAD_BY_PATH.format(path=str(path)))
    with Gunicorn(project, workers=2) as server:
        path.write_text("VALUE = 2\n")
        server.wait_for_log(patterns.RELOADED)
        path.write_text("undefined_name\n")
        server.wait_for_log(patterns.REFUSED)
        assert not any(line.startswith("[2026-01-01 00:00:00") for line in server.log.splitlines())
        assert "\x1b" not in server.log
        path.write_text("VALUE = 3\n")
        project.release()
        server.wait_for_version(project.version)


def test_an_undecodable_file_name_is_watched(project: Project) -> None:
    """A loaded file whose name is not valid text does not end the watcher."""
    raw = os.fsencode(project.root) + b"/caf\xe9.py"
    path = Path(os.fsdecode(raw))
    path.write_text("VALUE = 1\n")
    project.release(top=LOAD_BY_PATH.format(path=str(path)))
    with Gunicorn(project, workers=2) as server:
        path.write_text("VALUE = 2\n")
        server.wait_for_log(patterns.RELOADED)
        project.release()
        server.wait_for_version(project.version)


def test_an_unreadable_folder_does_not_stop_the_watcher(project: Project) -> None:
    """A folder that cannot be read, a dead link and a loop of links among the extra files: saves are still served."""
    closed = project.root / "data" / "closed"
    closed.mkdir(parents=True)
    (closed / "page.html").write_text("one")
    os.symlink("nowhere", project.root / "data" / "dead.html")
    os.symlink("loop.html", project.root / "data" / "loop.html")
    closed.chmod(0)
    try:
        with Gunicorn(project, workers=2, environment={"WSGI_RELOAD_EXTRA_FILES": "data/**/*.html"}) as server:
            project.release()
            server.wait_for_version(project.version)
            assert "Traceback" not in server.log
    finally:
        closed.chmod(0o755)


def test_the_last_save_of_a_long_burst_is_served(project: Project) -> None:
    """Saves without a quiet moment: debounce bounds the wait for an attempt, and the last one is what stays."""
    environment = {"WSGI_RELOAD_STEP": "0.3", "WSGI_RELOAD_DEBOUNCE": "0.6"}
    with Gunicorn(project, workers=2, environment=environment) as server:
        server.wait_for_log(patterns.WATCHING)
        boots = server.count(patterns.BOOTING)

        def keep_saving() -> bool:
            project.release()
            return server.count(patterns.BOOTING) > boots

        wait_until(keep_saving, "an attempt in spite of the burst")
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(2)
