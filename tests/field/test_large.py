"""Faults found with big applications: much to import, no room, code that fails where nobody looks."""

from __future__ import annotations

import itertools
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Project, Server, holds, processes, wait_until

from .servers import (
    APPS,
    BLAMED,
    FACES,
    REFUSED,
    RELOADED,
    SERVERS,
    TOLD,
    answered,
    each,
    in_service,
    project_of,
    save,
    started,
    wait_for_outcome,
)

pytestmark = pytest.mark.field


def can_be_limited() -> bool:
    """Only root can become a user whom the limit of processes binds, and keep the right to open its files."""
    command = [sys.executable, str(APPS / "launch" / "limited.py"), sys.executable, "-c", "import gunicorn"]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def conditions(tmp_path: Path) -> Project:
    """An application whose import meets what a test asks for."""
    return project_of("conditions", tmp_path)


@pytest.fixture
def swallows(tmp_path: Path) -> Project:
    """An application that catches what its imports raise."""
    return project_of("swallows", tmp_path)


def with_parts(project: Project, count: int) -> None:
    """Have the import load so many modules, each in no time for now."""
    (project.root / "pace").write_text("0")
    names = [f"part_{number}" for number in range(count)]
    for name in names:
        shutil.copyfile(project.root / "part.py", project.root / f"{name}.py")
    (project.root / "parts").write_text(" ".join(names))


# -- boot_timeout ------------------------------------------------------------------------------------------------------


@each(FACES, FACES, "boot_timeout counts from the start of the import, not from the last file that was loaded")
def test_a_slow_import_that_makes_progress_is_not_refused(face: str, conditions: Project) -> None:
    """Twelve modules of 0.5 s each are good code under a boot_timeout of 4 s."""
    with_parts(conditions, 12)
    with started(face, conditions, {"WSGI_RELOAD_BOOT_TIMEOUT": "4"}) as server:
        (conditions.root / "pace").write_text("0.5")
        save(conditions)
        wait_for_outcome(server, limit=30)
        assert in_service(server), "good code was refused"


@each(("gunicorn", "uwsgi"))
def test_an_endless_import_is_refused(face: str, conditions: Project) -> None:
    """An import that loads one module after the other without end is refused, and the old code serves."""
    with_parts(conditions, 100)
    with started(face, conditions, {"WSGI_RELOAD_BOOT_TIMEOUT": "1"}) as server:
        (conditions.root / "pace").write_text("0.3")
        save(conditions)
        server.wait_for_log(REFUSED, limit=30)
        holds(lambda: answered(server) == "v1", "v1 is served", seconds=0.5)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="the refusal does not say how many were still importing")
def test_the_refusal_says_how_many_were_still_importing(conditions: Project) -> None:
    """One of two workers hangs in its import: the refusal says `1 of 2`."""
    with started("gunicorn", conditions, {"WSGI_RELOAD_BOOT_TIMEOUT": "2"}) as server:
        (conditions.root / "hold").touch()
        (conditions.root / "slot").touch()
        save(conditions)
        server.wait_for_log(REFUSED)
        assert re.search(r"\b1 of 2\b", server.log)


# -- no room -----------------------------------------------------------------------------------------------------------


@contextmanager
def few_processes(server: Server) -> Iterator[None]:
    """Until the block ends, no process of *server* can make another one."""
    before, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    _limit_processes(server.processes(), "1")
    yield
    _limit_processes(server.processes(), "unlimited" if before == resource.RLIM_INFINITY else str(before))


def _limit_processes(pids: list[int], soft: str) -> None:
    """As the user of *pids*, who need not be one whose limits root can set."""
    for pid in pids:
        command = ["prlimit", f"--pid={pid}", f"--nproc={soft}:"]
        subprocess.run(command, user="nobody", group=os.getgid(), extra_groups=[], check=processes.alive(pid))


def goes_into_service(server: Server) -> None:
    """The save was not refused for what is no fault of it, and is tried again."""
    assert not server.count(BLAMED), "the code is refused"
    wait_until(lambda: in_service(server), "v2 is in service")


@contextmanager
def few_files(server: Server) -> Iterator[None]:
    """Until the block ends, one more file can be opened by the process that decides, and by each that serves."""
    before = {}
    for pid in server.processes():
        taken = set(processes.numbers(pid))
        free = (number for number in itertools.count() if number not in taken)
        next(free)
        before[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (next(free), before[pid][1]))
    yield
    for pid in server.processes():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before.get(pid, before[server.pid]))


@pytest.mark.skipif(not can_be_limited(), reason="no user here whom the limit of processes binds")
@each(("gunicorn", "preload", "uwsgi", "serve"), ("gunicorn", "preload"), "EAGAIN at a fork refuses good code for good")
def test_no_more_processes(face: str, conditions: Project) -> None:
    """No process can be made at the moment of a save: the save goes into service once there is room."""
    with started(face, conditions, launcher=["limited.py"]) as server:
        with few_processes(server):
            save(conditions)
            server.wait_for_log(TOLD)
        goes_into_service(server)


@each(FACES, ("gunicorn", "preload"), "EMFILE at a save loses the save")
def test_no_more_open_files(face: str, conditions: Project) -> None:
    """No file can be opened at the moment of a save: the save goes into service once there is room."""
    with started(face, conditions) as server:
        with few_files(server):
            save(conditions)
            server.wait_for_log(TOLD)
        goes_into_service(server)


@each(FACES, FACES, "ENOSPC while new code is tried refuses it for good")
def test_a_full_disk(face: str, conditions: Project) -> None:
    """The import finds no room on the disk: the save goes into service once there is room."""
    with started(face, conditions) as server:
        (conditions.root / "cache").symlink_to("/dev/full")
        save(conditions)
        server.wait_for_log(TOLD)
        (conditions.root / "cache").unlink()
        goes_into_service(server)


@each(FACES, FACES, "the SIGKILL of whoever tries new code refuses it for good")
def test_killed_while_new_code_is_tried(face: str, conditions: Project) -> None:
    """The OOM killer ends the process that imports new code: the save goes into service all the same."""
    with started(face, conditions) as server:
        (conditions.root / "hold").touch()
        save(conditions)
        importing = conditions.root / "importing"
        wait_until(importing.exists, "the import has begun")
        processes.kill(int(importing.read_text()))
        (conditions.root / "hold").unlink()
        wait_for_outcome(server)
        goes_into_service(server)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="the back-off of serve outlives the code that died")
def test_new_code_ends_the_back_off_of_serve(conditions: Project) -> None:
    """A program that died again and again is repaired: the first death of the new one starts it again at once."""
    with started("serve", conditions) as server:
        again = r"the program ended .*(?:\n|$)"
        for number in (1, 2, 3):
            wait_until(lambda: answered(server) == "v1", "v1 is served")
            answered(server, "/crash")
            server.wait_for_log(again, number)
        save(conditions)
        wait_until(lambda: answered(server) == "v2", "v2 is served")
        answered(server, "/crash")
        assert re.search(r"\bin [\d.]+ s", server.wait_for_log(again, 4)[0]) is None


# -- errors that the application swallows, and late imports ------------------------------------------------------------


@each(FACES, FACES, "an error in a changed file is not noticed when the application catches it")
def test_a_swallowed_import_error_is_refused(face: str, swallows: Project) -> None:
    """A changed module raises in a thread of the application, which catches it: refused."""
    with started(face, swallows) as server:
        swallows.save("part.py", "VERSION = undefined_name\n")
        wait_until(lambda: server.count(REFUSED) or server.count(RELOADED) or in_service(server), "it is decided")
        assert server.count(REFUSED)
        if face != "hup":
            assert answered(server, "/part") == "v1"


@each(SERVERS)
def test_a_file_that_raised_before_may_raise_again(face: str, swallows: Project) -> None:
    """`try: import optional`: a module that raised in the version in service is let in when it still raises."""
    swallows.save("part.py", "VERSION = undefined_name\n")
    with started(face, swallows) as server:
        swallows.save("part.py", "VERSION = another_undefined_name\n")
        save(swallows)
        wait_until(lambda: answered(server) == "v2", "v2 is served")
        assert not server.count(REFUSED)


@each(SERVERS, SERVERS, "a changed module that only a request imports is not tried")
def test_a_broken_late_import_is_refused(face: str, swallows: Project) -> None:
    """A module that a request has imported is saved broken: refused, and no client gets an error."""
    with started(face, swallows) as server:
        wait_until(lambda: answered(server, "/late") == "v1", "the late module is loaded")
        wait_until(lambda: answered(server, "/late") == "v1", "the late module is loaded")
        swallows.save("late.py", "VERSION = undefined_name\n")
        wait_until(lambda: server.count(REFUSED) or server.count(RELOADED), "it is decided")
        assert server.count(REFUSED)
        assert answered(server, "/late") == "v1"
