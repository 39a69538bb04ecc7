"""Small faults found in the field, on systems that differ from ours and in projects that do unusual things."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import HAVE_UWSGI, Hup, LittleServer, Project, Server, processes, wait_until
from harness.steering import commanded

from .servers import (
    APPS,
    FACES,
    REFUSED,
    SENT,
    WATCHING,
    answered,
    each,
    in_service,
    project_of,
    save,
    started,
    unready,
)

pytestmark = pytest.mark.field

MEGABYTE = 1 << 20
WHAT_IS_LEFT = 3.0


def can_hide_proc() -> bool:
    """Only root can have a mount namespace, and not in each container."""
    command = [sys.executable, str(APPS / "launch" / "without_proc.py"), "sh", "-c", "test ! -e /proc/self"]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def conditions(tmp_path: Path) -> Project:
    """An application whose import meets what a test asks for."""
    return project_of("conditions", tmp_path)


# -- no /proc ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not can_hide_proc(), reason="/proc cannot be hidden here")
@each(FACES, ("preload", "uwsgi", "run", "serve", "hup"), "without /proc it does not work, and does not say why")
def test_without_proc(face: str, conditions: Project) -> None:
    """Where /proc is empty, a save goes into service and a broken one does not; or one line says what needs /proc."""
    with unready(face, conditions, launcher=["without_proc.py"]) as server:
        wait_until(lambda: starts(face, server) or gives_up(server), "it serves, or says why not")
        if not names_proc(server):
            assert starts(face, server), "it does not start"
            server.wait_for_log(WATCHING)
            save(conditions)
            wait_until(lambda: in_service(server) or gives_up(server), "v2 is served")
            assert in_service(server) or names_proc(server)
        if not names_proc(server):
            conditions.save("conditions.py", "undefined_name\n")
            wait_until(lambda: server.count(REFUSED + "|not be replaced") or names_proc(server), "it is decided")
            assert server.count(REFUSED) or names_proc(server), "the broken save was let in"


def gives_up(server: Server) -> bool:
    """Whether it has ended, or says that it cannot do its work."""
    return server.exited() or server.count(r"\bcannot\b|\bdoes not load\b") > 0 or names_proc(server)


def starts(face: str, server: Server) -> bool:
    """Whether it does what it is for."""
    return server.count(WATCHING) > 0 if face == "hup" else answered(server) == "v1"


def names_proc(server: Server) -> bool:
    """Whether it says what it lacks, in words of its own: a traceback that shows a path of /proc does not count."""
    return server.count(r"(?m)^(?!.*(?:Errno|open\()).*(?<![\w/])/proc\b") > 0


# -- the guard ---------------------------------------------------------------------------------------------------------


@each(("run", "serve"), ("run", "serve"), "the guard that was killed is replaced at the next start only")
def test_a_killed_guard_is_replaced_at_once(face: str, conditions: Project) -> None:
    """The guard is killed, then the supervisor: the program does not outlive them."""
    with started(face, conditions) as server:
        guards = [pid for pid in processes.children(server.pid) if is_guard(pid)]
        for pid in guards:
            processes.kill(pid)
        if guards:
            with contextlib.suppress(AssertionError):
                wait_until(
                    lambda: any(map(is_guard, processes.children(server.pid))), "another guard is there", WHAT_IS_LEFT
                )
        left = server.processes()
        os.kill(server.pid, 9)
        server.exit_status()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not any(map(processes.alive, left)), "the program has ended", WHAT_IS_LEFT)
        alive = [pid for pid in left if processes.alive(pid)]
        assert not alive, processes.told(alive)
        server.forget()


def is_guard(pid: int) -> bool:
    """Whether it is the shell that ends a program whose supervisor is gone."""
    return processes.command_line(pid).split(b"\0")[0].rpartition(b"/")[2] in (b"sh", b"dash", b"bash")


# -- hup ---------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another group")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="who may write the file by its group is not looked at")
def test_a_pid_file_that_another_group_may_write(project: Project) -> None:
    """The members of a group that is not ours could choose who is signalled: nothing is sent."""
    with LittleServer(project.root) as little:
        os.chown(little.pidfile, -1, 65534)
        little.pidfile.chmod(0o664)
        with Hup(project, "server.pid") as watcher:
            project.release()
            wait_until(lambda: watcher.count(SENT) or watcher.count(r"\bnothing sent\b"), "it is decided")
            assert little.got() == [] and not watcher.count(SENT)


# -- what a trial prints -----------------------------------------------------------------------------------------------


@each(("uwsgi", "run", "hup"), ("uwsgi", "run", "hup"), "all that a trial prints is kept")
def test_the_output_of_a_trial_is_bounded(face: str, conditions: Project) -> None:
    """An import prints 16 MB: what is kept of it is less than one."""
    with started(face, conditions) as server:
        (conditions.root / "hold").touch()
        (conditions.root / "flood").write_text(str(16 * MEGABYTE))
        save(conditions)
        flooded = conditions.root / "flooded"
        wait_until(lambda: flooded.exists() or server.count(REFUSED), "the import has printed all")
        kept = size_of_output(int(flooded.read_text())) if flooded.exists() else 0
        (conditions.root / "hold").unlink()
        assert kept < MEGABYTE


def size_of_output(pid: int) -> int:
    """The size of the file that *pid* prints to; 0 where that is a pipe."""
    return os.stat(f"/proc/{pid}/fd/1").st_size


# -- what doctor and the limits say ------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="doctor does not know of a log that a trial empties")
def test_doctor_finds_a_log_that_a_trial_empties(tmp_path: Path) -> None:
    """An import that opens the log with filemode="w" empties it whenever new code is tried."""
    with started("uwsgi", project_of("own_log", tmp_path)) as server:
        code, output, errors = commanded(server, "doctor", str(server.pid))
        assert code == 1 and "filemode" in output, output + errors


def readme() -> str:
    """What users read."""
    return (APPS.parents[1] / "README.md").read_text()


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="the README does not say that a trial empties such a log")
def test_the_limits_name_filemode() -> None:
    """A trial empties a log that is opened with filemode="w": said."""
    assert "filemode" in readme()


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="the README does not say that attached programs stay old")
def test_the_limits_name_attached_programs() -> None:
    """Programs of `--attach-daemon` stay old: said."""
    assert "attach-daemon" in readme()
