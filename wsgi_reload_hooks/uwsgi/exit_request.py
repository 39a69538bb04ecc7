"""How one process has a thread of another one, of the same user, do something at once: a named pipe in a private folder."""

from __future__ import annotations

import os

_AT_ONCE = 4096


class Bell:
    """The bell of this process at *path*, in the place of what is there.

    `select` finds it readable when somebody has rung. Raises OSError.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pid = os.getpid()
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        os.mkfifo(path, 0o600)
        # For writing, too: else it would be readable for good once the first who rang has closed it.
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)

    def fileno(self) -> int:
        """For `select`."""
        return self._file

    def rang(self) -> bool:
        """Whether somebody has rung for this process since the last look."""
        try:
            return str(self._pid).encode() in os.read(self._file, _AT_ONCE).split()
        except OSError:
            # Nobody; or it is closed.
            return False

    def close(self) -> None:
        """Be there for nobody any more."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
            try:
                os.unlink(self._path)
            except OSError:
                pass


def ring(path: str, pid: int) -> bool:
    """Ring at *path* for the process *pid*; whether somebody has that bell."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return os.write(file, b"%d\n" % pid) > 0
    except OSError:
        return False
    finally:
        os.close(file)
