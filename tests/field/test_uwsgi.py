"""uWSGI: what a reload counts, executes, tries and imports."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from django_site import HAVE_DJANGO
from harness import HAVE_UWSGI, Project, Uwsgi, patterns, wait_until
from harness.waiting import quietly

pytestmark = [pytest.mark.field, pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")]

LIMIT = 10.0
TAKEN = "Address already in use"
THROTTLED = r"worker respawning too fast"
HELD = """
import uwsgi
# Of the new code only the third worker waits: a child of the master, which a trial is not.
while uwsgi.worker_id() == 3 and os.getppid() == uwsgi.masterpid() and not os.path.exists("go"):
    time.sleep(0.01)
"""


def respawned(server: Uwsgi, number: int) -> list[int]:
    """The pids of worker *number*, in their order."""
    pattern = rf"(?:spawned uWSGI worker {number} \(|Respawned uWSGI worker {number} \(new )pid: (?P<pid>\d+)"
    return [int(found["pid"]) for found in patterns.find(pattern, server.log)]


def kill_until(server: Uwsgi, number: int, enough: str) -> None:
    """Kill worker *number* each time it is there, until uWSGI's log says that."""

    def killed() -> bool:
        with_it = respawned(server, number)[-1]
        if with_it in server.workers():
            os.kill(with_it, signal.SIGKILL)
        return bool(server.count(enough))

    wait_until(killed, f"uWSGI says {enough!r}")


@pytest.mark.xfail(strict=True, reason="only the workers that exist are counted, not those that uWSGI has yet to fork")
def test_reload_is_over_when_every_worker_is_there(project: Project) -> None:
    """Workers die during a reload, and uWSGI sleeps before it forks the next one: the reload waits for that worker."""
    with Uwsgi(project, "--forkbomb-delay", "6", workers=3) as server:
        server.wait_for_log(patterns.WATCHING)
        server.wait_for_workers(3)
        project.release(top=HELD)
        wait_until(lambda: len(respawned(server, 3)) > 1, "worker 3 imports the new code")
        old = respawned(server, 2)[-1]
        os.kill(old, signal.SIGKILL)
        server.wait_for_version(project.version)
        kill_until(server, 1, THROTTLED)
        (project.root / "go").touch()
        assert server.wait_for_log(patterns.RELOADED)["workers"] == "3"


ELSEWHERE = {
    "at import": ((), "os.chdir('elsewhere')"),
    "hook-post-fork": (("--hook-post-fork", "chdir:elsewhere"), ""),
    "chdir2": (("--chdir2", "elsewhere"), ""),
}


@pytest.mark.parametrize("how", ELSEWHERE)
@pytest.mark.xfail(strict=True, reason="a working directory other than chdir is taken for a release that was switched")
def test_application_in_another_working_directory_is_rolled(how: str, project: Project) -> None:
    """The workers stand in a folder of their own choice: a save replaces them one after the other."""
    options, top = ELSEWHERE[how]
    (project.root / "elsewhere").mkdir()
    project.release(top=top)
    root = str(project.root)
    with Uwsgi(project, "--chdir", root, "--pythonpath", root, *options, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        project.release(top=top)
        server.wait_for_version(project.version)
        server.wait_for_log(patterns.RELOADED)
        assert server.execs() == 0


RELEASE = {
    "chdir": ("--chdir", "{current}"),
    "chdir, another working directory": ("--chdir", "{current}", "--hook-post-fork", "chdir:/"),
    "pythonpath": ("--pythonpath", "{current}"),
    "wsgi-file": ("--wsgi-file", "{current}/app.py", "--callable", "app"),
}


unnoticed = pytest.mark.xfail(strict=True, reason="files are watched in the old release, and nothing changes there")


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("chdir", marks=unnoticed),
        pytest.param("chdir, another working directory", marks=unnoticed),
        "pythonpath",
        "wsgi-file",
    ],
)
def test_release_that_is_switched_goes_into_service(how: str, tmp_path: Path) -> None:
    """A link to the folder of a release leads to the next one: its code is served."""
    current = tmp_path / "current"
    first, second = Project(tmp_path / "release-1"), Project(tmp_path / "release-2")
    first.save("app.py", first.source("v1"))
    second.save("app.py", second.source("v2"))
    current.symlink_to(first.root)
    options = [each.format(current=current) for each in RELEASE[how]]
    standing = Project(tmp_path / "standing")
    target: Sequence[str] = () if "wsgi-file" in how else ("--module", "app:app")
    with Uwsgi(standing, *options, workers=2, target=target) as server:
        server.wait_for_log(patterns.WATCHING)
        assert server.version() == "v1"
        (tmp_path / "next").symlink_to(second.root)
        os.replace(tmp_path / "next", current)
        server.wait_for_version("v2", limit=LIMIT)


a_worker = pytest.mark.xfail(strict=True, reason="the trial has the number of a worker, and binds what that has bound")


@pytest.mark.parametrize(
    ("lazy", "workers", "condition"),
    [
        pytest.param(True, 1, "number == 1", marks=a_worker),
        pytest.param(True, 2, "number > 0", marks=a_worker),
        (False, 2, "number == 0"),
    ],
    ids=["worker 1", "each worker", "the master"],
)
def test_trial_is_no_process_that_runs_code_once(lazy: bool, workers: int, condition: str, tmp_path: Path) -> None:
    """Code that binds an address in a certain process does not in a trial: a good save goes in."""
    project = Project(tmp_path / "project")
    project.copy("uwsgi_ports")
    project.edit("app.py", "return True", f"return {condition}")
    with Uwsgi(project, workers=workers, lazy=lazy) as server:
        server.wait_for_log(patterns.WATCHING)
        project.edit("app.py", '"v1"', '"v2"')
        wait_until(lambda: server.version() == "v2" or server.count(TAKEN), "the save is served or refused")
        assert server.count(TAKEN) == 0


@pytest.mark.xfail(strict=True, reason="the refusal does not say how code can see that it is only tried")
def test_refusal_for_a_taken_address_names_the_variable_of_the_trial(tmp_path: Path) -> None:
    """Code that binds an address wherever it is imported is refused, with the variable that tells it of a trial."""
    project = Project(tmp_path / "project")
    project.copy("uwsgi_ports")
    with Uwsgi(project, workers=1) as server:
        server.wait_for_log(patterns.WATCHING)
        project.edit("app.py", '"v1"', '"v2"')
        refusal = server.wait_for_log("refused.*" + TAKEN)
        wait_until(
            lambda: re.search(r"WSGI_(?:TRIAL|REHEARSAL)", server.log[refusal.start() :]), "the variable is named", 3.0
        )


@pytest.mark.skipif(not HAVE_DJANGO, reason="Django is not installed")
@pytest.mark.parametrize("when", ["start", "save"])
@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "not lazy"])
@pytest.mark.xfail(strict=True, reason="Django's URLs and views are imported by the first request of each worker")
def test_workers_import_the_urls_of_django_before_the_first_request(lazy: bool, when: str, tmp_path: Path) -> None:
    """A worker that takes requests has imported the URLs and the views: no visitor waits for that."""
    project = Project(tmp_path / "project")
    project.copy("uwsgi_django")
    with Uwsgi(project, workers=2, lazy=lazy, wait=False) as server:
        server.wait_for_log(patterns.WATCHING)
        if when == "save":
            project.edit("app.py", '"v1"', '"v2"')
            server.wait_for_log(patterns.RELOADED)
        found: dict[int, str] = {}

        def met() -> bool:
            found.clear()
            found.update(quietly(lambda: server.answers("/state")) or {})
            return sorted(found) == server.workers()

        wait_until(met, lambda: f"each worker answers; the last were {found}")
        assert set(found.values()) == {"imported"}
