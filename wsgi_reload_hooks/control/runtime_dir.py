"""Private folders for a user's running servers: where they are, whose they are, and what is left of dead ones.

Each server has one, ``KIND-PID-BIRTH``: a pid alone may have been somebody else's before. ``-NAMESPACE`` follows where pids
have one: containers may share folders, and know nothing of each other's processes.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("gunicorn", "uwsgi", "run", "client")
_FOLDER = "wsgi-reload-hooks"
_TRIED = 1000


class Home(NamedTuple):
    """The folder of one process: of what kind it is, its pid, and the path."""

    kind: str
    pid: int
    path: str


def lives(home: Home) -> bool:
    """Whether its process does."""
    return os.path.basename(home.path).split("-")[2:3] == [_birth(home.pid)]


def make_home(kind: str, pid: int) -> Home:
    """The folder of the process *pid*, made where it is missing; what dead ones left beside it is removed.

    Raises OSError where no private folder can be had; its text says what to do.
    """
    base = _base()
    path = os.path.join(base, "-".join(filter(None, (kind, str(pid), _birth(pid), _namespace()))))
    for home in _homes(base) if is_private(base) else ():
        _remove_dead(home)
    for _ in range(_TRIED):
        try:
            _make_private(base)
            _make_private(path)
            break
        except FileNotFoundError:
            # Another process has just removed the last folder, and with it the one around it.
            continue
    else:
        raise FileNotFoundError(f"{path} is removed again and again by others")
    return Home(kind, pid, path)


def homes() -> Iterator[Home]:
    """Those of all living processes of this user; what dead ones left is removed."""
    for base in _bases():
        if is_private(base):
            for home in _homes(base):
                if not _remove_dead(home):
                    yield home


def remove_home(home: Home) -> None:
    """Remove it with all that is in it, and the folder around it where it was the last."""
    try:
        for name in os.listdir(home.path):
            os.unlink(os.path.join(home.path, name))
        os.rmdir(home.path)
    except OSError:
        pass
    try:
        os.rmdir(os.path.dirname(home.path))
    except OSError:
        pass


def is_private(folder: str) -> bool:
    """Whether it is a folder, no link to one, that belongs to this user alone."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return _is_private(status)


def _is_private(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _make_private(folder: str) -> None:
    """Make *folder* if it is missing. Raises OSError where it is not this user's alone, or gone again."""
    try:
        # Not `makedirs`: what that makes on the way is open to others.
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    if not _is_private(os.lstat(folder)):
        raise PermissionError(f"{folder} is not a folder that belongs to this user alone: remove it")


def _base() -> str:
    """In ``XDG_RUNTIME_DIR`` where that is this user's, else in the folder for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and is_private(runtime):
        return os.path.join(runtime, _FOLDER)
    return os.path.join(tempfile.gettempdir(), f"{_FOLDER}-{os.geteuid()}")


def _bases() -> list[str]:
    """Where servers may have theirs, also those that were started in other surroundings."""
    mine = f"{_FOLDER}-{os.geteuid()}"
    session = f"/run/user/{os.geteuid()}"
    places = [_base(), os.path.join(tempfile.gettempdir(), mine), os.path.join("/tmp", mine)]
    if is_private(session):
        places.append(os.path.join(session, _FOLDER))
    # Not the last part: whoever has put a link there has it lead to a place of his choice.
    return list(
        dict.fromkeys(os.path.join(os.path.realpath(os.path.dirname(each)), os.path.basename(each)) for each in places)
    )


def _homes(base: str) -> list[Home]:
    try:
        names = sorted(os.listdir(base))
    except OSError:
        return []
    found, mine = [], _namespace()
    for name in names:
        kind, pid, *rest = [*name.split("-"), ""][:5]
        if kind in KINDS and pid.isdigit() and (len(rest) < 2 or rest[1] in ("", mine)):
            found.append(Home(kind, int(pid), os.path.join(base, name)))
    return found


def _remove_dead(home: Home) -> bool:
    """Remove it if its process is gone. Whether it was."""
    dead = not lives(home)
    if dead:
        remove_home(home)
    return dead


def _namespace() -> str:
    """The one that pids are counted in, where the system has such."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def _birth(pid: int) -> str:
    """When the process was started, in the kernel's own words; where it has none, whether it lives."""
    found: str | None = None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            found = file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        pass
    if found is None:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return "gone"
        except PermissionError:
            pass
    return found or ""
