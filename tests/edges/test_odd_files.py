"""Odd things in the place of a loaded module: the old code serves, nothing waits for them or reads them whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from contract.backends import BACKENDS, LONG, Backend
from harness import Load, processes, wait_until

# Much more than a server needs, much less than the large file has.
MEMORY_KB = 700_000
LARGE = 1 << 31


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _of_proc(path: Path) -> None:
    path.symlink_to("/proc/self/mem")


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, LARGE)


def _unreadable(path: Path) -> None:
    path.write_text("VERSION = 'broken'\n")
    path.chmod(0)


ODD: dict[str, Callable[[Path], None]] = {
    "fifo": _fifo,
    "folder": _folder,
    "device": _device,
    "of proc": _of_proc,
    "loop": _loop,
    "sparse": _sparse,
    "unreadable": _unreadable,
}
# What the default run repeats, and what it leaves to the list that a commit is held to.
QUICK = {("sync", "fifo"), ("uwsgi", "fifo")}
LISTED = {"fifo", "sparse"}


def _cell(name: str, odd: str) -> object:
    backend = BACKENDS[name]
    marks = [pytest.mark.skipif(bool(backend.missing), reason=backend.missing)]
    if odd == "unreadable":
        marks.append(pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything"))
    if (name, odd) in QUICK:
        marks.append(pytest.mark.adapters)
    elif odd not in LISTED:
        marks.append(pytest.mark.matrix)
    return pytest.param(name, odd, marks=marks, id=f"{name}-{odd.replace(' ', '_')}")


def _peak_kb(pid: int) -> int:
    """The most memory that the process ever had; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _wait_decided(backend: Backend, load: Load, odd: str) -> None:
    """Until the hooks have refused what is there, or take it for no change."""
    if backend.name == "hup" and odd == "folder":
        # It is ignored, and there is nobody to ask.
        load.run(50)
    elif backend.name == "hup":
        wait_until(lambda: "app.py" in backend.hooks.log, "it is told", LONG)
    else:
        code, output, errors = backend.command("status", "--wait", "--timeout", str(LONG))
        assert code in (0, 1), output + errors


@pytest.mark.parametrize(("name", "odd"), [_cell(name, odd) for name in BACKENDS for odd in ODD])
def test_odd_thing_in_the_place_of_a_module(name: str, odd: str, tmp_path: Path) -> None:
    """No request fails or waits for it, the same workers go on, little memory is used; the repair goes into service."""
    backend = BACKENDS[name](tmp_path / "project")
    project, served = backend.project, backend.project.version
    path = project.root / "app.py"
    with backend.running():
        pids = backend.pids()
        with backend.load() as load:
            path.unlink()
            ODD[odd](path)
            _wait_decided(backend, load, odd)
            assert load.versions(time.monotonic()) == {served}
            assert pids <= backend.pids()
            assert backend.reloads() == 0
            peaks = [_peak_kb(pid) for pid in {backend.hooks.pid} | processes.offspring(backend.hooks.pid)]
            assert max(peaks) < MEMORY_KB
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            project.release()
            load.wait_for(project.version, LONG)
            backend.wait_served()
        assert load.failed == []
        assert load.versions(0.0) == {served, project.version}
