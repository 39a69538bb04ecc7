"""`preload_app` under load: no request fails, none waits for an import, and nothing grows."""

from __future__ import annotations

import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from breakages import BOOT_TIMEOUT, BREAKAGES, LIFESPAN, assert_calm, project_with_dependencies
from harness import (
    UVICORN,
    Gunicorn,
    Project,
    assert_mostly,
    each,
    is_asgi,
    one_at_a_time,
    patterns,
    processes,
    project_for,
    wait_until,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs what only Linux does with orphans")

IMPORT_SECONDS = 0.2
# What a machine with other things to do may add to one single save.
NOISE = 3.0


@pytest.mark.load
@pytest.mark.matrix
@each(versions=("gthread",))
def test_preloaded_each_breakage_and_its_repair(worker_class: str, tmp_path: Path) -> None:
    """Every kind of broken code: one report, no worker booted, no failed request; the repair is served soon."""
    project = project_with_dependencies(tmp_path / "project", worker_class)
    with Gunicorn(project, "--preload", worker_class=worker_class, environment=BOOT_TIMEOUT) as server:
        server.wait_for_workers(4)
        with server.load() as load:
            for number, breakage in enumerate(BREAKAGES, 1):
                boots = server.count(patterns.BOOTING)
                breakage.do(project)
                report = server.wait_for_log(patterns.REFUSED, number)
                assert re.search(breakage.why, report["why"]), (breakage.name, report["why"])
                refused = time.monotonic()
                assert_calm(server, boots, number, breakage.name)
                assert load.versions(refused) == {project.version}, breakage.name
                breakage.repair(project)
                project.release()
                load.wait_for(project.version)
                load.wait_for_only(project.version)
                server.wait_for_log(patterns.RELOADED, number)
            if is_asgi(worker_class):
                # Only a worker can find this out.
                LIFESPAN.do(project)
                report = server.wait_for_log(patterns.REFUSED, len(BREAKAGES) + 1)
                assert re.search(LIFESPAN.why, report["why"])
                project.release()
                load.wait_for_only(project.version)
        assert load.failed == []
        server.wait_for_workers(4)
        assert "broken" not in load.versions(0.0)
        assert server.count(r"out of memory") == 0


@pytest.mark.load
@each(versions=("sync",), matrix=("gthread", "gevent", "tornado", "asgi", UVICORN))
def test_preloaded_saves_under_load(worker_class: str, tmp_path: Path) -> None:
    """Saves whose import is work for the processor: no request fails or waits for it."""
    project = project_for(worker_class, tmp_path / "project", import_seconds=0.0)
    work = "end = time.process_time() + 0.4\nwhile time.process_time() < end:\n    pass\n"
    project.release(top=work)
    delays = []
    with Gunicorn(project, "--preload", worker_class=worker_class) as server:
        with server.load(clients=4 if not one_at_a_time(worker_class) else 8) as load:
            usual = load.measure(1.0)
            began = time.monotonic()
            for number in range(1, 4):
                saved = project.release(top=work)
                delays.append(load.seconds(saved, load.wait_for(project.version)))
                load.wait_for_only(project.version)
                server.wait_for_log(patterns.RELOADED, number)
        assert load.failed == []
        assert_mostly([load.longest(began)], usual + 0.4 + NOISE, 0.0)
        # One import, however many workers.
        assert_mostly(delays, 0.4 + 0.8)
        server.wait_for_workers(4)


@each(("sync", "gthread"), matrix=("gthread",))
def test_preloaded_max_requests_while_the_disk_is_broken(worker_class: str, project: Project) -> None:
    """Workers that have had their number are replaced, with the old code, and no request fails."""
    # Kept-alive connections are dropped at max_requests by gthread before 24.0, with and without us.
    with Gunicorn(project, "--preload", "--max-requests", "30", worker_class=worker_class) as server:
        with server.load(keep_alive=False) as load:
            load.run(50)
            project.broken(top="undefined_name")
            server.wait_for_log(patterns.REFUSED)
            boots, began = server.count(patterns.BOOTING), time.monotonic()
            server.wait_for_log(patterns.BOOTING, boots + 4)
            load.run(100)
            assert load.versions(began) == {project.version}
            project.release()
            load.wait_for_only(project.version)
        assert load.failed == []
        server.wait_for_workers(4)


def test_preloaded_deaths_under_load(project: Project) -> None:
    """Zygotes that are killed, kept or at work, cost no request."""
    with Gunicorn(project, "--preload", worker_class="gthread") as server:
        with server.load() as load:
            for number in range(1, 4):
                wait_until(lambda: zygotes(server), "a zygote")
                for pid in zygotes(server):
                    processes.kill(pid)
                project.release()
                load.wait_for_only(project.version)
                wait_until(lambda: len(zygotes(server)) == 1, "the one that is kept")
                project.broken(top="time.sleep(60)")
                wait_until(lambda: len(zygotes(server)) == 2, "one that loads")
                for pid in zygotes(server):
                    processes.kill(pid)
                server.wait_for_log(patterns.REFUSED, number)
                project.release()
                load.wait_for_only(project.version)
        assert load.failed == []
        server.wait_for_workers(4)


@pytest.mark.soak
@each()
def test_preloaded_two_hundred_saves(worker_class: str, tmp_path: Path) -> None:
    """200 saves at random times, broken ones and signals among them: the last good code wins, nothing is left or grows."""
    chance = random.Random(f"preload {worker_class}")
    project = project_for(worker_class, tmp_path / "project", import_seconds=0.02)
    project.release()
    with Gunicorn(project, "--preload", worker_class=worker_class) as server:
        with server.load(clients=8) as load:
            for _ in range(3):
                project.release()
                load.wait_for_only(project.version)
            server.wait_for_workers(4)
            files, memory = processes.open_files(server.pid), processes.resident_kb(server.pid)
            wanted = 4
            for number in range(200):
                if chance.random() < 0.2:
                    project.broken(top=chance.choice(("undefined_name", "def", "os._exit(3)", "raise SystemExit(4)")))
                else:
                    project.release()
                if number % 10 == 5:
                    sig = chance.choice((signal.SIGHUP, signal.SIGTTIN, signal.SIGTTIN, signal.SIGTTOU))
                    wanted = {signal.SIGHUP: 4, signal.SIGTTIN: wanted + 1, signal.SIGTTOU: max(1, wanted - 1)}[sig]
                    server.send(sig)
                time.sleep(chance.uniform(0.05, 0.2))
            project.release()
            load.wait_for_only(project.version)
            server.hup()
            server.wait_for_workers(4)
            load.wait_for_only(project.version)
        assert load.failed == []
        assert "broken" not in load.versions(0.0)
        server.wait_for_workers(4)
        wait_until(lambda: len(zygotes(server)) == 1, "one zygote")
        wait_until(lambda: processes.open_files(server.pid) <= files, f"no more than {files} open files")
        assert processes.resident_kb(server.pid) <= memory + 6_000
        # Four workers, the zygote, what listens for events, and the arbiter.
        wait_until(lambda: len(server.processes()) <= 7, lambda: f"{processes.told(server.processes())}")
        assert server.count("Traceback.*\n.*wsgi_reload_hooks") == 0


@pytest.mark.soak
def test_preloaded_calm_saves_do_not_grow_the_arbiter(tmp_path: Path) -> None:
    """Reload after reload: open files are the same, memory grows by less than a page for each."""
    project = Project(tmp_path / "project", import_seconds=0.0)
    project.release()
    environment = {"WSGI_RELOAD_INTERVAL": "0.05", "WSGI_RELOAD_STEP": "0.01"}
    with Gunicorn(project, "--preload", workers=2, environment=environment) as server:

        def reload_calmly() -> tuple[int, int]:
            project.release()
            server.wait_for_version(project.version)
            server.wait_for_workers(2)
            return processes.open_files(server.pid), processes.resident_kb(server.pid)

        files, memory = max(reload_calmly() for _ in range(5))
        for _ in range(20):
            _, now = reload_calmly()
        # What belonged to the last that left may be closed a moment after its end.
        wait_until(lambda: processes.open_files(server.pid) <= files, f"no more than {files} open files")
        assert now <= memory + 500


def zygotes(server: Gunicorn) -> list[int]:
    return [pid for pid in processes.children(server.pid) if processes.is_zygote(pid)]
