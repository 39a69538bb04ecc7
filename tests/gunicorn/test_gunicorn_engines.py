"""Both engines at work in a real gunicorn: one reload for one change, and a listener that belongs to its arbiter."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from harness import Gunicorn, Project, holds, patterns, processes, wait_until

from wsgi_reload_hooks.watching.listener import extension

needs_watchfiles = pytest.mark.skipif(extension() is None, reason="watchfiles is not installed")
ENGINES = [pytest.param("watchfiles", marks=needs_watchfiles), "stat"]
BY_EVENTS = {"WSGI_RELOAD_ENGINE": "watchfiles"}


def listeners(server: Gunicorn) -> list[int]:
    return [pid for pid in processes.children(server.pid) if processes.is_listener(pid)]


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_switch_of_branch_is_one_reload(engine: str, tmp_path: Path) -> None:
    """`git checkout` of another version of 200 loaded files: one reload, and every worker has all of the new one."""
    modules = [f"m{number}" for number in range(200)]
    check = f"assert {{{', '.join(f'{name}.VALUE' for name in modules)}}} == {{VERSION}}"
    project = Project(tmp_path / "project", imports=f"import {', '.join(modules)}")
    git(project.root, "init")
    for version in ("v1", "v2"):
        for name in modules:
            project.save(f"{name}.py", f"VALUE = {version!r}\n")
        project.release(bottom=check)
        assert project.version == version
        git(project.root, "add", ".")
        git(project.root, "commit", "-m", version)
    git(project.root, "branch", "two")
    git(project.root, "checkout", "HEAD~1")
    with Gunicorn(project, workers=2, environment={"WSGI_RELOAD_ENGINE": engine}) as server:
        server.wait_for_log(patterns.WATCHING)
        assert server.version() == "v1"
        git(project.root, "checkout", "two")
        server.wait_for_version("v2")
        server.wait_for_log(patterns.RELOADED)
        holds(lambda: server.count(patterns.RELOADED) == 1, "one reload", seconds=0.5)
        assert server.count(patterns.REFUSED) == 0


@pytest.mark.adapters
@needs_watchfiles
def test_the_listener_ends_with_its_arbiter(project: Project) -> None:
    """One process beside the workers, killed arbiter or not."""
    with Gunicorn(project, "--timeout", "2", workers=2, environment=BY_EVENTS) as server:
        server.wait_for_log(patterns.WATCHING)
        (listener,) = listeners(server)
        server.send(signal.SIGKILL)
        assert server.exit_status() == -signal.SIGKILL
        wait_until(lambda: not processes.alive(listener), "the listener left by itself")
        wait_until(lambda: not server.processes(), "the workers left by themselves")
        server.forget()


@pytest.mark.adapters
@needs_watchfiles
def test_a_listener_that_is_killed(project: Project) -> None:
    """One line of ours; saves are served as before, and gunicorn misses no worker."""
    with Gunicorn(project, workers=2, environment=BY_EVENTS) as server:
        server.wait_for_log(patterns.WATCHING)
        workers = server.workers()
        (listener,) = listeners(server)
        processes.kill(listener)
        server.wait_for_log(patterns.OURS + "the process that listens for events has ended")
        assert server.workers() == workers
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_log(patterns.RELOADED)


@pytest.mark.soak
@needs_watchfiles
def test_many_forks_and_reloads_leave_one_listener(project: Project) -> None:
    """No worker keeps anything of it open: it is the arbiter's alone, through HUPs and saves."""
    with Gunicorn(project, workers=2, environment=BY_EVENTS) as server:
        server.wait_for_log(patterns.WATCHING)
        first, files = listeners(server), 0
        for number in range(1, 7):
            project.release()
            server.wait_for_version(project.version)
            server.wait_for_log(patterns.RELOADED, number)
            # From the first save on there is the process that compiles.
            files = files or processes.open_files(server.pid)
        assert listeners(server) == first
        wait_until(lambda: processes.open_files(server.pid) <= files, "no file descriptor more than before")


@needs_watchfiles
def test_the_project_vanishes_and_comes_back(project: Project) -> None:
    """The whole folder deleted: the old code serves, one refusal; written anew, it is served."""
    with Gunicorn(project, workers=2, environment=BY_EVENTS) as server:
        server.wait_for_log(patterns.WATCHING)
        served = project.version
        shutil.rmtree(project.root)
        server.wait_for_log(patterns.REFUSED)
        assert server.version() == served
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_log(patterns.RELOADED)
        project.release()
        server.wait_for_version(project.version)
        assert server.count(patterns.REFUSED) == 1
