"""What every way to reload promises to a client, held on real servers.

`TABLE` says which promise holds where. A cell that does not apply gives the reason. Everything is asserted on answers to
requests, on exit codes and `--json` of `wsgi-reload`, and on log lines that hold the word "refused" and the saved path.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from contract.backends import BACKENDS, LONG, Backend
from harness import holds, wait_until

pytestmark = pytest.mark.contract

HOLDS = ""
NO_CONTROL = "`wsgi-reload hup` has no control socket"
NOT_ITS_SERVER = "`wsgi-reload hup` neither starts the server nor replaces its workers"
HUP_ENDS_IT = "SIGHUP ends it: it is what a closed terminal sends"
ONE_PROCESS = "one process serves, there are no others"
LOADS_THE_DISK = "a new worker loads what is on the disk, which is refused"
HAS_A_PAGE = "an error page answers at once"
KEEPS_WAITING = "the listening socket stays open, the requests wait"
IS_REPLACED = "killed workers are replaced with the code that is in service"
HUP_EXECUTES = "the master executes itself anew, and its workers wait for the repair"

TABLE: Mapping[str, Mapping[str, str]] = {
    "good_save_is_served": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HOLDS,
        "run": HOLDS,
        "hup": HOLDS,
    },
    "broken_save_keeps_old_code_serving_until_repair": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HOLDS,
        "run": HOLDS,
        "hup": HOLDS,
    },
    "reverted_save_reloads_nothing": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HOLDS,
        "run": HOLDS,
        "hup": HOLDS,
    },
    "save_during_a_trial_wins": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HOLDS,
        "run": HOLDS,
        "hup": HOLDS,
    },
    "requested_reload_replaces_workers": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HOLDS,
        "run": HOLDS,
        "hup": NO_CONTROL,
    },
    "requested_reload_of_broken_code_is_refused": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HOLDS,
        "run": HOLDS,
        "hup": NO_CONTROL,
    },
    "hup_replaces_workers": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HOLDS,
        "run": HUP_ENDS_IT,
        "hup": HUP_ENDS_IT,
    },
    "hup_of_broken_code_changes_nothing": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HUP_EXECUTES,
        "run": HUP_ENDS_IT,
        "hup": HUP_ENDS_IT,
    },
    "pause_holds_saves_until_resume": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HOLDS,
        "run": HOLDS,
        "hup": NO_CONTROL,
    },
    "broken_start_waits_for_repair": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HOLDS,
        "run": HOLDS,
        "hup": NOT_ITS_SERVER,
    },
    "worker_killed_beside_broken_code_leaves_others_serving": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HOLDS,
        "run": ONE_PROCESS,
        "hup": NOT_ITS_SERVER,
    },
    "workers_killed_beside_broken_code_are_replaced": {
        "sync": LOADS_THE_DISK,
        "gthread": LOADS_THE_DISK,
        "preload": HOLDS,
        "uwsgi": LOADS_THE_DISK,
        "run": LOADS_THE_DISK,
        "hup": NOT_ITS_SERVER,
    },
    "without_workers_requests_wait_for_repair": {
        "sync": HAS_A_PAGE,
        "gthread": HAS_A_PAGE,
        "preload": IS_REPLACED,
        "uwsgi": HOLDS,
        "run": HOLDS,
        "hup": NOT_ITS_SERVER,
    },
    "without_workers_an_error_page_answers_until_repair": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": IS_REPLACED,
        "uwsgi": KEEPS_WAITING,
        "run": KEEPS_WAITING,
        "hup": NOT_ITS_SERVER,
    },
    "stop_during_a_trial_leaves_nothing": {
        "sync": HOLDS,
        "gthread": HOLDS,
        "preload": HOLDS,
        "uwsgi": HOLDS,
        "run": HOLDS,
        "hup": HOLDS,
    },
}

# An import that says that it has begun, and ends when it is let go.
ENDLESS = """\
open("trying", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
"""

F = TypeVar("F", bound=Callable[..., object])


def promise(test: F) -> F:
    """Run *test* once for each backend that its row of `TABLE` says it holds for."""
    row = TABLE[test.__name__.removeprefix("test_")]
    cells = [
        pytest.param(name, marks=pytest.mark.skipif(bool(BACKENDS[name].missing), reason=BACKENDS[name].missing))
        for name, reason in row.items()
        if reason == HOLDS
    ]
    decorated: F = pytest.mark.parametrize("backend", cells, indirect=True)(test)
    return decorated


def test_every_promise_is_decided_for_every_backend() -> None:
    """No cell is missing, none is left of a promise or a backend that is gone, and each promise holds somewhere."""
    tests: dict[str, Any] = {
        name.removeprefix("test_"): test
        for name, test in vars(sys.modules[__name__]).items()
        if name.startswith("test_") and getattr(test, "pytestmark", None)
    }
    assert set(tests) == set(TABLE)
    for name, row in TABLE.items():
        assert list(row) == list(BACKENDS), name
        assert HOLDS in row.values(), name


# -- saves -----------------------------------------------------------------------------------------------------------


@promise
def test_good_save_is_served(backend: Backend) -> None:
    """Each of two saves goes into service by itself in all workers; no request fails, none is answered by other code."""
    project = backend.project
    served = [project.version]
    with backend.running():
        with backend.load() as load:
            for _ in range(2):
                project.release()
                served.append(project.version)
                load.wait_for(project.version, LONG)
                backend.wait_served()
                assert load.versions(time.monotonic()) == {project.version}
        assert load.failed == []
        assert load.versions(0.0) == set(served)
        assert backend.refusals() == []


@promise
def test_broken_save_keeps_old_code_serving_until_repair(backend: Backend) -> None:
    """The same workers go on; the refusal is told once and names the file; the repair goes into service by itself."""
    project, served = backend.project, backend.project.version
    with backend.running():
        pids = backend.pids()
        with backend.load() as load:
            project.broken(top="undefined_name")
            backend.wait_refused()
            assert load.versions(time.monotonic()) == {served}
            assert pids <= backend.pids()
            assert backend.reloads() == 0
            project.release()
            load.wait_for(project.version, LONG)
            backend.wait_served()
        assert load.failed == []
        assert load.versions(0.0) == {served, project.version}
        assert backend.reloads() == 1
        assert len(backend.refusals()) == 1


@promise
def test_reverted_save_reloads_nothing(backend: Backend) -> None:
    """A refused save is undone: the same workers go on without a reload, and the next save goes into service."""
    project, served = backend.project, backend.project.version
    text = (project.root / "app.py").read_text()
    with backend.running():
        pids = backend.pids()
        with backend.load() as load:
            project.broken(top="undefined_name")
            backend.wait_refused()
            project.save("app.py", text)
            backend.wait_reverted()
            assert pids <= backend.pids()
            assert backend.reloads() == 0
            assert load.versions(0.0) == {served}
            project.release()
            load.wait_for(project.version, LONG)
            backend.wait_served()
        assert load.failed == []
        assert load.versions(0.0) == {served, project.version}
        assert backend.reloads() == 1
        assert len(backend.refusals()) == 1


@promise
def test_save_during_a_trial_wins(backend: Backend) -> None:
    """Saved while the save before is still being imported: that one is given up, and never answers."""
    project, served = backend.project, backend.project.version
    with backend.running():
        with backend.load() as load:
            project.release(top=ENDLESS)
            wait_until((project.root / "trying").exists, "the save is tried", LONG)
            project.release()
            load.wait_for(project.version, LONG)
            backend.wait_served()
        assert load.failed == []
        assert load.versions(0.0) == {served, project.version}
        assert backend.reloads() == 1
        assert backend.refusals() == []


# -- requests --------------------------------------------------------------------------------------------------------


@promise
def test_requested_reload_replaces_workers(backend: Backend) -> None:
    """`wsgi-reload reload --wait` ends with 0 when no old worker takes requests; no request fails."""
    with backend.running():
        pids = backend.pids()
        with backend.load() as load:
            code, output, errors = backend.command("reload", "--wait")
            assert code == 0, output + errors
            backend.wait_served()
            assert not backend.pids() & pids
        assert load.failed == []
        assert backend.reloads() == 1


@promise
def test_requested_reload_of_broken_code_is_refused(backend: Backend) -> None:
    """`wsgi-reload reload --wait` ends with 1; the same workers go on."""
    project, served = backend.project, backend.project.version
    with backend.running():
        pids = backend.pids()
        with backend.load() as load:
            project.broken(top="undefined_name")
            backend.wait_refused()
            assert backend.command("reload", "--wait")[0] == 1
            assert pids <= backend.pids()
            assert backend.versions() == {served}
            project.release()
            load.wait_for(project.version, LONG)
            backend.wait_served()
        assert load.failed == []
        assert load.versions(0.0) == {served, project.version}


@promise
def test_hup_replaces_workers(backend: Backend) -> None:
    """SIGHUP to the server reloads; what is served stays the same, and saves are noticed afterwards."""
    project = backend.project
    with backend.running():
        pids = backend.pids()
        with backend.load() as load:
            backend.server.hup()
            wait_until(lambda: not backend.pids() & pids, "all workers are new", LONG)
            backend.wait_for_crew()
            backend.wait_ready()
            assert backend.versions() == {project.version}
        if backend.hup_fails_no_request:
            assert load.failed == []
        project.release()
        backend.wait_served()


@promise
def test_hup_of_broken_code_changes_nothing(backend: Backend) -> None:
    """SIGHUP beside refused code: the same workers go on, and the repair goes into service."""
    project, served = backend.project, backend.project.version
    with backend.running():
        pids = backend.pids()
        with backend.load() as load:
            project.broken(top="undefined_name")
            backend.wait_refused()
            backend.server.hup()
            backend.server.wait_for_log("Handling signal: hup")
            assert backend.command("status", "--wait")[0] == 1
            assert pids <= backend.pids()
            assert backend.versions() == {served}
            project.release()
            load.wait_for(project.version, LONG)
            backend.wait_served()
        assert load.failed == []
        assert load.versions(0.0) == {served, project.version}


@promise
def test_pause_holds_saves_until_resume(backend: Backend) -> None:
    """Two saves in a pause are one reload after it; until then the same workers go on."""
    project, served = backend.project, backend.project.version
    with backend.running():
        pids = backend.pids()
        with backend.load() as load:
            assert backend.command("pause")[0] == 0
            for _ in range(2):
                project.release()
                # 3: a pause holds the save back.
                assert backend.command("status", "--wait")[0] == 3
            found = backend.status()
            assert found["paused"]
            assert [Path(each).name for each in found["pending"]] == ["app.py"]
            assert load.versions(0.0) == {served}
            assert pids <= backend.pids()
            assert backend.command("resume", "--wait")[0] == 0
            backend.wait_served()
        assert load.failed == []
        assert load.versions(0.0) == {served, project.version}
        assert backend.reloads() == 1


# -- processes that start, die, stop ---------------------------------------------------------------------------------


@promise
def test_broken_start_waits_for_repair(backend: Backend) -> None:
    """A server that is started on broken code says why, stays, and serves the repair."""
    project = backend.project
    project.broken(top="undefined_name")
    with backend.running(ready=False):
        wait_until(
            lambda: "app.py" in backend.hooks.log and "NameError" in backend.hooks.log,
            "the log names file and reason",
            LONG,
        )
        project.release()
        backend.wait_ready()
        backend.wait_served()
        backend.wait_for_crew()


@promise
def test_worker_killed_beside_broken_code_leaves_others_serving(backend: Backend) -> None:
    """One worker is killed while the disk is broken: no request fails after that, and the repair makes the crew complete."""
    project, served = backend.project, backend.project.version
    with backend.running():
        pids = backend.pids()
        project.broken(top="undefined_name")
        backend.wait_refused()
        backend.kill(min(pids))
        with backend.load() as load:
            load.run(50)
            assert load.versions(0.0) == {served}
            assert max(pids) in backend.pids()
            project.release()
            load.wait_for(project.version, LONG)
            backend.wait_served()
        assert load.failed == []
        assert load.versions(0.0) == {served, project.version}
        backend.wait_for_crew()


@promise
def test_workers_killed_beside_broken_code_are_replaced(backend: Backend) -> None:
    """All workers are killed while the disk is broken: others come with the code that is in service."""
    project, served = backend.project, backend.project.version
    with backend.running():
        pids = backend.pids()
        project.broken(top="undefined_name")
        backend.wait_refused()
        backend.kill(*pids)
        with backend.load() as load:
            backend.wait_for_crew()
            assert not backend.pids() & pids
            assert backend.versions() == {served}
            project.release()
            load.wait_for(project.version, LONG)
            backend.wait_served()
        assert load.failed == []
        assert load.versions(0.0) == {served, project.version}


@promise
def test_without_workers_requests_wait_for_repair(backend: Backend) -> None:
    """All workers are killed while the disk is broken: a request waits, and the repaired code answers it."""
    project = backend.project
    with backend.running(), ThreadPoolExecutor(1) as client:
        pids = backend.pids()
        project.broken(top="undefined_name")
        backend.wait_refused()
        backend.kill(*pids)
        answer = client.submit(backend.server.version)
        holds(lambda: not answer.done(), "the request waits", 0.3)
        project.release()
        assert answer.result() == project.version
        backend.wait_served()
        backend.wait_for_crew()


@promise
def test_without_workers_an_error_page_answers_until_repair(backend: Backend) -> None:
    """All workers are killed while the disk is broken: requests get a status 503 without a traceback until the repair."""
    project = backend.project
    with backend.running():
        pids = backend.pids()
        project.broken(top="undefined_name")
        backend.wait_refused()
        backend.kill(*pids)
        status, text = backend.server.ask()
        assert status == 503
        assert "Traceback" not in text and "undefined_name" not in text
        project.release()
        backend.server.wait_ready()
        backend.wait_served()
        backend.wait_for_crew()


@promise
def test_stop_during_a_trial_leaves_nothing(backend: Backend) -> None:
    """After a reload and in the middle of an import the server stops as ever: no process is left, no temporary file."""
    project = backend.project
    with backend.running():
        project.release()
        backend.wait_served()
        project.release(top=ENDLESS)
        wait_until((project.root / "trying").exists, "the save is tried", LONG)
