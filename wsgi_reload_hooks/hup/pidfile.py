"""Reads a pid file, and checks that its process may be signalled.

A pid file outlives its server, and the number in it is given to another process: what is signalled has to be older
than the file, and to heed the signal. Any user who may write the file chooses whom we signal.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import time
from collections.abc import Iterator

from ..core.text import printable
from .processes import Process, children_of, own_ancestors, process

_READ_AT_MOST = 64

_NUMBER = re.compile(rb"\s*([0-9]{1,10})\s*\Z")

_LARGEST = 2**31 - 1

# Clocks of file systems tick coarsely, those of other machines differ a little.
_SLACK = 2.0

# These signals end or stop a process, or continue it: the process need not catch them.
_ENDS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT})

# So young, one that ignores a signal may be just starting; later it does so for good.
_STARTS_WITHIN = 30.0


class NoServer(Exception):
    """Nothing is to be signalled now. The text is one line that says why, and what to do. *passing*: so it is with
    every server that starts, for a moment."""

    def __init__(self, text: str, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


class Server:
    """The *process* that a pid file names, checked, and held on to where the system can do that: its number may be
    given to another one at any moment."""

    def __init__(self, process: Process, handle: int | None, name: str) -> None:
        self.process = process
        self._handle = handle
        self._name = name

    def send(self, sig: signal.Signals) -> None:
        """Signal the process. Raises `NoServer`."""
        # Again, as close to it as can be: it may execute itself anew at any moment.
        found = process(self.process.pid)
        if found is not None:
            _check_heeds(found, sig, self._name)
        _signal(self.process.pid, self._handle, sig, str(self.process))


class PidFile:
    """The pid file *path*, read anew each time."""

    def __init__(self, path: str) -> None:
        self.name = printable(path)
        self._path = os.path.abspath(path)
        # A process and a file that belonged together: a clock that is set makes them no strangers.
        self._known: tuple[object, ...] | None = None

    @contextlib.contextmanager
    def server(self, sig: signal.Signals | None = None) -> Iterator[Server]:
        """The process in the file. *sig*: one that it has to heed, and that we have to be allowed to send.

        Raises `NoServer` with the reason against it.
        """
        pid, status, owners = self._read()
        if pid <= 1:
            raise NoServer(f"{self.name}: {pid} is no process that can be signalled")
        if pid in own_ancestors():
            raise NoServer(f"{self.name}: {pid} is this process, or one that has started it")
        handle = _handle(pid)
        try:
            _signal(pid, handle, 0 if sig else None, str(pid))
            # Only now that its number cannot become another's.
            now = time.time()
            found = process(pid)
            self._check(found, pid, sig, status, owners, now)
            assert found is not None
            yield Server(found, handle, self.name)
        finally:
            if handle is not None:
                os.close(handle)

    def _read(self) -> tuple[int, os.stat_result, set[int]]:
        """The number in it, what it was read from, and who could have put it there."""
        try:
            owners = {os.lstat(self._path).st_uid}
            # Opening a named pipe would wait for its writer.
            number = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise NoServer(f"{self.name}: there is no such file") from None
        except (OSError, ValueError) as error:
            raise NoServer(f"{self.name}: cannot be read ({getattr(error, 'strerror', error)})") from None
        try:
            status = os.fstat(number)
            if not stat.S_ISREG(status.st_mode):
                raise NoServer(f"{self.name}: it is no regular file")
            text = os.read(number, _READ_AT_MOST)
        except OSError as error:
            raise NoServer(f"{self.name}: cannot be read ({error.strerror})") from None
        finally:
            os.close(number)
        found = _NUMBER.match(text)
        if not text.strip():
            raise NoServer(f"{self.name}: it is empty")
        if found is None or int(found[1]) > _LARGEST or status.st_size > _READ_AT_MOST:
            raise NoServer(f"{self.name}: what is in it is no number of a process")
        return int(found[1]), status, owners | {status.st_uid}

    def _check(
        self,
        found: Process | None,
        pid: int,
        sig: signal.Signals | None,
        status: os.stat_result,
        owners: set[int],
        now: float,
    ) -> None:
        if found is None:
            raise NoServer(f"{self.name}: no process {pid} that anything could be learned of")
        if found.ended:
            raise NoServer(f"{self.name}: {found} has ended")
        if status.st_mode & stat.S_IWOTH:
            raise NoServer(
                f"{self.name}: anybody may write to it, and so choose who is signalled; chmod o-w {self.name}"
            )
        strangers = owners - found.users - {0, os.geteuid()}
        if strangers:
            raise NoServer(
                f"{self.name}: it belongs to user {min(strangers)}, who is neither root, nor we, nor the user of {found}"
            )
        pair = None if found.started is None else (pid, found.started, status.st_mtime_ns, status.st_ino)
        if found.age + _SLACK < now - status.st_mtime and (pair is None or pair != self._known):
            raise NoServer(
                f"{self.name}: {found} was started after it was written, so its number is another process's by now; "
                f"if it is the server: touch {self.name}"
            )
        self._known = pair
        if sig is not None:
            _check_heeds(found, sig, self.name)
            _check_children(found, sig, self.name)


def _check_heeds(found: Process, sig: signal.Signals, name: str) -> None:
    if sig not in _ENDS and found.heeds is not None and not found.heeds >> (sig - 1) & 1:
        raise NoServer(f"{name}: {found} does not catch {sig.name} now, and could end by it", passing=True)


def _check_children(found: Process, sig: signal.Signals, name: str) -> None:
    """A worker of uWSGI ignores HUP while it starts. A master that is told to reload then waits for it for a minute."""
    for child in children_of(found.pid):
        # Its router does so for good, and catches what is to end it, as all do that have begun.
        starts = child.ignores >> (sig - 1) & 1 and not (child.heeds or 0) >> (signal.SIGTERM - 1) & 1
        if starts and child.name == found.name and child.age < _STARTS_WITHIN:
            raise NoServer(f"{name}: {child} of {found} ignores {sig.name} now, as who starts does", passing=True)


def _handle(pid: int) -> int | None:
    """What holds on to the process of that number, or None where the system has no such thing, or no such process."""
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return None
    try:
        return os.pidfd_open(pid)
    except (OSError, OverflowError):
        # An older kernel, a sandbox; or what signalling it will tell.
        return None


def _signal(pid: int, handle: int | None, sig: int | None, name: str) -> None:
    """Send *sig*: 0 only asks whether we may, None whether there is such a process. Raises `NoServer`."""
    try:
        if handle is None:
            os.kill(pid, sig or 0)
        else:
            signal.pidfd_send_signal(handle, sig or 0)
    except ProcessLookupError:
        raise NoServer(f"there is no process {name}: the server is gone, and has left its pid file") from None
    except PermissionError:
        if sig is not None:
            raise NoServer(f"{name} is not ours to signal: run this as its user, or as root") from None
    except OSError as error:
        raise NoServer(f"{name} cannot be signalled ({error.strerror})") from None
