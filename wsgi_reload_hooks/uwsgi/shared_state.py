"""Keeps what the workers of one uWSGI master share: small JSON notes in a private folder, and the leader's lock.

uWSGI forks workers from a master that, under lazy-apps, has nothing of ours in it: no pipe can be inherited. So what
must outlive a worker lies here (see `notes`).
"""

from __future__ import annotations

import json
import os
from typing import Any

from ..control.runtime_dir import make_home, remove_home
from ..process.safe_read import safe_read

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

_LOCK = "leader.lock"
_NOTE_AT_MOST = 64 * 1024 * 1024
# Grows when a note means something else: workers of one server may have imported different releases of this.
_VERSION = 1

Note = dict[str, Any]
Stamp = tuple[int, int] | None


class SharedState:
    """The folder of the server whose master has the pid *master*.

    Raises OSError where no private folder can be had; its text says what to do.
    """

    def __init__(self, master: int) -> None:
        self._home = make_home("uwsgi", master)
        self._folder = self._home.path
        self._lock = -1

    def write(self, name: str, note: Note) -> None:
        """Put *note* in the place of the one of that *name*, at once. Raises OSError (a full disk)."""
        path = os.path.join(self._folder, name)
        try:
            _write_atomically(path, note)
        except FileNotFoundError:
            # The runtime directory was deleted.
            make_home(self._home.kind, self._home.pid)
            _write_atomically(path, note)

    def restore(self, name: str, note: Note) -> None:
        """Write *note* again where it was removed. Raises OSError."""
        if self.stamp(name) is None:
            self.write(name, note)

    def read(self, name: str) -> Note | None:
        """The note of that *name*, or None: also where it is none of this version. `notes.read` checks the rest."""
        try:
            note = json.loads(safe_read(os.path.join(self._folder, name), _NOTE_AT_MOST))
        except (OSError, ValueError, RecursionError):
            return None
        return note if isinstance(note, dict) and note.pop("version", None) == _VERSION else None

    def place(self, name: str) -> str:
        """The path for something of that *name* that is no note."""
        return os.path.join(self._folder, name)

    def stamp(self, name: str) -> Stamp:
        """Something that differs whenever the note of that *name* is another one; None where there is none."""
        try:
            status = os.stat(os.path.join(self._folder, name))
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def remove(self, name: str) -> None:
        """Remove the note of that *name*, if there is one."""
        try:
            os.unlink(os.path.join(self._folder, name))
        except OSError:
            pass

    def acquire_lock(self) -> bool:
        """Whether this process has the leader's lock now. It has until it ends: then the kernel releases the lock.

        Or until the runtime directory is deleted: then the first process that locks a new one has it. A record lock, not
        `flock`: processes that the application forks do not inherit it.
        """
        if self._lock >= 0:
            if os.fstat(self._lock).st_nlink:
                return True
            self.release_lock()
        lock = os.open(os.path.join(self._folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def release_lock(self) -> None:
        """Let another process lead."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def clear(self) -> None:
        """The server is gone: remove the folder."""
        remove_home(self._home)


def _write_atomically(path: str, note: Note) -> None:
    sibling = f"{path}.{os.getpid()}"
    file = os.open(sibling, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(file, "wb") as stream:
        stream.write(json.dumps({**note, "version": _VERSION}).encode())
    os.replace(sibling, path)
