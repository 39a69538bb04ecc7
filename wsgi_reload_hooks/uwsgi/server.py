"""uWSGI as far as we touch it: the one place that imports its module, and knows what else its workers tell of themselves."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from ..core.log_line import Line

try:
    import uwsgi
except ImportError:
    # Outside of uWSGI: the face has said so.
    uwsgi = None

_LINES_AT_MOST = 3000
# Above the numbers that uWSGI's decorators hand out, which begin at 0.
_HIGHEST_SIGNAL = 254
_HANGUP_BIT = 1
# What serves requests in another way than one after the other.
_OTHER_LOOPS = ("async", "asyncio", "coroae", "fiber", "gevent", "greenlet", "loop", "tornado", "ugreen")


class Slot(NamedTuple):
    """One worker as the master sees it. *pid* is 0 where it is cheaped or between two lives."""

    number: int
    pid: int
    apps: int
    requests: int
    busy: bool
    respawns: int


class Server:
    """The running uWSGI. Only names that all of 2.0.2x and pyuwsgi have."""

    def __init__(self) -> None:
        self.master: int = uwsgi.masterpid()
        self.version = _text(getattr(uwsgi, "version", ""))
        self.has_threads = bool(getattr(uwsgi, "has_threads", False))
        self.lazy = "lazy-apps" in uwsgi.opt or "lazy" in uwsgi.opt
        self.log = Log()
        self.was_reloaded = bool(getattr(uwsgi, "is_a_reload", False))
        self._kept: Callable[[int], object] | None = None

    def number(self) -> int:
        """The number of this worker; 0 in the master, a mule and a spooler."""
        return int(uwsgi.worker_id())

    def workers(self) -> list[Slot]:
        """All workers that there are right now."""
        slots = []
        for each in uwsgi.workers():
            busy = each["status"] not in (b"idle", b"cheap", b"pause")
            pid = 0 if each["status"] == b"cheap" else each["pid"]
            slots.append(Slot(each["id"], pid, len(each["apps"]), each["requests"], busy, each["respawn_count"]))
        return [slot for slot in slots if slot.pid > 0]

    def has_several_interpreters(self) -> bool:
        """Return whether each worker has one Python interpreter per application, and more than one application."""
        return "single-interpreter" not in uwsgi.opt and any(slot.apps > 1 for slot in self.workers())

    def options(self) -> dict[str, Any]:
        """``uwsgi.opt``: a repeated option has its last value only."""
        return dict(uwsgi.opt)

    def option(self, name: str) -> str | None:
        """The value of an option as text, "" for one without a value; None where it is not set."""
        value = uwsgi.opt.get(name)
        if value is None or value is False:
            return None
        if isinstance(value, list):
            value = value[-1]
        return (
            value.decode(errors="surrogateescape") if isinstance(value, bytes) else "" if value is True else str(value)
        )

    def has_moved(self) -> bool:
        """Whether ``chdir`` leads to another folder by now (a release that is switched by a symlink), or ours was deleted.

        A worker that is only respawned would stand in the old one.
        """
        folder = self.option("chdir")
        try:
            os.getcwd()
        except FileNotFoundError:
            return True
        try:
            return bool(folder) and os.path.isabs(str(folder)) and os.path.realpath(str(folder)) != os.getcwd()
        except OSError:
            return False

    def take_signal(self) -> int:
        """The number of one of uWSGI's own signals for us.

        In a worker always the same: its table outlives it, so the number looks taken by the worker of before, and
        would call into what was its memory if it were not taken again.
        """
        if self.number():
            return _HIGHEST_SIGNAL
        return next(each for each in range(_HIGHEST_SIGNAL, 0, -1) if not uwsgi.signal_registered(each))

    def wake(self, signal: int) -> None:
        """Have the master look at once whether a worker has ended; by itself it does so once a second."""
        uwsgi.signal(signal)

    def mend_binary_path(self) -> bool:
        """Whether uWSGI knows what to execute at a reload; told to it where it does not, which only its master can do.

        pyuwsgi takes ``sys.executable``, and so leaves its virtual environment (unbit/uwsgi#2478).
        """
        if "pyuwsgi" not in sys.modules or "binary-path" in uwsgi.opt:
            return True
        program = _command_line()[:1]
        if self.number() or not program:
            return False
        self._binary_path = ctypes.create_string_buffer(os.fsencode(shutil.which(program[0]) or program[0]))
        manage = _program().uwsgi_manage_opt
        manage(ctypes.create_string_buffer(b"binary-path"), self._binary_path)
        return True

    def execute_again(self) -> None:
        """Start uWSGI anew in the place of this process, a master that has no workers yet; it keeps its sockets.

        What uWSGI does on a reload, at a moment when it would not listen. Returns where that is not possible.
        """
        command = _command_line()
        if not command or {"log-master", "logger", "auto-procname", "procname", "procname-master"} & set(uwsgi.opt):
            return
        kept = {0, 1, 2, *uwsgi.sockets}
        kept |= {int(os.environ.get(name) or 2) for name in ("UWSGI_EMPEROR_FD", "UWSGI_EMPEROR_FD_CONFIG")}
        folder = os.environ.get("PWD", "")
        try:
            if "chdir" in uwsgi.opt:
                os.chdir(folder)
            for name in os.listdir("/proc/self/fd"):
                if int(name) not in kept:
                    _close_on_exec(int(name))
            sys.stdout.flush()
            sys.stderr.flush()
            os.execvp(command[0], command)
        except OSError as error:
            self.log.error("reload: uWSGI cannot be executed anew: %s; restart it", error)

    def way_out(self) -> Callable[[], object] | None:
        """What has this worker end after the request that it has, or has accepted; None where only a signal can.

        It does not wake a worker that waits for a request. With several threads uWSGI does the same on SIGHUP.
        """
        if any(self.option(name) is not None for name in _OTHER_LOOPS) or self.option("threads") not in (None, "1"):
            return None
        try:
            way: Callable[[], object] = _program().goodbye_cruel_world
        except (AttributeError, OSError):
            return None
        return way

    def is_at_work(self) -> bool:
        """Whether this worker has a request, or one of uWSGI's signals to answer."""
        return any(slot.busy for slot in self.workers() if slot.number == self.number())

    def register_timer(self, number: int, call: Callable[[int], object], seconds: int) -> None:
        """Have *call* answer the signal *number*; with *seconds* above 0 it comes that often, to any idle worker."""
        # uWSGI keeps the address and no reference.
        self._kept = call
        try:
            import uwsgidecorators
        except ImportError:
            # uWSGI of a distribution in a virtual environment: the decorators are elsewhere.
            uwsgi.register_signal(number, "", call)
            if seconds:
                uwsgi.add_timer(number, seconds)
            return
        if seconds:
            uwsgidecorators.timer(seconds, signum=number)(call)
        else:
            uwsgidecorators.signal(number)(call)

    def after_fork(self, call: Callable[[], None]) -> None:
        """Have *call* called in each process that the master forks."""
        try:
            import uwsgidecorators
        except ImportError:
            theirs = getattr(uwsgi, "post_fork_hook", None)

            def both() -> None:
                call()
                if theirs is not None:
                    theirs()

            uwsgi.post_fork_hook = both
            return
        uwsgidecorators.postfork(call)

    def dead_siblings(self) -> list[tuple[int, int]]:
        """Number and pid of each other worker that is gone, or not there yet."""
        others = [each for each in uwsgi.workers() if each["id"] != self.number() and each["status"] != b"cheap"]
        return [(each["id"], each["pid"]) for each in others if each["pid"] == 0 or has_ended(each["pid"])]

    def no_harakiri(self) -> None:
        """What this worker does now may take longer than a request."""
        uwsgi.set_user_harakiri(0)

    def stand_in(self) -> dict[str, Any]:
        """What its module says of the server, for code that is only tried."""
        values = {name: getattr(uwsgi, name) for name in dir(uwsgi) if not name.startswith("_")}
        constants = {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str, bytes))}
        return {
            **constants,
            "opt": self.options(),
            "masterpid()": self.master,
            "worker_id()": max(1, self.number()),
            "workers()": [dict(each, apps=[]) for each in uwsgi.workers()],
        }


class Log:
    """uWSGI's log, with the methods that a journal asks for. uWSGI knows no levels: debug lines are left out."""

    def info(self, text: str, *arguments: object) -> None:
        self._write("INFO", text, arguments)

    def warning(self, text: str, *arguments: object) -> None:
        self._write("WARNING", text, arguments)

    def error(self, text: str, *arguments: object, exc_info: BaseException | None = None) -> None:
        trace = "" if exc_info is None else "".join(traceback.format_exception(None, exc_info, exc_info.__traceback__))
        self._write("ERROR", text, arguments, "\n" + trace.rstrip() if trace else "")

    def debug(self, text: str, *arguments: object) -> None:
        """Nothing."""

    def _write(self, level: str, text: str, arguments: tuple[object, ...], more: str = "") -> None:
        if isinstance(text, Line):
            said = text.json()
        else:
            said = f"[{level}] " + (text % arguments if arguments else text) + more
        lines = f"{said}\n".encode(errors="backslashreplace")
        # A master that collects the log takes a few kilobytes at a time.
        for start in range(0, len(lines), _LINES_AT_MOST):
            try:
                os.write(2, lines[start : start + _LINES_AT_MOST])
            except OSError:
                return


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def is_ready(slot: Slot) -> bool:
    """Whether this worker has loaded its applications and takes requests.

    uWSGI installs its handler of SIGHUP then, which Linux shows. Elsewhere the number of applications must do.
    """
    caught = _caught(slot.pid)
    return slot.apps > 0 if caught is None else bool(caught & _HANGUP_BIT)


def catches_hangup(pid: int) -> bool | None:
    """Whether the process has a handler for SIGHUP; None where the system does not tell."""
    caught = _caught(pid)
    return None if caught is None else bool(caught & _HANGUP_BIT)


def has_ended(pid: int) -> bool:
    """Whether nothing but the master's knowledge of the process is left."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _program() -> ctypes.CDLL:
    """uWSGI's own functions: those of the program that runs, or of the module that is uWSGI. Raises OSError."""
    return ctypes.CDLL(getattr(sys.modules.get("pyuwsgi"), "__file__", None))


def _command_line() -> list[str]:
    """How this uWSGI was started; empty where the system does not tell."""
    try:
        with open("/proc/self/cmdline", "rb") as file:
            return [os.fsdecode(each) for each in file.read().split(b"\0") if each]
    except OSError:
        return []


def _close_on_exec(number: int) -> None:
    try:
        fcntl.fcntl(number, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    except OSError:
        pass


def _caught(pid: int) -> int | None:
    """The signals that the process has handlers for, bit by bit; None where the system does not tell."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            line = next(line for line in file if line.startswith(b"SigCgt:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1], 16)
