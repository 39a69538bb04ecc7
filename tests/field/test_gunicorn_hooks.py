"""Hooks of the user's own configuration: when they are called, and what becomes of a reload in which one raises."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from harness import Gunicorn, Project, wait_until

pytestmark = pytest.mark.field

LIMIT = 6.0


def start(tmp_path: Path, app: str, *options: str) -> Gunicorn:
    """Two workers, as the configuration of *app* says."""
    project = Project(tmp_path / "project")
    project.copy(app)
    return Gunicorn(project, *options, workers=0, configuration="gunicorn.conf.py")


def wait_for_numbers(server: Gunicorn, version: str) -> None:
    """Both workers answer *version*, one with the number 1, one with 2."""
    expected = {1: version, 2: version}
    wait_until(lambda: server.answers() == expected, lambda: f"{expected}; it is {server.answers()}", LIMIT)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            [],
            id="plain",
            marks=pytest.mark.xfail(
                strict=True, reason="on_reload comes after pre_fork, which then has no number to lend: no save goes in"
            ),
        ),
        pytest.param(
            ["--preload"],
            id="preload",
            marks=pytest.mark.xfail(
                strict=True, reason="a zygote forks all workers with the same list of workers: all get the number 1"
            ),
        ),
    ],
)
def test_numbers_lent_to_workers_survive_saves_and_deaths(options: list[str], tmp_path: Path) -> None:
    """The recipe that lends each worker a number: saves go in, a killed worker is replaced, each number is there once."""
    with start(tmp_path, "worker_ids", *options) as server:
        wait_for_numbers(server, "v1")
        server.project.edit("app.py", '"v1"', '"v2"')
        wait_for_numbers(server, "v2")
        server.end_worker(server.workers()[0], signal.SIGKILL)
        wait_for_numbers(server, "v2")
        server.project.edit("app.py", '"v2"', '"v3"')
        wait_for_numbers(server, "v3")


@pytest.mark.parametrize(
    ("way", "options"),
    [
        pytest.param("save", [], id="save"),
        pytest.param("hup", [], id="hup"),
        pytest.param("save", ["--preload"], id="save-preload"),
    ],
)
def test_on_reload_is_called_before_new_workers_are_forked(way: str, options: list[str], tmp_path: Path) -> None:
    """As in gunicorn: what it prepares is there in `pre_fork`."""
    with start(tmp_path, "hooks_that_raise", *options) as server:
        server.wait_for_log("watching")
        called = server.project.root / "called"
        before = len(called.read_text().splitlines())
        if way == "hup":
            server.hup()
        else:
            server.project.edit("app.py", '"v1"', '"v2"')
        server.wait_for_log("reloaded in")
        hooks = [hook for hook in called.read_text().splitlines()[before:] if hook in ("on_reload", "pre_fork")]
        assert hooks[:2] == ["on_reload", "pre_fork"], hooks


@pytest.mark.parametrize(
    ("hook", "options"),
    [
        pytest.param("pre_fork", [], id="pre_fork"),
        pytest.param("pre_fork", ["--preload"], id="pre_fork-preload"),
        pytest.param("post_fork", [], id="post_fork"),
        pytest.param("post_worker_init", [], id="post_worker_init"),
    ],
)
def test_hook_that_raises_refuses_the_save(hook: str, options: list[str], tmp_path: Path) -> None:
    """It is refused by the name of the hook, the old code serves, and the next change heals."""
    with start(tmp_path, "hooks_that_raise", *options) as server:
        project = server.project
        server.wait_for_log("watching")
        flag = project.root / f"raise-{hook}"
        flag.touch()
        project.edit("app.py", '"v1"', '"v2"')
        server.wait_for_log(rf"(?s)refused.{{0,2000}}\b{hook}\b", limit=LIMIT)
        assert server.version() == "v1"
        flag.unlink()
        project.edit("app.py", '"v2"', '"v3"')
        server.wait_for_version("v3", limit=LIMIT)
        server.wait_for_workers(2)


@pytest.mark.parametrize(
    "hook",
    [
        "on_reload",
        "worker_exit",
        pytest.param(
            "child_exit",
            marks=pytest.mark.xfail(
                strict=True, reason="a child_exit that raises when a save retires old workers ends the whole server"
            ),
        ),
    ],
)
def test_hook_that_raises_does_not_stop_reloading(hook: str, tmp_path: Path) -> None:
    """It is named, and the saves after it go in."""
    with start(tmp_path, "hooks_that_raise") as server:
        project = server.project
        server.wait_for_log("watching")
        flag = project.root / f"raise-{hook}"
        flag.touch()
        project.edit("app.py", '"v1"', '"v2"')
        server.wait_for_log(rf"\b{hook}\b", limit=LIMIT)
        flag.unlink()
        project.edit("app.py", '"v2"', '"v3"')
        server.wait_for_version("v3", limit=LIMIT)
        server.wait_for_workers(2)
