"""Faults found in the field: what the log and the command line say."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import PACKAGE, Gunicorn, Project, Script, Server, Uwsgi, processes, wait_until
from harness.steering import COMMAND, commanded

from .faces import STAT, cell, copied, in_service, release

pytestmark = pytest.mark.field

needs_django = pytest.mark.skipif(importlib.util.find_spec("django") is None, reason="Django is not installed")
needs_watchfiles = pytest.mark.skipif(
    importlib.util.find_spec("watchfiles") is None, reason="watchfiles is not installed"
)
# Two servers that are silent would hold up a command that asks one after the other for longer than this.
SILENCE = 8.0
WAITS = pytest.mark.xfail(strict=True, reason="each silent server of another project is waited for, 5 s")


def plain(root: Path) -> Project:
    """The small application with its module `part`."""
    project = copied("plain", root)
    project.save("part.py", "VERSION = 'v1'\n")
    return project


# -- explain -----------------------------------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="explain takes one path")
def test_explain_takes_several_paths(tmp_path: Path) -> None:
    """One command explains all files that it is given."""
    plain(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [*COMMAND, "explain", "app.py", "part.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "app.py" in done.stdout and "part.py" in done.stdout


@pytest.mark.xfail(strict=True, reason="explain says not loaded of a program that tells nothing")
def test_explain_does_not_say_not_loaded_of_a_program_that_does_not_tell(tmp_path: Path) -> None:
    """`python -E` reports nothing: whether it has loaded a module nobody knows."""
    plain(tmp_path)
    with Script(tmp_path, sys.executable, "-E", "app.py") as script:
        script.wait_for_log("serving v1")
        code, output, _ = commanded(script, "explain", "part.py")
        assert code == 0 and "part.py" in output
        assert "not loaded" not in output


@pytest.mark.xfail(strict=True, reason="explain says not loaded of a file that is no module")
def test_explain_does_not_say_not_loaded_of_a_listed_file(tmp_path: Path) -> None:
    """A file that is no module is opened, not loaded, and nobody reports that."""
    project = plain(tmp_path)
    project.save("prices.yaml", "one\n")
    with in_service("gunicorn", project, {"WSGI_RELOAD_EXTRA_FILES": "prices.yaml"}, 15.0) as server:
        code, output, _ = commanded(server, "explain", "prices.yaml")
        assert code == 0 and "prices.yaml" in output
        assert "not loaded" not in output


# -- the log -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "face",
    [cell(face, fault="the reload names the folder site-packages only") for face in ("gunicorn", "uwsgi", "run")],
)
def test_change_of_site_packages_names_the_distribution(tmp_path: Path, face: str, limit: float) -> None:
    """Something is installed: the line of the reload names it, not the folder alone."""
    project = plain(tmp_path / "project")
    site = tmp_path / "lib" / "site-packages"
    site.mkdir(parents=True)
    environment = {"PYTHONPATH": os.pathsep.join((str(PACKAGE.parent), str(site)))}
    with in_service(face, project, environment, limit) as server:
        (site / "shiny-1.0.dist-info").mkdir()
        server.wait_for_log(r"(reloaded|restarted) in.*shiny", limit=limit)


@needs_django
@pytest.mark.parametrize("face", [cell("gunicorn"), cell("uwsgi")])
@pytest.mark.xfail(strict=True, reason="the refusal names wsgi.py, which nobody has saved")
def test_bad_installed_apps_entry_names_the_settings_file(tmp_path: Path, face: str, limit: float) -> None:
    """The refusal names the file that was saved; wsgi.py is where Django happened to be called."""
    project = copied("installed_apps", tmp_path)
    application = "shop.wsgi:application"
    server: Server
    if face == "gunicorn":
        server = Gunicorn(project, workers=1, application=application, environment=STAT)
    else:
        server = Uwsgi(project, workers=2, target=("--module", application), environment=STAT)
    with server:
        server.wait_for_version("v1")
        server.wait_for_log(r"watching \d+ files?")
        release(project, "shop/settings.py", '["shop"]', '["shop", "missing_app"]')
        server.wait_for_log("refused.*missing_app")
        server.wait_for_log(r"refused.*settings\.py.*missing_app", limit=limit)


@needs_watchfiles
@pytest.mark.xfail(strict=True, reason="watchfiles is recommended while it is in use")
def test_watchfiles_in_use_is_not_recommended(tmp_path: Path) -> None:
    """Saves are noticed by events; the looks now and then beneath them may take long, and nobody is told to install it."""
    project = plain(tmp_path)
    environment = {**STAT, "WSGI_RELOAD_ENGINE": "watchfiles", "WSGI_RELOAD_BUDGET": "0.0001"}
    with in_service("gunicorn", project, environment, 15.0) as server:
        for number in (1, 2):
            release(project, "part.py", f"v{number}", f"v{number + 1}")
            server.wait_for_version(f"v{number + 1}")
        server.wait_for_log("reloaded in", 2)
        assert "pip install watchfiles" not in server.log


# -- status ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("status",), marks=WAITS),
        pytest.param(("status", "--wait"), marks=WAITS),
        pytest.param(("explain", "app.py"), marks=WAITS),
    ],
    ids=" ".join,
)
def test_command_about_one_project_does_not_wait_for_the_dead_server_of_another(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Two servers of other projects stand still: what is asked about this project's server is shown at once."""
    with ExitStack() as stack:
        mine = Script(plain(tmp_path / "mine").root, "app.py")
        together = {"XDG_RUNTIME_DIR": str(mine.runtime)}
        others = [Script(plain(tmp_path / name).root, "app.py", environment=together) for name in ("other", "third")]
        for each in (mine, *others):
            stack.enter_context(each)
            each.quiet()
        for each in others:
            stack.callback(processes.kill, each.pid, signal.SIGCONT)
            each.send(signal.SIGSTOP)
        with (tmp_path / "shown.txt").open("wb") as shown:
            command = subprocess.Popen(
                [*COMMAND, *words], cwd=mine.project.root, env=mine.surroundings(), stdout=shown, stderr=shown
            )
        stack.callback(command.wait)
        stack.callback(command.kill)
        wait_until(lambda: str(mine.pid) in (tmp_path / "shown.txt").read_text(), "it is shown", SILENCE)
