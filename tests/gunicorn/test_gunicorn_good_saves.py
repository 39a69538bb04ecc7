"""A good save goes into service, and nobody waits for it."""

from __future__ import annotations

import itertools
import signal
import time
from pathlib import Path

import pytest
from harness import UVICORN, Gunicorn, Project, assert_mostly, each, one_at_a_time, patterns, project_for, wait_until
from harness.waiting import LIMIT

SAVES = 5
IMPORT_SECONDS = 0.6
# What a machine with other things to do may add to one single save.


def longer(worker_class: str) -> float:
    """How much a reload may add to the longest request."""
    return 0.2 if one_at_a_time(worker_class) else 0.1


def own_start(worker_class: str) -> float:
    """What a worker does before the import, with and without us: gevent's patches take 0.05 s, four on two processors."""
    return 0.1 if worker_class == "gevent" else 0.0


def overlap(worker_class: str) -> float:
    """How long old code may answer beside the new.

    asgi and gevent look at their stop flag once a second; a tornado worker that answers one request after the other
    may have accepted all sixteen.
    """
    if worker_class in ("asgi", "gevent"):
        return 1.2
    return 0.1 + 16 * 0.02 if worker_class == "tornado" and one_at_a_time(worker_class) else 0.1


@pytest.mark.load
@each(versions=("sync", "gthread"), matrix=("gthread", "tornado"))
def test_five_saves_under_load(worker_class: str, tmp_path: Path) -> None:
    """Five saves under load: no request fails, none waits for the import, the new code is there soon after it."""
    project = project_for(worker_class, tmp_path / "project", import_seconds=IMPORT_SECONDS)
    project.release()
    versions = [project.version]
    delays, times = [], []
    with Gunicorn(project, worker_class=worker_class) as server:
        server.wait_for_log(patterns.WATCHING)
        with server.load() as load:
            usual = load.measure(3.0)
            for number in range(1, SAVES + 1):
                saved = project.release()
                times.append(saved)
                versions.append(project.version)
                delays.append(load.seconds(saved, load.wait_for(project.version)))
                load.wait_for_only(project.version)
                server.wait_for_log(patterns.RELOADED, number)
        assert load.failed == []
        longest = load.longest_after(times)
        assert_mostly(longest, usual + longer(worker_class))
        soon = IMPORT_SECONDS + own_start(worker_class) + 0.4
        assert_mostly(delays, soon)
        overlaps = [load.seconds(load.first(new), load.last(old)) for old, new in itertools.pairwise(versions)]
        assert_mostly(overlaps, overlap(worker_class))
        assert server.count(patterns.RELOADED) == SAVES
        assert server.count(patterns.REFUSED) == 0
        server.wait_for_workers(4)


@pytest.mark.load
@each(("gthread", UVICORN), matrix=(UVICORN,))
def test_nobody_waits_for_an_import_that_needs_the_processor(worker_class: str, tmp_path: Path) -> None:
    """Four workers whose import is work for the processor: requests still go through."""
    project = project_for(worker_class, tmp_path / "project", import_seconds=0.0)
    work = "end = time.process_time() + 0.4\nwhile time.process_time() < end:\n    pass\n"
    project.release(top=work)
    times = []
    with Gunicorn(project, worker_class=worker_class) as server:
        server.wait_for_log(patterns.WATCHING)
        with server.load(clients=4) as load:
            load.run(50)
            for _ in range(3):
                times.append(project.release(top=work))
                load.wait_for(project.version)
                load.wait_for_only(project.version)
        assert load.failed == []
        longest = load.longest_after(times)
        # Four such imports on two processors take 0.8 s; plain gunicorn lets visitors wait for all of it.
        assert_mostly(longest, 0.6)


@each(("sync", "gthread", "gevent"))
def test_surge_rolls_one_worker_at_a_time(worker_class: str, tmp_path: Path) -> None:
    """With surge 1 there is never more than one worker too many, and no request fails."""
    project = Project(tmp_path / "project")
    project.release()
    environment = {"WSGI_RELOAD_SURGE": "1"}
    # Kept-alive connections may hold an old gevent worker for a moment after its successor is there.
    most = 5 if worker_class == "sync" else 6
    with Gunicorn(project, worker_class=worker_class, environment=environment) as server:
        server.wait_for_log(patterns.WATCHING)
        with server.load() as load:
            before = server.workers()
            project.release()
            seen = 0

            def all_replaced() -> bool:
                nonlocal seen
                now = server.workers()
                seen = max(seen, len(now))
                return len(now) == 4 and not set(now) & set(before)

            # Four workers boot one after the other, and each may take what one may.
            wait_until(all_replaced, "every worker is a new one", 4 * LIMIT)
            load.wait_for_only(project.version)
        assert load.failed == []
        assert seen <= most
        # Told when the arbiter, too, has seen the last one leave.
        server.wait_for_log(patterns.RELOADED)
        assert server.count(patterns.RELOADED) == 1
        # However seldom we could look: the first of the old ones leaves when a new one is there.
        until_the_first_left = server.log[: server.log.index("Worker exiting")]
        assert len(patterns.find(patterns.BOOTING, until_the_first_left)) > 4


@pytest.mark.adapters
def test_surge_refuses_broken_code_and_keeps_all_workers(project: Project) -> None:
    """With surge 1 broken code is refused once, and the old version stays whole."""
    with Gunicorn(project, environment={"WSGI_RELOAD_SURGE": "1"}) as server:
        with server.load() as load:
            project.broken(top="undefined_name")
            server.wait_for_log(patterns.REFUSED)
            load.run(100)
            server.wait_for_workers(4)
            good = project.version
            project.release()
            load.wait_for_only(project.version)
        assert load.failed == []
        assert load.versions(0.0) == {good, project.version}
        assert server.count(patterns.REFUSED) == 1


@pytest.mark.adapters
def test_a_save_during_the_boot_starts_over(tmp_path: Path) -> None:
    """Saved again while the new workers import: only the last version is ever answered."""
    project = Project(tmp_path / "project", import_seconds=0.4)
    project.release()
    first = project.version
    go = project.root / "go"
    with Gunicorn(project) as server:
        # The last worker of the start would serve the second version beside the first.
        server.wait_for_log(patterns.WATCHING)
        with server.load() as load:
            project.release(top=f"while not os.path.exists({str(go)!r}):\n    time.sleep(0.01)")
            server.wait_for_log(patterns.BOOTING, 5)
            project.release()
            # What is loaded is old by now, whoever notices first.
            go.write_text("")
            load.wait_for_only(project.version)
        assert load.failed == []
        assert load.versions(0.0) == {first, project.version}
        server.wait_for_workers(4)


def test_a_save_during_the_switch_follows_at_once(tmp_path: Path) -> None:
    """Saved again at the moment of the switch: the last version comes, and no worker is left over."""
    project = Project(tmp_path / "project")
    project.release()
    with Gunicorn(project) as server:
        with server.load() as load:
            project.release()
            load.wait_for(project.version)
            project.release()
            load.wait_for_only(project.version)
        assert load.failed == []
        server.wait_for_workers(4)


@pytest.mark.adapters
def test_a_slow_request_is_finished_by_the_code_that_began_it(tmp_path: Path) -> None:
    """A request that takes longer than the reload is answered, by the version that took it."""
    project = Project(tmp_path / "project", import_seconds=0.05, handler_seconds=1.0)
    project.release()
    first = project.version
    with Gunicorn(project, worker_class="gthread") as server:
        with server.load(clients=1) as load:
            began = time.monotonic()
            project.release()
            server.wait_for_log(patterns.RELOADED)
            load.wait_for(project.version)
        assert load.failed == []
        assert {answer.version for answer in load.answers if answer.start < began} == {first}
        server.wait_for_workers(4)


def test_retirees_do_not_pile_up(tmp_path: Path) -> None:
    """Slow requests hold old workers; ten saves later there are not ten sets of them, and none is cut off."""
    project = Project(tmp_path / "project", import_seconds=0.05, handler_seconds=1.0)
    project.release()
    with Gunicorn(project, worker_class="gthread", workers=2) as server:
        with server.load(clients=4) as load:
            most = 0
            for _ in range(10):
                project.release()
                began = time.monotonic()

                def next_save_is_due(began: float = began) -> bool:
                    nonlocal most
                    most = max(most, len(server.workers()))
                    return time.monotonic() - began > 0.3

                wait_until(next_save_is_due, "the pace of an impatient author")
            load.wait_for(project.version)
        assert load.failed == []
        assert most <= 2 * 5
        server.wait_for_workers(2)


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_a_worker_that_dies_is_replaced_with_what_runs(worker_class: str, project: Project) -> None:
    """A worker killed from outside comes back, before and after a reload."""
    with Gunicorn(project, worker_class=worker_class) as server:
        for _ in range(2):
            # The first answers before the last is there.
            server.wait_for_log(patterns.WATCHING)
            server.end_worker(server.workers()[0], signal.SIGKILL)
            server.wait_for_workers(4)
            project.release()
            server.wait_for_version(project.version)
            server.wait_for_workers(4)
