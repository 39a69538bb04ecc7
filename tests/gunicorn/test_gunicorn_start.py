"""The start: broken code, wrong settings, preload, and both spellings."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from harness import (
    ABSENT,
    CONFIGURATION,
    MODULE,
    PACKAGE,
    Gunicorn,
    Project,
    each,
    holds,
    patterns,
    project_for,
    wait_until,
)


@each(adapters=("sync", "asgi"), versions=("sync",), matrix=("gevent", "tornado"))
def test_broken_at_the_start_waits_for_the_repair(worker_class: str, tmp_path: Path) -> None:
    """Broken code at the start: one entry, no boot loop, and who waits is answered after the repair."""
    project = project_for(worker_class, tmp_path / "project")
    project.broken(top="undefined_name")
    with Gunicorn(project, worker_class=worker_class, wait=False) as server:
        report = server.wait_for_log(patterns.WAITING_FOR_REPAIR)
        assert "app.py, line" in report["why"] and "undefined_name" in report["why"]
        # Until the last of them has found it out, too.
        server.wait_for_log(patterns.BOOTING, 4)
        server.wait_for_workers(0)
        boots = server.count(patterns.BOOTING)
        assert boots <= 8
        answers: list[tuple[int, str]] = []
        visitor = threading.Thread(target=lambda: answers.append(server.get()))
        visitor.start()
        holds(
            lambda: server.count(patterns.BOOTING) == boots and not server.exited() and not answers,
            "no boot loop, the server lives, the visitor waits",
        )
        project.release()
        visitor.join(10.0)
        assert [status for status, _ in answers] == [200]
        assert answers[0][1].split()[0] == project.version
        server.wait_for_workers(4)
        assert server.count(patterns.WAITING_FOR_REPAIR) == 1
        project.release()
        server.wait_for_version(project.version)


@pytest.mark.parametrize("cause", ["def", "import os; os._exit(3)", "import sys; sys.exit(1)", "import no_such_module"])
def test_broken_at_the_start_in_many_ways(cause: str, project: Project) -> None:
    """Whatever kind of broken code it starts with, the server waits for the repair."""
    project.broken(top=cause)
    with Gunicorn(project, wait=False) as server:
        server.wait_for_log(patterns.WAITING_FOR_REPAIR)
        project.broken(top="another_name")
        holds(lambda: not server.exited(), "the server lives", seconds=0.5)
        project.release()
        server.wait_until_ready_with(project.version)
        server.wait_for_workers(4)


def test_the_application_file_may_come_later(tmp_path: Path) -> None:
    """Started before `app.py` exists, the server serves it when it appears."""
    project = Project(tmp_path / "project")
    with Gunicorn(project, wait=False) as server:
        server.wait_for_log(patterns.WAITING_FOR_REPAIR)
        project.release()
        server.wait_until_ready_with(project.version)


@pytest.mark.adapters
def test_broken_at_the_start_exits_when_asked_to(project: Project) -> None:
    """With broken_start = exit the server exits with an error, as gunicorn alone does."""
    project.broken(top="undefined_name")
    server = Gunicorn(project, wait=False, environment={"WSGI_RELOAD_BROKEN_START": "exit"})
    status = server.run_to_its_end()
    assert status not in (0, -11, -9), status
    assert "undefined_name" in server.output


WRONG = (
    ({"WSGI_RELOAD_INTERVAL": "fast"}, ("interval", "fast", "WSGI_RELOAD_INTERVAL")),
    ({"WSGI_RELOAD_INTERVAL": "-1"}, ("interval", "-1", "WSGI_RELOAD_INTERVAL")),
    ({"WSGI_RELOAD_INTERVAL": "nan"}, ("interval", "nan", "WSGI_RELOAD_INTERVAL")),
    ({"WSGI_RELOAD_SURGE": "1.5"}, ("surge", "1.5", "WSGI_RELOAD_SURGE")),
    ({"WSGI_RELOAD_BROKEN_START": "maybe"}, ("broken_start", "maybe", "WSGI_RELOAD_BROKEN_START", "wait", "exit")),
    ({"WSGI_RELOAD_ENABLED": "perhaps"}, ("enabled", "perhaps", "WSGI_RELOAD_ENABLED")),
    ({"WSGI_RELOAD_BOOT_TIMEOUT": "soon"}, ("boot_timeout", "soon", "WSGI_RELOAD_BOOT_TIMEOUT")),
    ({"WSGI_RELOAD_INTERVALL": "1"}, ("WSGI_RELOAD_INTERVALL", "interval")),
)


@pytest.mark.parametrize(("environment", "words"), WRONG, ids=lambda value: "-".join(value) if value else "")
def test_a_wrong_setting_is_one_line(environment: Mapping[str, str], words: tuple[str, ...], project: Project) -> None:
    """A wrong setting ends the start: one line names it, its value, its source and what is allowed; exit status 1."""
    server = Gunicorn(project, wait=False, environment=environment)
    assert server.run_to_its_end() == 1
    lines = [line for line in server.output.splitlines() if "WSGI_RELOAD" in line]
    assert len(lines) == 1, server.output
    assert all(word in lines[0] for word in words), lines[0]
    assert "Traceback" not in server.output


@pytest.mark.skipif(sys.version_info < (3, 11), reason="reading pyproject.toml needs tomllib")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("interval = 'fast'", ("interval", "fast", "pyproject.toml")),
        ("interval = true", ("interval", "rue", "pyproject.toml")),
        ("extra_files = 3", ("extra_files", "3", "pyproject.toml")),
        ("intervall = 1.0", ("intervall", "1.0", "pyproject.toml")),
    ],
)
def test_a_wrong_line_in_pyproject_is_one_line(line: str, words: tuple[str, ...], project: Project) -> None:
    """A wrong value or an unknown name in the project's table is named together with the file; exit status 1."""
    project.save("pyproject.toml", f"[tool.wsgi_reload_hooks]\n{line}\n")
    server = Gunicorn(project, wait=False)
    assert server.run_to_its_end() == 1
    lines = [text for text in server.output.splitlines() if "pyproject.toml" in text]
    assert len(lines) == 1, server.output
    assert all(word in lines[0] for word in words), lines[0]
    assert "Traceback" not in server.output


@pytest.mark.skipif(sys.version_info < (3, 11), reason="reading pyproject.toml needs tomllib")
def test_the_environment_beats_pyproject(project: Project) -> None:
    """A setting in the environment wins over the project's table."""
    project.save("pyproject.toml", "[tool.wsgi_reload_hooks]\nengine = 'stat'\ninterval = 0.4\nstep = 0.01\n")
    with Gunicorn(project) as server:
        assert server.wait_for_log(patterns.WATCHING)["interval"] == "0.4"
    with Gunicorn(project, environment={"WSGI_RELOAD_INTERVAL": "0.3"}) as server:
        assert server.wait_for_log(patterns.WATCHING)["interval"] == "0.3"


def test_loaded_before_us_is_told_and_not_broken(project: Project) -> None:
    """Hooks that come when the application is preloaded say that saves are not served; the server serves as ever."""
    project.save(
        "conf.py",
        "preload_app = True\ndef when_ready(server):\n    from wsgi_reload_hooks.gunicorn import attach\n    attach.start(server)\n",
    )
    with Gunicorn(project, configuration=project.root / "conf.py") as server:
        server.wait_for_log(patterns.PRELOADED)
        before = server.version()
        project.release()
        holds(lambda: server.version() == before, "the preloaded version")
        assert server.count(patterns.PRELOADED) == 1


@pytest.mark.adapters
def test_gunicorns_own_reloader_is_switched_off(project: Project) -> None:
    """`--reload` beside us: theirs is off, said once, and broken code is still refused."""
    with Gunicorn(project, "--reload", workers=2) as server:
        server.wait_for_log(r"reload: .*--?reload|reload: .*reload = True|reload: .*own reload")
        with server.load(clients=4) as load:
            project.broken(top="undefined_name")
            server.wait_for_log(patterns.REFUSED)
            load.run(50)
            project.release()
            load.wait_for_only(project.version)
        assert load.failed == []
        assert "Worker reloading" not in server.log


def test_spelled_as_a_file_of_a_checkout(project: Project, tmp_path: Path) -> None:
    """`-c .../wsgi_reload_hooks/gunicorn_conf.py` works from a checkout that is not on the import path."""
    checkout = tmp_path / "checkout"
    shutil.copytree(PACKAGE, checkout / "wsgi_reload_hooks", ignore=shutil.ignore_patterns("__pycache__"))
    file = checkout / "wsgi_reload_hooks" / "gunicorn_conf.py"
    with Gunicorn(project, workers=2, configuration=file, environment={"PYTHONPATH": ABSENT}) as server:
        assert_a_save_is_served(server, project)


def test_spelled_as_a_relative_path(project: Project) -> None:
    """The path may be relative to the folder gunicorn is started in, as in the first command of the README."""
    shutil.copytree(PACKAGE, project.root / "wsgi_reload_hooks", ignore=shutil.ignore_patterns("__pycache__"))
    file = "wsgi_reload_hooks/gunicorn_conf.py"
    with Gunicorn(project, workers=2, configuration=file, environment={"PYTHONPATH": ABSENT}) as server:
        assert_a_save_is_served(server, project)


@pytest.mark.adapters
def test_spelled_as_a_module(project: Project) -> None:
    """`-c python:wsgi_reload_hooks.gunicorn_conf` does the same."""
    with Gunicorn(project, workers=2, configuration=MODULE) as server:
        assert_a_save_is_served(server, project)


def test_spelled_in_the_environment(project: Project) -> None:
    """`GUNICORN_CMD_ARGS="-c python:wsgi_reload_hooks.gunicorn_conf"` does the same."""
    environment = {"GUNICORN_CMD_ARGS": f"-c {MODULE}"}
    with Gunicorn(project, workers=2, configuration=None, environment=environment) as server:
        assert_a_save_is_served(server, project)


def test_started_with_chdir(project: Project, tmp_path: Path) -> None:
    """With `--chdir` the project is the folder that gunicorn changes to."""
    elsewhere = Project(tmp_path / "elsewhere")
    with Gunicorn(elsewhere, "--chdir", str(project.root), workers=2) as server:
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_log(patterns.reloaded(r"app\.py"))


def assert_a_save_is_served(server: Gunicorn, project: Project) -> None:
    """A good save, a broken one, and its repair."""
    # Else it is the start that serves the good save, in the last worker, beside the first.
    server.wait_for_log(patterns.WATCHING)
    project.release()
    server.wait_for_version(project.version)
    project.broken(top="undefined_name")
    server.wait_for_log(patterns.REFUSED)
    assert server.version() == project.version
    project.release()
    wait_until(lambda: server.version() == project.version, "the repair is served")


def test_the_configuration_is_where_the_tests_think() -> None:
    """The file that all these servers were started with is the one of the package."""
    assert CONFIGURATION.is_file()
