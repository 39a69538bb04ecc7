"""A good save goes into service under uWSGI: worker after worker, or all anew at once; no request is lost."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import HAVE_UWSGI, Project, Uwsgi, assert_mostly, patterns, wait_until

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")

SAVES = 3
IMPORT_SECONDS = 0.5
_COUNTED = 2.1
# What a machine with other things to do may add to one single save.
SIZE = 20_000_000
LARGE = f"""
others = app
def app(environ, start_response):
    if environ['PATH_INFO'] != '/large':
        return others(environ, start_response)
    start_response('200 OK', [('Content-Length', '{SIZE}')])
    return [b'x' * {SIZE}]
"""
SLOW_ACCEPT = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>
#include <time.h>
static int slowly(int connection) {
    struct timespec some = {0, 20000000};
    if (connection >= 0) while (nanosleep(&some, &some));
    return connection;
}
int accept(int socket, struct sockaddr *address, socklen_t *length) {
    int (*real)(int, struct sockaddr *, socklen_t *) = dlsym(RTLD_NEXT, "accept");
    return slowly(real(socket, address, length));
}
int accept4(int socket, struct sockaddr *address, socklen_t *length, int flags) {
    int (*real)(int, struct sockaddr *, socklen_t *, int) = dlsym(RTLD_NEXT, "accept4");
    return slowly(real(socket, address, length, flags));
}
"""


def forgotten(over: float) -> bool:
    """Whether that second of the clock is over."""
    return time.time() > over


class Times(NamedTuple):
    """Of each save: the longest gap, the time to the first new answer, and to the last new worker."""

    gaps: list[float]
    delays: list[float]
    rolls: list[float]


def saves_under_load(server: Uwsgi, project: Project, saves: int = SAVES) -> Times:
    """Save so many times, each until all of it is over."""
    times, counted = Times([], [], []), 0.0
    with server.load() as load:
        for number in range(1, saves + 1):
            # A roll that follows another at once is paced: uWSGI counts respawns by the seconds of the clock.
            wait_until(partial(forgotten, counted), "uWSGI has forgotten the respawns before")
            before = set(server.workers())
            saved = project.release()
            times.delays.append(load.seconds(saved, load.wait_for(project.version)))
            server.wait_log(patterns.RELOADED, number)
            rolled = time.monotonic()
            load.wait_for_only(project.version)
            counted = int(time.time()) + _COUNTED
            load.run(20)
            times.gaps.append(load.longest_gap(saved))
            times.rolls.append(load.seconds(saved, rolled))
            assert not before & set(server.workers())
    assert load.failed == []
    assert server.count(patterns.RELOADED) == saves
    assert server.count(patterns.REFUSED) == 0
    return times


@pytest.mark.load
@pytest.mark.versions
@pytest.mark.parametrize("router", [False, True], ids=["http-socket", "router"])
def test_lazy_workers_roll_without_a_gap(router: bool, tmp_path: Path) -> None:
    """Four lazy workers: no request fails, somebody is always served, the server itself stays what it is."""
    project = Project(tmp_path / "project", import_seconds=IMPORT_SECONDS)
    project.release()
    with Uwsgi(project, router=router) as server:
        server.wait_log(patterns.WATCHING)
        times = saves_under_load(server, project)
        assert_mostly(times.gaps, 0.15)
        assert_mostly(times.delays, 2 * IMPORT_SECONDS + 0.6)
        assert_mostly(times.rolls, 4 * IMPORT_SECONDS + 1.0)
        assert server.execs() == 0
        server.wait_for_workers(4)


@pytest.mark.versions
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs a compiler")
def test_a_worker_ends_between_accepting_a_request_and_reading_it(tmp_path: Path) -> None:
    """Also where it is there for as long as in requests, and not for some microseconds: none is lost."""
    project = Project(tmp_path / "project", import_seconds=0.1)
    project.release()
    (tmp_path / "slow.c").write_text(SLOW_ACCEPT)
    library = tmp_path / "slow.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "slow.c", "-ldl"], check=True)
    with Uwsgi(project, environment={"LD_PRELOAD": str(library)}) as server:
        server.wait_log(patterns.WATCHING)
        saves_under_load(server, project)
        assert server.count("Gracefully killing worker") == 0


def test_slow_visitors(tmp_path: Path) -> None:
    """One who reads slowly gets all of it, one who says nothing holds the roll up no longer than uWSGI waits for him."""
    project = Project(tmp_path / "project", import_seconds=0.1)
    project.release(bottom=LARGE)
    with Uwsgi(project) as server:
        server.wait_log(patterns.WATCHING)
        silent = socket.create_connection(("127.0.0.1", server.port))
        reader = socket.socket()
        # Else the system would take most of it at once.
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        with silent, reader:
            reader.connect(("127.0.0.1", server.port))
            reader.sendall(b"GET /large HTTP/1.0\r\n\r\n")
            received = len(reader.recv(1000))
            project.release(bottom=LARGE)
            server.wait_for_version(project.version)
            # Until the worker that writes it has been asked for some time.
            began = time.monotonic()
            while time.monotonic() < began + 1.5:
                received += len(reader.recv(1000))
                time.sleep(0.01)
            while more := reader.recv(1_000_000):
                received += len(more)
            assert received > SIZE
            server.wait_log(patterns.RELOADED)
        server.wait_for_workers(4)


def test_workers_that_wait_for_their_turn_to_wait(tmp_path: Path) -> None:
    """Nobody comes, and all workers but one wait for uWSGI's lock, where only SIGHUP reaches them."""
    project = Project(tmp_path / "project", import_seconds=0.1)
    project.release()
    with Uwsgi(project, "--thunder-lock") as server:
        server.wait_log(patterns.WATCHING)
        project.release()
        server.wait_log(patterns.RELOADED)
        server.wait_for_version(project.version)
        server.wait_for_workers(4)


@pytest.mark.load
def test_a_lone_lazy_worker_stalls_for_its_import_only(tmp_path: Path) -> None:
    """One worker: everybody waits for its import and not a second more."""
    project = Project(tmp_path / "project", import_seconds=IMPORT_SECONDS, handler_seconds=0.005)
    project.release()
    with Uwsgi(project, workers=1) as server:
        server.wait_log(patterns.WATCHING)
        times = saves_under_load(server, project)
        assert_mostly(times.gaps, IMPORT_SECONDS + 0.3)
        assert server.execs() == 0


@pytest.mark.load
def test_without_lazy_apps_all_is_executed_anew(tmp_path: Path) -> None:
    """Not lazy: the binary is executed anew, once a save; everybody waits for the import, no request fails."""
    project = Project(tmp_path / "project", import_seconds=IMPORT_SECONDS)
    project.release()
    with Uwsgi(project, lazy=False) as server:
        server.wait_log(patterns.WATCHING)
        times = saves_under_load(server, project)
        assert_mostly(times.gaps, IMPORT_SECONDS + 0.5)
        assert server.execs() == SAVES
        server.wait_for_workers(4)


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "not lazy"])
def test_two_edits_of_the_same_size_within_a_second(lazy: bool, tmp_path: Path) -> None:
    """What is served in the end is what is on disk: a .pyc knows whole seconds and a size only."""
    project = Project(tmp_path / "project", import_seconds=0.0)
    project.imports = "import helper"
    project.save("helper.py", "VERSION = 'a000'\n")
    project.release()
    with Uwsgi(project, workers=2, lazy=lazy) as server:
        server.wait_log(patterns.WATCHING)
        for number in range(8 if lazy else 4):
            first, second = f"b{number:03}", f"c{number:03}"
            project.save("helper.py", f"VERSION = {first!r}\n")
            if number % 2:
                server.wait_for_version(first, "/helper")
            project.save("helper.py", f"VERSION = {second!r}\n")
            server.wait_for_version(second, "/helper")
        server.wait_for_everyone(second, "/helper")
        server.wait_for_workers(2)
        assert server.version("/helper") == second


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "not lazy"])
def test_the_first_edit_while_the_workers_are_importing(lazy: bool, tmp_path: Path) -> None:
    """Saved while the first import goes on: noticed, served, and nobody waits for `worker-reload-mercy`."""
    project = Project(tmp_path / "project", import_seconds=1.0)
    marker = "open(os.path.join(os.path.dirname(__file__), 'began'), 'a').close()"
    project.release(top=marker)
    with Uwsgi(project, lazy=lazy, wait=False) as server:
        wait_until((project.root / "began").exists, "an import has begun")
        saved = project.release(top=marker)
        server.wait_ready()
        server.wait_for_version(project.version)
        wait_until(
            lambda: {server.version() for _ in range(20)} == {project.version}, "every worker has the edit", 20.0
        )
        # Half of that mercy.
        assert time.monotonic() - saved < 30.0
        server.wait_for_workers(4)
