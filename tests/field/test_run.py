"""Faults found in the field: `wsgi-reload run`, what it tries, starts and waits for."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from harness import PACKAGE, Project, Script, holds, processes, wait_until
from harness.waiting import LIMIT

from .faces import APPS, WATCHING, Run, copied, release

pytestmark = pytest.mark.field

GOOD = "VERSION = 'v1'\n"
BROKEN = "VERSION = undefined_name\n"
REFUSED = r"refused.*undefined_name"
# Its import is fine, and who prints it dies.
DIES = "class Version:\n    def __str__(self):\n        return 1 / 0\n\n\nVERSION = Version()\n"
GUARD = '__name__ in {"__main__", "__mp_main__"}'


def fault(reason: str) -> pytest.MarkDecorator:
    """What goes wrong today."""
    return pytest.mark.xfail(strict=True, reason=reason)


def faulty(*values: Any, reason: str) -> Any:
    """A cell of a table in which that goes wrong today."""
    return pytest.param(*values, marks=fault(reason))


def program(app: str, root: Path) -> Project:
    """A program with the good module `part`."""
    project = copied(app, root)
    project.save("part.py", GOOD)
    return project


def wait_served(script: Script, version: str, limit: float = LIMIT) -> None:
    """Wait until the program has printed that it serves this version."""
    script.wait_for_log(rf"(?m)^serving {version}$", limit=limit)


# -- what a trial executes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "guard", [GUARD, '__name__ in ("__main__", "__mp_main__")', '__name__ == "__main__" or __name__ == "__mp_main__"']
)
@fault("the trial runs the whole program: its guard names __mp_main__, too")
def test_trial_does_not_run_a_script_that_is_guarded_for_multiprocessing_too(
    tmp_path: Path, limit: float, guard: str
) -> None:
    """The program runs once, and its broken save is refused."""
    project = program("nicegui", tmp_path)
    project.save("app.py", (tmp_path / "app.py").read_text().replace(GUARD, guard))
    with Script(tmp_path, "app.py") as script:
        wait_served(script, "v1")
        holds(lambda: (tmp_path / "runs.log").read_text() == ".", "the program runs once", 2.0)
        script.quiet()
        project.save("part.py", BROKEN)
        script.wait_for_log(REFUSED, limit=limit)


# -- what is watched and tried -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tool",
    [
        *(
            faulty(tool, reason="a script that another module runs is not watched")
            for tool in (("cProfile",), ("profile",), ("trace", "--listfuncs"), ("pdb", "-c", "continue"))
        ),
        ("runpy",),
    ],
    ids=lambda tool: tool[0],
)
def test_script_that_another_module_runs_is_watched(tmp_path: Path, limit: float, tool: tuple[str, ...]) -> None:
    """`run -- python -m TOOL app.py`: a save of app.py restarts it."""
    project = program("plain", tmp_path)
    script_name = "app" if tool[0] == "runpy" else "app.py"
    with Script(tmp_path, sys.executable, "-m", *tool, script_name) as script:
        wait_served(script, "v1")
        script.wait_for_log(WATCHING)
        release(project, "app.py", '"serving", VERSION', '"serving", "main 2"')
        wait_served(script, "main 2", limit)


def archive(root: Path, text: str) -> None:
    """Save `app.pyz`, an application in one file whose `__main__` has that text."""
    with zipfile.ZipFile(root / "app.new", "w") as new:
        new.writestr("__main__.py", text)
    os.replace(root / "app.new", root / "app.pyz")


@pytest.mark.parametrize(
    "name",
    [
        "worker.py",
        faulty("worker", reason="a script without a suffix is watched, and not tried"),
        faulty("app.pyz", reason="a zipped application is watched, and not tried"),
    ],
)
def test_broken_save_of_a_script_is_refused_whatever_its_name(tmp_path: Path, limit: float, name: str) -> None:
    """A script without a suffix and a zipped application are tried like any other script."""
    good = re.sub(r"from part import .*\n", GOOD, (APPS / "plain" / "app.py").read_text())
    project = Project(tmp_path)

    def save(text: str) -> None:
        if name == "app.pyz":
            archive(tmp_path, text)
        else:
            project.save(name, text)

    save(good)
    with Script(tmp_path, sys.executable, name) as script:
        wait_served(script, "v1")
        script.quiet()
        save(good.replace(GOOD, BROKEN))
        script.wait_for_log(REFUSED, limit=limit)


@pytest.mark.parametrize(
    "way",
    [
        "plain",
        faulty("link", reason="modules beside the script that a link leads to are not found by the trial"),
        faulty("-P", reason="the trial looks beside the script, where the program does not"),
        faulty("PYTHONSAFEPATH", reason="the trial looks beside the script, where the program does not"),
    ],
)
def test_broken_save_is_refused_however_the_script_is_started(tmp_path: Path, limit: float, way: str) -> None:
    """Modules are found as the program finds them: beside the script that a link leads to, or by PYTHONPATH alone.

    With a safe path, what lies beside the script hides no module of the standard library.
    """
    if way == "-P" and sys.version_info < (3, 11):
        pytest.skip("python -P is new in 3.11")
    project = copied("plain", tmp_path / "project")
    folder = "lib/" if "P" in way else ""
    project.save(f"{folder}part.py", "import uuid\n" + GOOD)
    if folder:
        project.save("uuid.py", "raise ImportError('not the one of the standard library')\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "start.py").symlink_to(project.root / "app.py")
    environment = {"PYTHONPATH": f"{PACKAGE.parent}{os.pathsep}{project.root / 'lib'}"} if folder else {}
    environment |= {"PYTHONSAFEPATH": "1"} if way == "PYTHONSAFEPATH" else {}
    options = ["-P"] if way == "-P" else []
    path = str(tmp_path / "bin" / "start.py") if way == "link" else "app.py"
    with Script(project.root, sys.executable, *options, path, environment=environment) as script:
        wait_served(script, "v1")
        script.quiet()
        project.save(f"{folder}part.py", BROKEN)
        script.wait_for_log(REFUSED, limit=limit)


@fault("the new folder is tried, the old one is started")
def test_folder_that_is_replaced_is_the_one_that_is_started(tmp_path: Path, limit: float) -> None:
    """`mv project old; mkdir project`: what is tried and what is started is the project at the old name."""
    root = tmp_path / "project"
    program("plain", root)
    with Run(root, "app.py") as script:
        wait_served(script, "v1")
        script.quiet()
        program("plain", tmp_path / "new").save("part.py", "VERSION = 'v2'\n")
        os.rename(root, tmp_path / "old")
        os.rename(tmp_path / "new", root)
        wait_served(script, "v2", limit)
        assert os.readlink(f"/proc/{script.program()}/cwd") == str(root)


@fault("a switched release with the same script is not noticed")
def test_switched_release_restarts_the_same_script(tmp_path: Path, limit: float) -> None:
    """`run current/app.py`: `current` leads to another release, with the same app.py and other files beside it."""
    for number in (1, 2):
        shutil.copytree(APPS / "release", tmp_path / f"releases/{number}")
        (tmp_path / f"releases/{number}/version.txt").write_text(f"v{number}")
    (tmp_path / "current").symlink_to("releases/1")
    with Script(tmp_path, "current/app.py") as script:
        wait_served(script, "v1")
        script.quiet()
        (tmp_path / "next").symlink_to("releases/2")
        os.replace(tmp_path / "next", tmp_path / "current")
        wait_served(script, "v2", limit)


# -- how a program ends ------------------------------------------------------------------------------------------------


@fault("exit code 3 waits for a change in spite of broken_start = exit")
def test_broken_start_exit_ends_a_program_that_asks_for_another_start_for_ever(tmp_path: Path, limit: float) -> None:
    """With `broken_start = exit`, exit code 3 three times at once is an end like others: the supervisor's as well."""
    with Script(tmp_path, "sh", "-c", "exit 3", environment={"WSGI_RELOAD_BROKEN_START": "exit"}) as script:
        wait_until(script.exited, "the supervisor ends", limit)
        assert script.ends() == 3


@pytest.mark.parametrize(
    ("sig", "status"), [("SIGKILL", 128 + signal.SIGKILL), ("SIGUSR1", -signal.SIGUSR1), ("SIGUSR2", -signal.SIGUSR2)]
)
@fault("a program that was ended by this signal waits for a change")
def test_program_that_somebody_ended_by_a_signal_is_over(tmp_path: Path, limit: float, sig: str, status: int) -> None:
    """A signal that no fault of the code raises comes from outside: the program is over, and so is the supervisor.

    With the same signal; for SIGKILL with the exit code that shells make of it.
    """
    program("plain", tmp_path)
    with Script(tmp_path, "app.py") as script:
        wait_served(script, "v1")
        script.quiet()
        os.kill(script.program(), signal.Signals[sig])
        wait_until(script.exited, "the supervisor ends", limit)
        assert script.ends() == status


@pytest.mark.parametrize("sig", ["SIGABRT", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"])
def test_program_that_crashed_waits_for_a_save(tmp_path: Path, limit: float, sig: str) -> None:
    """A signal that a fault of the code raises: the log names it, and the next save starts the program."""
    project = program("plain", tmp_path)
    with Script(tmp_path, "app.py") as script:
        wait_served(script, "v1")
        script.quiet()
        os.kill(script.program(), signal.Signals[sig])
        script.wait_for_log(rf"ended.*{sig}", limit=limit)
        project.save("part.py", "VERSION = 'v2'\n")
        wait_served(script, "v2", limit)


# -- refused code ------------------------------------------------------------------------------------------------------


def reloads(root: Path) -> int:
    """The reloads that the metrics file counts."""
    path = root / "metrics.prom"
    found = re.search(r"(?m)^wsgi_reload_reloads_total(?:\{.*\})? (\d+)", path.read_text() if path.exists() else "")
    return int(found[1]) if found else -1


@fault("refused code is started, told and counted as a reload")
def test_refused_code_is_no_reload_when_the_program_asks_for_another_start(tmp_path: Path, limit: float) -> None:
    """The program ends with exit code 3 while its code is refused: it waits, or refused code is tried and said to be.

    Either way nothing is counted or told as a reload before the repair; then that is, once.
    """
    project = program("again", tmp_path)
    environment = {
        "WSGI_RELOAD_METRICS_FILE": str(tmp_path / "metrics.prom"),
        "WSGI_RELOAD_ON_RELOADED": "sh -c 'echo told >> told.log'",
    }
    with Script(tmp_path, "app.py", environment=environment) as script:
        wait_served(script, "v1")
        script.quiet()
        project.save("part.py", BROKEN)
        script.wait_for_log(REFUSED)
        old = script.program()
        told = len(script.log)
        project.save("again", "")
        wait_until(lambda: not processes.alive(old), "the program ended")
        wait_until(lambda: len(script.log) > told, "it is told what comes next", limit)
        assert script.count("restarted in") == 0
        project.save("part.py", "VERSION = 'v2'\n")
        wait_served(script, "v2", limit)
        wait_until(lambda: (tmp_path / "told.log").exists() and reloads(tmp_path) > 0, "the repair is told")
        assert script.count("restarted in") == 1
        assert reloads(tmp_path) == 1
        assert (tmp_path / "told.log").read_text().split() == ["told"]


@fault("restarted is said of a program that ends at once")
def test_restart_of_a_program_that_ends_at_once_is_not_told_as_one(tmp_path: Path, limit: float) -> None:
    """New code whose import is fine and that dies then: the log says that it ended, and of its repair `restarted`."""
    project = program("plain", tmp_path)
    with Script(tmp_path, "app.py") as script:
        wait_served(script, "v1")
        script.quiet()
        project.save("part.py", DIES)
        script.wait_for_log(r"ended.*exit code 1")
        assert script.count("restarted in") == 0
        project.save("part.py", "VERSION = 'v2'\n")
        wait_served(script, "v2", limit)
        assert script.said("restarted in .*part.py")
        assert script.count("restarted in") == 1


# -- what is said ------------------------------------------------------------------------------------------------------


def warned(script: Script, about: str) -> bool:
    """Whether one line of the log is a warning about that which says what to do."""
    lines = [line for line in script.log.splitlines() if re.search(about, line)]
    return any("WARN" in line and re.search(r"--watch|--app|extra_files", line) for line in lines)


@pytest.mark.parametrize(
    "command", [faulty("python -c", reason="that no file is watched is told like all is well"), "no Python"]
)
def test_watching_nothing_is_a_warning(tmp_path: Path, limit: float, command: str) -> None:
    """No file is watched: the line about that is a warning, and names the option that helps."""
    words = [sys.executable, "-c", "import time; time.sleep(600)"] if command == "python -c" else ["sleep", "600"]
    with Script(tmp_path, *words) as script:
        wait_until(lambda: script.count(r"watching \d+ files"), "it watches")
        assert warned(script, "watching 0 files"), script.log


@fault("that nothing can be tried is said with -v only")
def test_new_code_that_cannot_be_tried_is_said(tmp_path: Path, limit: float) -> None:
    """A script that does its work without a guard can only be compiled: one line says so, without -v."""
    project = Project(tmp_path)
    project.save("app.py", "import time\nprint('serving v1', flush=True)\nwhile True:\n    time.sleep(0.05)\n")
    with Script(tmp_path, "app.py") as script:
        wait_served(script, "v1")
        script.quiet()
        wait_until(lambda: "--app" in script.log, "the log says what to do", limit)
