"""Whatever else is set: good saves under load, and no request is lost."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness import HAVE_UWSGI, Project, Uwsgi, holds, patterns
from harness.steering import status
from harness.waiting import wait_until

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")

SAVES = 2
MODULE = ("--module", "app:app")
MOUNTS = ("--mount", "/=app:app", "--mount", "/other=other:app", "--manage-script-name")
OTHER = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{} 0']\n"
SET_UPS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "threads": (("--threads", "4"), MODULE),
    "thunder-lock": (("--thunder-lock",), MODULE),
    "max-requests": (("--max-requests", "60"), MODULE),
    "cheaper": (("--cheaper", "2"), MODULE),
    "harakiri": (("--harakiri", "5"), MODULE),
    "need-app, vacuum, die-on-term": (("--need-app", "--vacuum", "--die-on-term"), MODULE),
    "single-interpreter": (("--single-interpreter",), MODULE),
    "gevent": (("--gevent", "8"), MODULE),
    "two mounts": ((), MOUNTS),
    "two mounts, single-interpreter": (("--single-interpreter",), MOUNTS),
    "wsgi-file": ((), ("--wsgi-file", "app.py", "--callable", "app")),
}
MATRIX = ("thunder-lock", "cheaper", "harakiri", "two mounts, single-interpreter", "wsgi-file")


@pytest.mark.parametrize(
    "set_up", [pytest.param(name, marks=[pytest.mark.matrix] if name in MATRIX else []) for name in SET_UPS]
)
def test_saves_under_load(set_up: str, tmp_path: Path) -> None:
    """Lazy workers roll in this set-up, too."""
    options, target = SET_UPS[set_up]
    if set_up == "gevent" and importlib.util.find_spec("gevent") is None:
        pytest.skip("no gevent in this environment")
    project = Project(tmp_path / "project", import_seconds=0.1)
    project.save("other.py", OTHER.format("o0"))
    project.release()
    with Uwsgi(project, *options, target=target) as server:
        server.wait_log(patterns.WATCHING)
        with server.load() as load:
            for number in range(1, SAVES + 1):
                project.release()
                load.wait_for(project.version)
                load.wait_for_only(project.version)
                server.wait_log(patterns.RELOADED, number)
        assert load.failed == []
        assert server.execs() == 0
        assert server.count("Traceback") == 0
        if target is MOUNTS:
            assert server.count("2 applications are loaded, 1 known: the others are not tried") == 1
            # The second one may live in an interpreter of its own.
            assert server.version("/other") == "o0"
            project.save("other.py", OTHER.format("o1"))
            server.wait_for_version("o1", "/other")
            server.wait_log(patterns.RELOADED, SAVES + 1)
        if set_up in ("gevent", "two mounts"):
            # uWSGI tells no worker of its end, or no worker can tell: notes lie until the next server of this user starts.
            server.signal(signal.SIGINT)
            assert server.exit_status() == 0
            server.forget()


def test_first_mount_is_watched_after_the_trial_of_the_last(tmp_path: Path) -> None:
    """The first trial, at the start, loads the last mount alone: what it did not load is in service all the same."""
    project = Project(tmp_path / "project")
    project.save("other.py", OTHER.format("o0"))
    project.release()
    with Uwsgi(project, target=MOUNTS) as server:
        server.wait_log(patterns.WATCHING)
        wait_until(lambda: status(server)["watched"] == 2, "other.py is watched besides app.py")
        project.release()
        server.wait_for_version(project.version)
        server.wait_log(patterns.RELOADED)
        # No worker can tell of its end in time: notes lie until the next server of this user starts.
        server.signal(signal.SIGINT)
        assert server.exit_status() == 0
        server.forget()


@pytest.mark.parametrize("options", [(), ("--single-interpreter",)], ids=["several interpreters", "one interpreter"])
def test_broken_first_mount_holds_one_worker_until_the_repair(options: Sequence[str], tmp_path: Path) -> None:
    """The rehearsal does not load the first mount: the first worker that loads it finds the error; the others serve on."""
    project = Project(tmp_path / "project", import_seconds=0.1)
    project.save("other.py", OTHER.format("o0"))
    project.release()
    with Uwsgi(project, *options, target=MOUNTS) as server:
        server.wait_log(patterns.WATCHING)
        good = project.version
        project.broken(top="undefined_name")
        server.wait_log(r"a worker could not be replaced, trying again every 5 s: app\.py, line \d+: NameError")
        holds(lambda: (server.version(), server.version("/other")) == (good, "o0"), "the old code answers", 0.5)
        project.release()
        server.wait_for_version(project.version)
        server.wait_log(patterns.RELOADED)
        server.wait_for_version(project.version)
        server.signal(signal.SIGINT)
        assert server.exit_status() == 0
        server.forget()
