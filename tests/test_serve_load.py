"""`wsgi-reload serve` under load: no visitor is refused, cut off or kept waiting by a save."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from harness import EACH_KIND, Project, Serve, patterns

SAVES = 10
CLIENTS = 8
# What a machine with other things to do may add to one single save.
NOISE = 3.0
# So often it may have everybody wait: fewer times than there are saves.
STANDSTILLS = 3


def project_in(folder: Path, import_seconds: float) -> Project:
    project = Project(folder / "project", import_seconds=import_seconds, handler_seconds=0.01)
    project.release()
    return project


@EACH_KIND
def test_ten_saves(kind: str, tmp_path: Path) -> None:
    """Ten saves: not one request fails, with kept connections where the web server has them; each save is in service in
    about the time its import takes, and nobody waits for that.
    """
    project = project_in(tmp_path, import_seconds=0.3)
    delays = []
    with Serve(project, kind=kind) as server:
        with server.load(CLIENTS) as load:
            usual = load.measure(0.5)
            began = load.answers[-1].end
            for _ in range(SAVES):
                saved = project.release()
                delays.append(load.seconds(saved, load.wait_for(project.version)))
                load.wait_for_only(project.version)
        assert load.failed == []
        assert statistics.median(delays) <= 0.3 + 0.7, delays
        assert max(delays) <= 0.3 + 0.7 + NOISE, delays
        # An import takes 0.3 s: who had to wait for one would be among these.
        slow = [answer.duration for answer in load.answers if answer.start > began and answer.duration > usual + 0.3]
        assert len(slow) <= STANDSTILLS * CLIENTS, load.summary()
        server.wait_for_log(patterns.SERVE_RELOADED, SAVES)
        assert server.count(patterns.SERVE_RELOADED) == SAVES
        assert server.count(patterns.REFUSED) == 0
        server.program()


@pytest.mark.counts
@EACH_KIND
def test_good_broken_and_repaired_in_turn(kind: str, tmp_path: Path) -> None:
    """A broken save between two good ones is never answered, costs no request, and is told once."""
    project = project_in(tmp_path, import_seconds=0.1)
    with Serve(project, kind=kind) as server:
        with server.load(CLIENTS) as load:
            good = {project.version}
            for number in range(1, SAVES // 2 + 1):
                project.broken(bottom="import no_such_module" if number % 2 else "def")
                server.wait_for_log(patterns.REFUSED, number)
                load.run(50)
                project.release()
                good.add(project.version)
                load.wait_for_only(project.version)
        assert load.failed == []
        assert load.versions(0.0) == good
        assert server.count(patterns.REFUSED) == SAVES // 2
        server.wait_for_log(patterns.SERVE_RELOADED, SAVES // 2)
        assert server.count(patterns.SERVE_RELOADED) == SAVES // 2
        server.program()
