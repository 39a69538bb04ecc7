"""An impatient author: saves without a pause, deaths in between, and a server that stays what it was."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from harness import HAVE_UWSGI, Project, Uwsgi, patterns, processes, wait_until
from harness.waiting import quietly

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")

SAVES = 25
BREAKAGES = ("undefined_name", "def", "os._exit(3)", "raise SystemExit(4)")


def most_files(server: Uwsgi) -> int:
    """The largest number of open files that a worker has."""
    return max((processes.open_files(pid) for pid in server.workers()), default=0)


@pytest.mark.load
def test_many_saves_and_deaths(tmp_path: Path) -> None:
    """25 saves, 1 in 5 broken, every worker killed once, the leader's too: the last good code wins, nothing grows."""
    chance = random.Random("storm")
    project = Project(tmp_path / "project", import_seconds=0.05)
    project.release()
    with Uwsgi(project) as server:
        server.wait_log(patterns.WATCHING)
        with server.load() as load:
            project.release()
            load.wait_for_only(project.version)
            server.wait_log(patterns.RELOADED)
            server.wait_for_workers(4)
            files = processes.open_files(server.pid)
            worker_files = most_files(server)
            killed: set[int] = set()
            for number in range(SAVES):
                if number % 5 == 3:
                    project.broken(top=chance.choice(BREAKAGES))
                else:
                    project.release()
                if number % 6 == 5:
                    # Four times: whoever leads is among them sooner or later.
                    victim = chance.choice(server.workers())
                    killed.add(victim)
                    processes.kill(victim)
                time.sleep(chance.uniform(0.1, 0.4))
            project.release()
            load.wait_for_only(project.version, 30.0)
            server.wait_for_workers(4)
        # Who is killed takes the request along that he has; nobody else loses one.
        assert len(load.failed) <= len(killed), load.summary()
        assert "broken" not in load.versions(0.0)
        wait_until(lambda: processes.open_files(server.pid) <= files, f"no more than {files} open files")
        # The last of the old ones may still be about to leave.
        wait_until(
            lambda: (quietly(lambda: most_files(server)) or worker_files + 1) <= worker_files,
            f"no worker with more than {worker_files} open files",
        )
        assert server.count("Traceback.*\n.*wsgi_reload_hooks") == 0
        # A save that comes while workers are replaced joins those before it.
        wait_until(lambda: server.count(patterns.RELOADED) > 1, "more reloads than the first")


def test_every_worker_may_die_while_it_leads(project: Project) -> None:
    """Each of the workers killed once, one after the other: there is always a next leader, and it knows everything."""
    with Uwsgi(project, workers=3) as server:
        server.wait_log(patterns.WATCHING)
        for number in range(1, 4):
            # Each save replaces all of them.
            pid = server.workers()[number - 1]
            processes.kill(pid)
            wait_until(lambda pid=pid: pid not in server.workers(), "it is gone")  # type: ignore[misc]
            server.wait_for_workers(3)
            project.release()
            server.wait_for_version(project.version)
            server.wait_log(patterns.RELOADED, number)
        assert server.count(patterns.WATCHING) == 1


def test_the_end_in_the_middle_of_a_roll(project: Project) -> None:
    """An interrupt that a worker swallows, forked a moment ago with the master's handlers, ends all the same."""
    with Uwsgi(project, workers=2) as server:
        server.wait_log(patterns.WATCHING)
        project.release()
        server.wait_for_version(project.version)
        server.stop()


@pytest.mark.load
@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "forked"])
def test_told_to_end_while_a_worker_ends(lazy: bool, project: Project) -> None:
    """An interrupt in the middle of a roll, when a worker takes its time to end: that does not keep it from ending."""
    ending = "import atexit\natexit.register(lambda: (open('ending', 'w').close(), time.sleep(1.0)))"
    project.release(bottom=ending)
    with Uwsgi(project, workers=2, lazy=lazy) as server:
        server.wait_for_log(patterns.WATCHING)
        project.release(bottom=ending)
        wait_until((project.root / "ending").exists, "a worker is ending")
