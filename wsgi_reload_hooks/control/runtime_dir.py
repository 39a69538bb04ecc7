"""Makes, finds and removes the private runtime folders of a user's running servers.

Each server has one, ``KIND-PID-BIRTH``: a pid alone may have been another process's before. ``-NAMESPACE`` follows if
pids have one: containers may share folders, and cannot see each other's processes.
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
    """Names the folder of one process: its kind, its pid, and the path."""

    kind: str
    pid: int
    path: str


def lives(home: Home) -> bool:
    """Tell whether the folder's process lives."""
    return os.path.basename(home.path).split("-")[2:3] == [_birth(home.pid)]


def make_home(kind: str, pid: int) -> Home:
    """Return the folder of the process *pid*, and make it if it is missing; removes folders that dead processes left.

    Raises OSError if no private folder can be made; its text says what to do.
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
    """Yield the folders of all living processes of this user; removes those that dead processes left."""
    for base in _bases():
        if is_private(base):
            for home in _homes(base):
                if not _remove_dead(home):
                    yield home


def remove_home(home: Home) -> None:
    """Remove *home* with all that is in it, and its parent folder if *home* was the last in it."""
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
    """Tell whether *folder* is a folder, no link to one, that belongs to this user alone."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return _is_private(status)


def _is_private(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _make_private(folder: str) -> None:
    """Make *folder* if it is missing. Raises OSError if it is not this user's alone, or was deleted again."""
    try:
        # Not `makedirs`: other users may enter the parent folders that it makes.
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    if not _is_private(os.lstat(folder)):
        raise PermissionError(f"{folder} is not a folder that belongs to this user alone: remove it")


def _base() -> str:
    """Return the parent folder: in ``XDG_RUNTIME_DIR`` if that is this user's, else in the temporary folder."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and is_private(runtime):
        return os.path.join(runtime, _FOLDER)
    return os.path.join(tempfile.gettempdir(), f"{_FOLDER}-{os.geteuid()}")


def _bases() -> list[str]:
    """Return all parent folders that servers may use, also those that were started with another environment."""
    mine = f"{_FOLDER}-{os.geteuid()}"
    session = f"/run/user/{os.geteuid()}"
    places = [_base(), os.path.join(tempfile.gettempdir(), mine), os.path.join("/tmp", mine)]
    if is_private(session):
        places.append(os.path.join(session, _FOLDER))
    # Links are not resolved in the last part: another user may have put a link there.
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
    """Remove *home* if its process has ended. Tells whether it has."""
    dead = not lives(home)
    if dead:
        remove_home(home)
    return dead


def _namespace() -> str:
    """Return the identity of the pid namespace, if the system has namespaces."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def _birth(pid: int) -> str:
    """Return the start time of the process as the kernel writes it; without /proc, whether the process lives."""
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
