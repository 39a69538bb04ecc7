"""Reloads asked for from elsewhere: HUP, gunicornc, a thread, and signals in between."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import GUNICORN, UVICORN, Gunicorn, Project, assert_mostly, each, patterns, project_for, wait_until

ASK_FROM_A_THREAD = """
import os
import threading
import time


def when_ready(server):
    def ask():
        while not os.path.exists({wish!r}):
            time.sleep(0.02)
        for _ in range({times}):
            server.reload()
        os.unlink({wish!r})

    threading.Thread(target=ask, daemon=True).start()
"""


@pytest.mark.load
@each(versions=("gthread",), matrix=("gthread", "gevent", "tornado", "asgi", UVICORN))
def test_hup_goes_through_the_same_door(worker_class: str, tmp_path: Path) -> None:
    """HUP without a change: all workers are new, no request fails or waits, the log says why."""
    project = project_for(worker_class, tmp_path / "project", import_seconds=0.5)
    project.release()
    times = []
    with Gunicorn(project, worker_class=worker_class) as server:
        server.wait_for_log(patterns.WATCHING)
        with server.load() as load:
            usual = load.measure(1.0)
            for number in range(1, 4):
                before = server.workers()
                times.append(time.monotonic())
                server.hup()
                line = server.wait_for_log(patterns.RELOADED, number)
                assert (line["what"], line["workers"]) == ("HUP", "4")
                wait_until(lambda before=set(before): not set(server.workers()) & before, "all workers are new")  # type: ignore[misc]
                load.run(100)
        assert load.failed == []
        longest = load.longest_after(times)
        # Without us a visitor waits for the whole import. A machine may have other things to do, but not each time.
        assert_mostly(longest, usual + 0.4)
        server.wait_for_workers(4)


@pytest.mark.versions
def test_who_retires_at_any_moment_is_not_replaced(project: Project) -> None:
    """Also between our counting and gunicorn's, which before 24 finds the dead in a signal handler."""
    project.save(
        "conf.py",
        "import time\nimport wsgi_reload_hooks.gunicorn_conf\nfrom wsgi_reload_hooks.gunicorn.watcher import Watcher\n"
        "look = Watcher.look\ndef slowly(self):\n    look(self)\n    time.sleep(0.1)\nWatcher.look = slowly\n",
    )
    with Gunicorn(project, configuration=project.root / "conf.py", workers=3) as server:
        server.wait_for_workers(3)
        for number in range(1, 4):
            server.hup()
            server.wait_for_log(patterns.RELOADED, number)
            server.wait_for_workers(3)
        assert server.count(patterns.BOOTING) == 3 + 3 * 3


@pytest.mark.adapters
@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.versions)])
def test_reload_from_a_thread(times: int, project: Project) -> None:
    """`server.reload()` may be called from any thread, twenty times in a row too: all workers are new."""
    wish = project.root / "wish"
    project.save("gunicorn.conf.py", ASK_FROM_A_THREAD.format(wish=str(wish), times=times))
    with Gunicorn(project) as server:
        with server.load() as load:
            before = server.workers()
            wish.write_text("")
            wait_until(lambda: not set(server.workers()) & set(before), "all workers are new")
            server.wait_for_log(patterns.RELOADED)
            load.run(100)
        assert load.failed == []
        server.wait_for_workers(4)
        assert server.count(patterns.RELOADED) <= 3
        assert not server.exited()


@pytest.mark.skipif(GUNICORN < (25, 1), reason="the control socket came with 25.1")
@pytest.mark.parametrize("words", [(), ("--preload",)], ids=["plain", "preload"])
def test_reload_with_gunicornc(words: tuple[str, ...], project: Project) -> None:
    """`gunicornc -c reload` is answered, and all workers are new; it knows them."""
    with Gunicorn(project, *words) as server:
        socket = server.runtime / "gunicorn.ctl"
        wait_until(socket.exists, "the control socket")
        # It is away for a moment each time that gunicorn forks a worker.
        server.wait_for_log(patterns.WATCHING)
        with server.load() as load:
            before = server.workers()
            code = "from gunicorn.ctl.cli import main; import sys; sys.exit(main())"
            command = [sys.executable, "-c", code, "-s", str(socket), "-c", "reload"]
            subprocess.run(command, check=True, capture_output=True, timeout=10)
            wait_until(lambda: not set(server.workers()) & set(before), "all workers are new")
            load.run(100)
            project.release()
            load.wait_for_only(project.version)
        assert load.failed == []
        server.wait_for_workers(4)
        command[-1] = "show workers"
        shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
        assert all(str(pid) in shown for pid in server.workers()), shown


def test_more_and_fewer_workers_are_kept_by_a_save(project: Project) -> None:
    """TTIN and TTOU change the number of workers, a save keeps that number, a HUP takes the configured one."""
    with Gunicorn(project, workers=2) as server:
        for sig, count in ((signal.SIGTTIN, 3), (signal.SIGTTIN, 4), (signal.SIGTTOU, 3)):
            server.send(sig)
            server.wait_for_workers(count)
        project.release()
        server.wait_for_version(project.version)
        line = server.wait_for_log(patterns.RELOADED)
        assert line["workers"] == "3"
        server.wait_for_workers(3)
        server.hup()
        server.wait_for_log(patterns.RELOADED, 2)
        server.wait_for_workers(2)


def test_more_workers_in_the_middle_of_a_roll(tmp_path: Path) -> None:
    """TTIN and TTOU while the new workers boot: the number is right afterwards, and all run the new code."""
    project = Project(tmp_path / "project", import_seconds=0.4)
    project.release()
    with Gunicorn(project, workers=2) as server:
        for sig, count in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2)):
            with server.load(clients=8) as load:
                boots = server.count(patterns.BOOTING)
                project.release()
                server.wait_for_log(patterns.BOOTING, boots + 1)
                server.send(sig)
                load.wait_for_only(project.version)
            assert load.failed == []
            server.wait_for_workers(count)


def test_usr1_reopens_the_log(project: Project) -> None:
    """USR1 for logrotate does what it always did."""
    log = project.root / "error.log"
    with Gunicorn(project, "--error-logfile", str(log), wait=False) as server:
        found = wait_until(lambda: log.exists() and re.search(patterns.LISTENING, log.read_text()), "it listens")
        assert isinstance(found, re.Match)
        server.use_port(int(found["port"]))
        server.wait_ready()
        os.rename(log, log.with_suffix(".1"))
        server.send(signal.SIGUSR1)
        wait_until(log.exists, "a new log file")
        project.release()
        server.wait_for_version(project.version)
        wait_until(lambda: re.search(patterns.RELOADED, log.read_text()), "the reload is in the new file")


@pytest.mark.adapters
def test_usr2_hands_over_to_a_new_arbiter(project: Project, tmp_path: Path) -> None:
    """USR2 starts a second arbiter beside the first; it reloads too, when the first is gone."""
    # With `-m gunicorn` the second start would find gunicorn/http before the standard library's http.
    program = tmp_path / "bin" / "gunicorn"
    program.parent.mkdir()
    program.write_text("from gunicorn.app.wsgiapp import run\n\nrun()\n")
    with Gunicorn(project, workers=2, program=[str(program)]) as server:
        first = server.pid
        server.send(signal.SIGUSR2)
        wait_until(lambda: server.count(r"Starting gunicorn") == 2, "a second arbiter")
        wait_until(lambda: server.count(patterns.BOOTING) >= 4, "its workers")
        second = server.successor()
        server.send(signal.SIGTERM)
        assert server.exit_status() == 0
        server.adopt(second)
        server.wait_for_version(project.version)
        project.release()
        server.wait_for_version(project.version)
        assert server.pid != first


@pytest.mark.versions
@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_term_in_the_middle_of_a_roll_leaves_nothing(worker_class: str, project: Project) -> None:
    """SIGTERM while new workers boot: exit status 0, soon, with no process and no file left."""
    for moment in range(4):
        with Gunicorn(project, worker_class=worker_class) as server:
            boots = server.count(patterns.BOOTING)
            project.release()
            if moment:
                server.wait_for_log(patterns.BOOTING, boots + moment)
            left = server.processes()
            server.send(signal.SIGTERM)
            assert server.exit_status(10.0) == 0
            server.assert_nothing_left(left)
            server.forget()


@pytest.mark.versions
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_was_just_forked_leaves_when_it_is_told(sig: signal.Signals, project: Project) -> None:
    """A worker that has no handlers of its own yet does not miss the end, nor hold it up for graceful_timeout."""
    # The first thing that a worker does after its fork is to log that it boots.
    configuration = project.root / "slow_fork.py"
    configuration.write_text(
        "import time\n"
        "import gunicorn.glogging\n"
        "import wsgi_reload_hooks.gunicorn_conf\n\n\n"
        "class logger_class(gunicorn.glogging.Logger):\n"
        "    def info(self, message, *arguments, **options):\n"
        "        super().info(message, *arguments, **options)\n"
        "        if 'Booting' in message:\n"
        "            time.sleep(2.0)\n"
    )
    with Gunicorn(project, configuration=configuration, workers=2, wait=False) as server:
        server.wait_for_log(patterns.BOOTING, 2)
        server.send(sig)
        assert server.exit_status(10.0) == 0
        server.forget()


@pytest.mark.matrix
def test_a_tornado_worker_that_is_told_to_leave_before_it_runs(tmp_path: Path) -> None:
    """Its `run` declares it alive: an order of the moment before that is not forgotten."""
    pytest.importorskip("tornado")
    project = Project(tmp_path / "project", tornado=True)
    project.release()
    # The last that happens before it declares itself alive.
    project.save(
        "slow_loop.py",
        "import os, signal\n"
        "from tornado.ioloop import IOLoop\n\n"
        "instance = IOLoop.instance\n\n\n"
        "def late(*arguments, **options):\n"
        "    if os.path.exists('order'):\n"
        "        os.unlink('order')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return instance(*arguments, **options)\n\n\n"
        "IOLoop.instance = staticmethod(late)\n",
    )
    project.imports = "import slow_loop"
    with Gunicorn(project, worker_class="tornado", workers=1) as server:
        server.wait_for_log(patterns.WATCHING)
        project.save("order", "")
        project.release()
        first = server.wait_for_log(patterns.BOOTING, 2)
        wait_until(lambda: not (project.root / "order").exists(), "it was told to leave")
        wait_until(lambda: int(first["pid"]) not in server.workers(), "the worker that was told to leave left")
        server.wait_for_version(project.version)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_in_the_middle_of_a_roll_leave_nothing(sig: signal.Signals, project: Project) -> None:
    """SIGINT and SIGQUIT while new workers boot leave no process and no file."""
    with Gunicorn(project) as server:
        boots = server.count(patterns.BOOTING)
        project.release()
        server.wait_for_log(patterns.BOOTING, boots + 2)
        left = server.processes()
        server.send(sig)
        assert server.exit_status(10.0) == 0
        server.assert_nothing_left(left)
        server.forget()


def test_term_while_an_import_never_ends(project: Project) -> None:
    """SIGTERM while a new worker hangs in its import: the server stops soon and takes it along."""
    with Gunicorn(project) as server:
        boots = server.count(patterns.BOOTING)
        project.broken(top="while True:\n    time.sleep(0.01)")
        server.wait_for_log(patterns.BOOTING, boots + 1)
        server.stop(limit=10.0)
        server.forget()


@pytest.mark.adapters
def test_a_killed_arbiter_leaves_no_worker(project: Project) -> None:
    """SIGKILL of the arbiter in the middle of a roll: workers at the gate notice, and leave."""
    # An idle worker of gunicorn's looks for its parent every half timeout.
    with Gunicorn(project, "--timeout", "2") as server:
        boots = server.count(patterns.BOOTING)
        project.release()
        server.wait_for_log(patterns.BOOTING, boots + 2)
        server.send(signal.SIGKILL)
        assert server.exit_status() == -signal.SIGKILL
        wait_until(lambda: not server.processes(), "the workers left by themselves")
        server.forget()
