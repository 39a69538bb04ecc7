"""Who is in a pid file, and may it be signalled?

A pid file outlives its server, and the number in it is given to another process: what is signalled has to be older
than the file, and to heed the signal. Whoever may write the file chooses whom we signal.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from ..core.text import printable

_READ_AT_MOST = 64
_NUMBER = re.compile(rb"\s*([0-9]{1,10})\s*\Z")
_LARGEST = 2**31 - 1
# Clocks of file systems tick coarsely, those of other machines differ a little.
_SLACK = 2.0
# Whoever sends one of these wants an end, or nothing that could be caught.
_ENDS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT})
_PARENTS_AT_MOST = 100
_PS_AT_MOST = 5.0
# So young, one that ignores a signal may be just starting; later it does so for good.
_STARTS_WITHIN = 30.0
_PS = re.compile(r"(\S+)\s+(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)\s+(\d+)\s+(\d+)\s+(.*)")
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


class NoServer(Exception):
    """Nothing is to be signalled now. The text is one line that says why, and what to do. *passing*: so it is with
    every server that starts, for a moment."""

    def __init__(self, text: str, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


class Process(NamedTuple):
    """What the system says of a process."""

    pid: int
    name: str
    """The program, rather than the interpreter that runs it."""
    parent: int
    age: float
    """Seconds since it started."""
    users: frozenset[int]
    ended: bool
    """It has, but nobody has asked how."""
    heeds: int | None = None
    """A bit for each signal that it catches or takes in its own way; None where the system does not tell."""
    started: int | None = None
    """When, by a clock that nobody sets; None where the system does not tell."""
    ignores: int = 0
    """A bit for each signal that it ignores, as far as the system tells."""

    def __str__(self) -> str:
        return f"{self.pid} ({self.name})"


class Server:
    """The *process* that a pid file names, checked, and held on to where the system can do that: its number may be
    given to another one at any moment."""

    def __init__(self, process: Process, handle: int | None, name: str) -> None:
        self.process = process
        self._handle = handle
        self._name = name

    def send(self, sig: signal.Signals) -> None:
        """Signal it. Raises `Unfit`."""
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

        Raises `Unfit` with what speaks against it.
        """
        pid, status, owners = self._read()
        if pid <= 1:
            raise NoServer(f"{self.name}: {pid} is nobody that could be signalled")
        if pid in _ourselves():
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
            # To open a named pipe would mean to wait for its writer.
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
    for child in _children(found.pid):
        # Its router does so for good, and catches what is to end it, as all do that have begun.
        starts = child.ignores >> (sig - 1) & 1 and not (child.heeds or 0) >> (signal.SIGTERM - 1) & 1
        if starts and child.name == found.name and child.age < _STARTS_WITHIN:
            raise NoServer(f"{name}: {child} of {found} ignores {sig.name} now, as who starts does", passing=True)


def process(pid: int) -> Process | None:
    """What the system says of *pid*, or None where there is no such process or it does not tell."""
    return from_proc(pid) or from_ps(pid)


def from_proc(pid: int) -> Process | None:
    """The same, as Linux tells it."""
    if sys.platform != "linux":
        return None
    try:
        fields = _stat(pid)
        status = dict(line.split(":", 1) for line in _contents(pid, "status").decode(errors="replace").splitlines())
        command = _contents(pid, "cmdline").split(b"\0")
    except OSError:
        return None
    if int(status["Tgid"]) != pid:
        # The number of a thread. To signal it would signal the process that it is a part of.
        return None
    # Not from the time of day: that may have been set since.
    started = int(fields[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    return Process(
        pid=pid,
        name=_program(status["Name"].strip(), [os.fsdecode(word) for word in command]),
        parent=int(fields[1]),
        age=age,
        users=frozenset(map(int, status["Uid"].split())),
        ended=fields[0] in (b"Z", b"X"),
        heeds=int(status["SigCgt"], 16) | int(status["SigBlk"], 16),
        started=started,
        ignores=int(status["SigIgn"], 16),
    )


def from_ps(pid: int) -> Process | None:
    """The same, as `ps` tells it everywhere else, its age rounded up to a second."""
    columns = [word for name in ("stat", "etime", "uid", "ppid", "comm") for word in ("-o", f"{name}=")]
    try:
        answer = subprocess.run(
            ["ps", *columns, "-p", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PS_AT_MOST,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _PS.match(answer.stdout.decode(errors="replace").strip())
    if found is None:
        return None
    state, days, hours, minutes, seconds, user, parent, command = found.groups()
    return Process(
        pid=pid,
        name=printable(os.path.basename(command.partition(" <")[0])),
        parent=int(parent),
        age=((int(days or 0) * 24 + int(hours or 0)) * 60 + int(minutes)) * 60 + float(seconds) + 1.0,
        users=frozenset({int(user)}),
        ended=state.startswith("Z"),
    )


def _children(pid: int) -> Iterator[Process]:
    """The living children of *pid*, as far as Linux tells; not each kernel has a list of them."""
    if sys.platform != "linux":
        return
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            # Most are not, and the rest takes longer to read.
            if name.isdigit() and int(_stat(int(name))[1]) == pid:
                found = from_proc(int(name))
                if found is not None and not found.ended:
                    yield found


def _stat(pid: int) -> list[bytes]:
    """The fields behind its name, which may have any characters: its state, its parent..."""
    return _contents(pid, "stat").rpartition(b")")[2].split()


def _contents(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def _program(name: str, command: list[str]) -> str:
    """What users call it: of an interpreter, the script or the module that it runs."""
    if not name.startswith("python"):
        return printable(name)
    words = iter(command[1:])
    for word in words:
        if word == "-m":
            return printable(next(words, name))
        if word in _WITH_VALUE:
            next(words, None)
        elif word and not word.startswith("-"):
            return printable(os.path.basename(word))
        elif word.startswith("-c"):
            break
    return printable(name)


def _ourselves() -> Iterator[int]:
    """This process, and those that have started it."""
    yield os.getpid()
    pid = os.getppid()
    for _ in range(_PARENTS_AT_MOST):
        yield pid
        found = process(pid) if pid > 1 else None
        if found is None:
            return
        pid = found.parent


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
    """Send *sig*: 0 just asks whether we may, None whether there is such a process. Raises `Unfit`."""
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
