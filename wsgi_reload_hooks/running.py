"""A server that runs, as Linux tells of it: how it was started, and whether these hooks run in it."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import sys
import time
from typing import Optional

from . import pidfile
from .console import Failure
from .files import printable
from .invocation import command
from .setups import Setup, Uwsgi, setup

_PARENTS_AT_MOST = 100
_RENAMED = re.compile(r"(gunicorn: |uWSGI )")
_FILES = re.compile(rb"^Max open files +(\d+)", re.MULTILINE)
_ENDLESS = 1 << 62
_STARTS_WITHIN = 30.0
_HANDED_OVER_WITHIN = 2.0
_CONTROL = re.compile(r"/wsgi-reload-hooks[^/\n]*/(?:gunicorn|uwsgi)-(\d+)-[^/\n]*/control$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Process:
    """What there is to know of a process. *files*: how many it may open."""

    pid: int
    parent: int
    words: list[str]
    environ: dict[str, str]
    folder: str
    executable: str
    files: int
    uid: int
    gid: int
    groups: list[int]


def from_pid(pid: int) -> Setup:
    """The set-up of the server that *pid* is, or is a worker of. Raises `Failure` where it cannot be looked at.

    Root becomes the user of the process: whatever lies in that user's folders is read, and a configuration run, with his
    rights.
    """
    if sys.platform != "linux":
        raise Failure(
            "a process can be looked at on Linux only: name its command line, wsgi-reload doctor -- gunicorn ..."
        )
    process = _head(_process(pid))
    if not os.path.isdir(process.folder):
        raise Failure(f"process {process.pid} works in a folder that has been deleted: start it anew")
    runs = hooks_run(process.pid)
    until = time.monotonic() + _HANDED_OVER_WITHIN
    while runs is False and time.monotonic() < until:
        # In a reload of uWSGI there is none for a moment.
        time.sleep(0.1)
        runs = hooks_run(process.pid)
    if os.geteuid() == 0 and process.uid != 0:
        os.setgroups(process.groups)
        os.setgid(process.gid)
        os.setuid(process.uid)
    found = dataclasses.replace(_setup(process), hooks_run=runs)
    return dataclasses.replace(found, files=process.files) if isinstance(found, Uwsgi) else found


def hooks_run(pid: int) -> Optional[bool]:
    """Whether these hooks run in the server whose arbiter or master is *pid*; None where nothing tells.

    What tells is the socket that the command line reaches it by; that of a server that starts may be still to come.
    """
    try:
        with open(f"/proc/{pid}/net/unix", errors="replace") as file:
            found = {int(each) for each in _CONTROL.findall(file.read())}
        # In a container it knows itself by another number.
        own = next(
            (each.split()[1:] for each in _contents(pid, "status").splitlines() if each.startswith(b"NSpid:")), []
        )
    except OSError:
        return None
    if not found.isdisjoint({pid, *map(int, own)}):
        return True
    known = pidfile.process(pid)
    return False if known is not None and known.age > _STARTS_WITHIN else None


def _setup(process: Process) -> Setup:
    here = _started(process, process.folder)
    where = process.environ.get("PWD", "")
    if _fits(here, process) or not os.path.isabs(where) or not os.path.isdir(where):
        return here
    # By `chdir` it has left the folder that names on its command line are relative to.
    there = _started(process, where)
    return there if _fits(there, process) else here


def _started(process: Process, folder: str) -> Setup:
    """What its command line starts in *folder*."""
    found = command(process.words, process.environ, folder)
    assert found is not None
    # The name it was started by is that of its virtual environment, if it still leads there.
    if found.python and os.path.realpath(found.python[0]) != process.executable and os.path.exists(process.executable):
        found = dataclasses.replace(found, python=(process.executable, *found.python[1:]))
    return setup(found, process.environ, folder, f"process {process.pid}")


def _fits(found: Setup, process: Process) -> bool:
    return found.broken is None and os.path.realpath(found.folder) == os.path.realpath(process.folder)


def _process(pid: int) -> Process:
    """What the system tells of *pid*. Raises `Failure`."""
    try:
        status = dict(line.split(":\t", 1) for line in _contents(pid, "status").decode(errors="replace").splitlines())
        limit = _FILES.search(_contents(pid, "limits"))
        pairs = [each.partition("=") for each in map(os.fsdecode, _contents(pid, "environ").split(b"\0"))]
        return Process(
            pid=int(status["Tgid"]),
            parent=int(status["PPid"]),
            words=_words(pid),
            environ={name: value for name, equals, value in pairs if equals},
            folder=os.readlink(f"/proc/{pid}/cwd"),
            executable=os.readlink(f"/proc/{pid}/exe"),
            files=int(limit[1]) if limit else _ENDLESS,
            uid=int(status["Uid"].split()[1]),
            gid=int(status["Gid"].split()[1]),
            groups=[int(each) for each in status["Groups"].split()],
        )
    except (FileNotFoundError, ProcessLookupError):
        raise Failure(f"there is no process {pid}") from None
    except PermissionError:
        why = "the system lets nobody look at it" if os.geteuid() == 0 else "run this as its user, or as root"
        raise Failure(f"process {pid} cannot be looked at: {why}") from None


def _head(process: Process) -> Process:
    """The arbiter or master of the server that *process* belongs to. Raises `Failure`."""
    _check(process)
    for _ in range(_PARENTS_AT_MOST):
        # An arbiter that another one has started on USR2 stands for itself.
        if process.parent <= 1 or process.environ.get("GUNICORN_PID") == str(process.parent):
            break
        if _words(process.parent) != process.words:
            break
        process = _process(process.parent)
    return process


def _check(process: Process) -> None:
    if not process.words:
        raise Failure(f"process {process.pid} has ended, or is one of the kernel's")
    if _RENAMED.match(process.words[0]):
        raise Failure(
            f"process {process.pid} has written over its command line: name it, wsgi-reload doctor -- gunicorn ..."
        )
    if command(process.words, process.environ, process.folder) is None:
        shown = printable(shlex.join(process.words))
        raise Failure(
            f"process {process.pid} is neither gunicorn nor uWSGI: {shown if len(shown) < 80 else shown[:77] + '...'}"
        )


def _words(pid: int) -> list[str]:
    try:
        text = _contents(pid, "cmdline")
    except OSError:
        return []
    return [os.fsdecode(word) for word in text.rstrip(b"\0").split(b"\0")] if text else []


def _contents(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
