"""Starts programs as leaders of process groups, and a tiny shell that ends the groups when this process has ended.

Bottle's answer to the question was a lock file that the parent touches and the child looks at. Here the kernel tells: a
pipe ends with the process that holds it, however that ends, and the shell that reads it outlives it by a moment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence

from ..process.native import Native

# It reads the living groups, a line for each change, and ends them when its input ends. Processes that are left after
# half a second are killed.
_SCRIPT = """
trap '' HUP INT QUIT TERM TSTP TTIN TTOU
groups=
while read -r line; do groups=$line; done
for each in $groups; do kill -s TERM -- "-$each"; kill -s CONT -- "-$each"; done 2>/dev/null
for turn in 1 2 3 4 5; do
    living=
    for each in $groups; do kill -s 0 -- "-$each" && living="$living $each"; done 2>/dev/null
    groups=$living
    [ -n "$groups" ] || exit 0
    sleep 0.1
done
for each in $groups; do kill -s KILL -- "-$each"; done 2>/dev/null
"""
_FAILED = 127


class Guard:
    """Starts programs; the shell ends none while this process lives. Raises OSError if nothing can be started."""

    def __init__(self) -> None:
        self._native = Native()
        self._groups: list[int] = []
        # Python itself ignores SIGPIPE and SIGXFSZ, whatever it was started with.
        by_python = {getattr(signal, name, None) for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ")}
        self._ignored = {
            each for each in signal.valid_signals() - by_python if signal.getsignal(each) is signal.SIG_IGN
        }
        self._begin()

    def start(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        places: Sequence[tuple[int, int]] = (),
        listening: int = 0,
        meet: Callable[[int], object] = lambda pid: None,
    ) -> int:
        """Start *command* (a path first) at the head of a process group of its own. Its pid, which is the group's.

        *places*: (file descriptor here, its number there) besides 0, 1 and 2, which are ours; the number is 3 to 8. The
        first *listening* of them are told in systemd's way (``LISTEN_FDS``). *meet* is called with the pid before the
        program runs. Signals that were ignored when this object was made (``nohup``) are ignored by the program, too.
        Raises OSError where it cannot be run.
        """
        waiting, go = os.pipe()
        failure, told = os.pipe()
        try:
            pid = self._fork(command, dict(environ), places, listening, (waiting, told), (go, failure, self._pipe))
        except OSError:
            for number in (go, failure):
                os.close(number)
            raise
        finally:
            for number in (waiting, told):
                os.close(number)
        try:
            _lead(pid)
            # Before it runs: from here on, it does not outlive us.
            self._groups.append(pid)
            self._tell()
            meet(pid)
            with contextlib.suppress(BrokenPipeError):
                # Broken pipe: the child was killed already.
                os.write(go, b".")
            os.close(go)
            go = -1
            reason = os.read(failure, 16)
        finally:
            os.close(failure)
            if go >= 0:
                os.close(go)
        if reason:
            self._native.waitpid(pid, 0)
            self.forget(pid)
            number = int(reason)
            raise OSError(number, os.strerror(number), command[0])
        return pid

    def forget(self, group: int) -> None:
        """Forget *group*, none of whose processes lives any more."""
        if group in self._groups:
            self._groups.remove(group)
            self._tell()

    def close(self) -> None:
        """End the shell without ending the groups."""
        self._groups = []
        self._tell()
        os.close(self._pipe)
        self._native.waitpid(self._pid, 0)

    def _fork(
        self,
        command: Sequence[str],
        environ: dict[str, str],
        places: Sequence[tuple[int, int]],
        listening: int,
        theirs: tuple[int, int],
        ours: Sequence[int],
    ) -> int:
        # What comes before it is another program (Ctrl-C, say) waits, and then meets that program and not our handlers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with warnings.catch_warnings():
                # Of forks beside threads. Until it is another program, the child does what is safe even then.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                _become(command, environ, places, listening, theirs, ours, self._ignored)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _begin(self) -> None:
        reading, self._pipe = os.pipe()
        shell = shutil.which("sh", path=os.defpath) or "/bin/sh"
        try:
            self._pid = self._native.spawn([shell, "-c", _SCRIPT], {"PATH": os.defpath}, ((reading, 0),))
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(reading)

    def _tell(self) -> None:
        line = (" ".join(map(str, self._groups)) + "\n").encode()
        try:
            os.write(self._pipe, line)
        except BrokenPipeError:
            # The shell was killed.
            os.close(self._pipe)
            self._native.waitpid(self._pid, 0)
            self._begin()
            os.write(self._pipe, line)


def _lead(pid: int) -> None:
    """Make *pid* the leader of a process group. Parent and child both call it; the first call counts."""
    try:
        os.setpgid(pid, pid)
    except (PermissionError, ProcessLookupError):
        # It has done so and become another program already; or it is gone.
        pass


def _become(
    command: Sequence[str],
    environ: dict[str, str],
    places: Sequence[tuple[int, int]],
    listening: int,
    theirs: tuple[int, int],
    ours: Sequence[int],
    ignored: Collection[int],
) -> None:
    """In the child: become *command*. *ours*: what only the parent may hold, for its end to be seen. Does not return."""
    number: int | None = errno.EIO
    waiting, told = theirs
    try:
        os.setpgid(0, 0)
        for each in ours:
            os.close(each)
        if not os.read(waiting, 1):
            # The parent has ended.
            os._exit(_FAILED)
        # All of them out of the way first: one may stand where another is to be.
        held = [(_duplicate(here), there) for here, there in places]
        told = _duplicate(told)
        for here, there in held:
            os.dup2(here, there, inheritable=True)
        if listening:
            environ["LISTEN_FDS"] = str(listening)
            environ["LISTEN_PID"] = str(os.getpid())
        for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            try:
                signal.signal(each, signal.SIG_IGN if each in ignored else signal.SIG_DFL)
            except (OSError, ValueError):
                # One of the C library's own.
                continue
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(command[0], list(command), environ)
    except OSError as error:
        number = error.errno
    finally:
        os.write(told, str(number).encode())
        os._exit(_FAILED)


def _duplicate(number: int) -> int:
    """Duplicate a descriptor to a number above those that the program is given; an exec closes it."""
    import fcntl

    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 20)
