"""gunicorn: faults found in the field that concern signals, worker classes and what lives beside the workers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import GUNICORN, PACKAGE, Gunicorn, Project, wait_until

pytestmark = pytest.mark.field

LIMIT = 6.0
GEVENT_LIMIT = 10.0


def copy_of(app: str, tmp_path: Path) -> Project:
    """A project with the program *app*."""
    project = Project(tmp_path / "project")
    project.copy(app)
    return project


# -- gevent in the configuration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preload",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.xfail(
                strict=True, reason="os.fork and waitpid are gevent's: some starts never serve, TERM takes 30 s"
            ),
        ),
    ],
)
def test_patched_by_gevent_in_the_configuration(preload: bool, tmp_path: Path) -> None:
    """gevent patches at the top of the configuration: each start serves, a save goes in, and TERM ends all at once."""
    pytest.importorskip("gevent")
    project = copy_of("gevent_patched", tmp_path)
    project.edit("gunicorn.conf.py", "preload_app = True", f"preload_app = {preload}")
    for number in range(1, 4 if preload else 2):
        with Gunicorn(
            project, worker_class="gevent", workers=0, configuration="gunicorn.conf.py", wait=False
        ) as server:
            server.wait_ready(GEVENT_LIMIT)
            project.edit("app.py", f'"v{number}"', f'"v{number + 1}"')
            server.wait_for_version(f"v{number + 1}", limit=GEVENT_LIMIT)
            server.stop(GEVENT_LIMIT)


# -- signals while code is refused ---------------------------------------------------------------------------------

no_fewer = pytest.mark.xfail(strict=True, reason="TTOU does nothing while code is refused, until its repair")


@pytest.mark.parametrize(
    ("sig", "workers", "options"),
    [
        pytest.param(signal.SIGTTOU, 2, [], id="fewer", marks=no_fewer),
        pytest.param(signal.SIGTTOU, 2, ["--preload"], id="fewer-preload", marks=no_fewer),
        pytest.param(signal.SIGTTIN, 4, ["--preload"], id="more-preload"),
    ],
)
def test_number_of_workers_changes_while_code_is_refused(
    sig: signal.Signals, workers: int, options: list[str], project: Project
) -> None:
    """TTOU needs no new code; TTIN neither, where a zygote has the code that serves."""
    with Gunicorn(project, *options, workers=3) as server:
        server.wait_for_log("watching")
        project.broken(bottom="undefined_name")
        server.wait_for_log("refused.*undefined_name")
        server.wait_for_workers(3)
        server.send(sig)
        wait_until(lambda: len(server.workers()) == workers, lambda: f"{workers} workers; {server.workers()}", LIMIT)
        assert server.version() == "v1"
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(workers)


# -- prometheus' files of processes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "living"),
    [
        pytest.param([], "2", id="plain"),
        pytest.param(
            ["--preload"],
            "1",
            id="preload",
            marks=pytest.mark.xfail(
                strict=True, reason="no child_exit is called for a zygote that ended: its gauge is counted for ever"
            ),
        ),
    ],
)
def test_gauge_set_at_import_counts_living_processes_only(options: list[str], living: str, tmp_path: Path) -> None:
    """However many saves there were: the files of what has ended are cleaned up by `child_exit`."""
    pytest.importorskip("prometheus_client")
    project = copy_of("metrics", tmp_path)
    (project.root / "files").mkdir()
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(project.root / "files")}
    with Gunicorn(project, *options, workers=0, configuration="gunicorn.conf.py", environment=environment) as server:
        server.wait_for_log("watching")
        for number in (1, 2):
            project.edit("app.py", f'"v{number}"', f'"v{number + 1}"')
            server.wait_for_version(f"v{number + 1}")
        # One of its files may just be made: no answer then.
        expected = (200, living)
        wait_until(lambda: server.ask("/up") == expected, lambda: f"{expected}; it is {server.ask('/up')}", LIMIT)


# -- dirty workers -------------------------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="a HUP restarts the dirty workers at once, with code that is then refused")
@pytest.mark.skipif(GUNICORN < (25, 0), reason="dirty workers came with 25.0")
def test_hup_restarts_dirty_workers_after_the_new_code_is_in_service(tmp_path: Path) -> None:
    """Not at once, when the code is still to be tried: refused code leaves them alone."""
    project = copy_of("dirty", tmp_path)
    restarted = r"(?i)reloading dirty workers"
    with Gunicorn(project, workers=0, configuration="gunicorn.conf.py") as server:
        server.wait_for_log("watching")
        wait_until(lambda: server.ask("/task")[0] == 200, "a dirty worker answers")
        project.save("app.py", "undefined_name\n")
        server.wait_for_log("refused.*undefined_name")
        server.hup()
        server.wait_for_log("refused.*undefined_name", 2)
        assert not server.count(restarted)
        project.save("app.py", (Path(__file__).parent.parent / "apps" / "dirty" / "app.py").read_text())
        server.hup()
        server.wait_for_log("reloaded in")
        server.wait_for_log(restarted)


# -- the doctor and gunicorn 27.0.0 --------------------------------------------------------------------------------


def gunicorn_27(version: str, folder: Path) -> Path:
    """A folder with a gunicorn that says it is 27.0.*version*."""
    import gunicorn

    source = Path(gunicorn.__file__).parent
    shutil.copytree(source, folder / "gunicorn", ignore=shutil.ignore_patterns("__pycache__"))
    init = folder / "gunicorn" / "__init__.py"
    text, count = re.subn(r"^version_info = .*$", f"version_info = (27, 0, {version})", init.read_text(), flags=re.M)
    assert count == 1
    init.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("version", "worker_class", "warned"),
    [
        pytest.param(
            "0",
            "gthread",
            True,
            id="27.0.0",
            marks=pytest.mark.xfail(strict=True, reason="the doctor knows nothing of gunicorn 27.0.0"),
        ),
        pytest.param("1", "gthread", False, id="27.0.1"),
        pytest.param("0", "sync", False, id="27.0.0-sync"),
    ],
)
def test_doctor_warns_of_gthread_in_gunicorn_27_0_0(
    version: str, worker_class: str, warned: bool, project: Project, tmp_path: Path
) -> None:
    """Its gthread closes idle kept-alive connections when a worker stops: each reload does that."""
    path = os.pathsep.join([str(gunicorn_27(version, tmp_path / "lib")), str(PACKAGE.parent)])
    with Gunicorn(project, worker_class=worker_class, environment={"PYTHONPATH": path}) as server:
        command = [sys.executable, "-m", "wsgi_reload_hooks", "doctor", "--json", str(server.pid)]
        environment = {**server.surroundings(), "PYTHONPATH": str(PACKAGE.parent)}
        done = subprocess.run(command, env=environment, cwd=project.root, capture_output=True, text=True, check=False)
        found = [each for each in json.loads(done.stdout) if "27.0.0" in str(each) or "27.0.1" in str(each)]
        assert bool(found) is warned, done.stdout


# -- worker classes that start the application in run() ------------------------------------------------------------

LATE = {
    "aiohttp": ("aiohttp.GunicornWebWorker", "aio", "app"),
    "aiohttp factory": ("aiohttp.GunicornWebWorker", "aio", "build"),
    "own class": ("kinds.Starting", "plain", "app"),
}


def late(name: str, tmp_path: Path) -> tuple[Project, str, str, str]:
    """A project whose worker class starts the application in `run`, the class, the file and the application."""
    worker_class, module, application = LATE[name]
    if module == "aio":
        pytest.importorskip("aiohttp")
    return copy_of("starts_late", tmp_path), worker_class, f"{module}.py", f"{module}:{application}"


@pytest.mark.xfail(
    strict=True, reason="a worker counts as ready when run() is entered: told as reloaded, the site is down"
)
@pytest.mark.parametrize("name", LATE)
def test_failed_start_up_in_run_keeps_old_code_serving(name: str, tmp_path: Path) -> None:
    """What raises where the worker class starts the application is refused; the repair goes in."""
    project, worker_class, file, application = late(name, tmp_path)
    with Gunicorn(project, worker_class=worker_class, workers=2, application=application) as server:
        server.wait_for_log("watching")
        project.edit(file, 'FAILURE = ""', 'FAILURE = "no database"')
        server.wait_for_log("refused.*no database", limit=LIMIT)
        assert server.version() == "v1"
        project.edit(file, 'FAILURE = "no database"', 'FAILURE = ""\n')
        project.edit(file, '"v1"', '"v2"')
        server.wait_for_version("v2")


@pytest.mark.xfail(strict=True, reason="a worker counts as ready when run() is entered: workers boot again and again")
@pytest.mark.parametrize("name", LATE)
def test_failed_first_start_up_in_run_waits_for_its_repair(name: str, tmp_path: Path) -> None:
    """Told once; the server does not boot workers again and again."""
    project, worker_class, file, application = late(name, tmp_path)
    project.edit(file, 'FAILURE = ""', 'FAILURE = "no database"')
    with Gunicorn(project, worker_class=worker_class, workers=2, application=application, wait=False) as server:
        server.wait_for_log("does not load.*no database", limit=LIMIT)
        project.edit(file, 'FAILURE = "no database"', 'FAILURE = ""')
        server.wait_ready(LIMIT)
