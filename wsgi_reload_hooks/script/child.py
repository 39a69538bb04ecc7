"""Runs a program once: starts its process group, reads its reports, stops it, and records how it ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from ..process.pipe import Message, Reports
from .guard import Guard
from .reporter import BOOT, FLAG, REPORTS_AT, flag

LISTENING_FROM = 3
LISTENING_AT_MOST = REPORTS_AT - LISTENING_FROM
_GLANCE = 0.02
_REAPED_AFTER = 1.0
_CLOSER_LOOKS_EVERY = 0.1
_SETTLED_AFTER = 0.5


class Child:
    """Runs the program *command*, started at once by *guard*.

    *listening*: descriptors of sockets that it is given in systemd's way. *meet* is called with its pid before it
    runs. Raises OSError where it cannot be run.
    """

    def __init__(
        self,
        guard: Guard,
        command: Sequence[str],
        environ: Mapping[str, str],
        listening: Sequence[int] = (),
        third_party: bool = False,
        meet: Callable[[int], object] = lambda pid: None,
    ) -> None:
        self._guard = guard
        self._kill_at: float | None = None
        self._killed_at: float | None = None
        self._look_closer_at = 0.0
        self.began = time.monotonic()
        self.status: int | None = None
        """How it ended: an exit code, or a signal below 0; None while it lives."""
        self.said_hello = False
        self.loaded: dict[str, None] = {}
        """The files of the project that it has loaded, in this order."""
        self._loaded_at = self.began
        self.reports = Reports(roomy=True)
        places = [(number, LISTENING_FROM + place) for place, number in enumerate(listening)]
        places.append((self.reports.writer, REPORTS_AT))
        path = os.pathsep.join(filter(None, [BOOT, environ.get("PYTHONPATH", "")]))
        told = {**environ, FLAG: flag(self.reports.writer, third_party), "PYTHONPATH": path}
        # Unbuffered, so that its output appears at once, also through a pipe.
        told.setdefault("PYTHONUNBUFFERED", "1")
        try:
            self.pid = guard.start(command, told, places, len(listening), meet)
        except BaseException:
            self.close()
            raise

    def heard(self) -> list[Message]:
        """Return the reports of the program and its descendants since the last call."""
        messages = [message for _, message in self.reports.decode(self.reports.read())]
        self.said_hello = self.said_hello or any(message["kind"] == "hello" for message in messages)
        return messages

    def has_loaded(self, path: str) -> None:
        """Record that the program reported loading *path*."""
        self.loaded[path] = None
        self._loaded_at = time.monotonic()

    def has_settled(self, now: float) -> bool:
        """Tell whether it has reported no file for half a second: it has loaded what it loads at its start."""
        return now - self._loaded_at > _SETTLED_AFTER

    def poll(self, stopped: Callable[[int], object] = lambda number: None) -> bool:
        """Tell whether all its processes are gone. *stopped* is called with the signal when it was stopped (Ctrl-Z)."""
        while self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                # This process reaps all children elsewhere, or has the kernel do it.
                self.status = 0
                break
            if not pid:
                break
            if os.WIFSTOPPED(status):
                stopped(os.WSTOPSIG(status))
            else:
                self.status = os.waitstatus_to_exitcode(status)
        if self.status is not None and not self._group_lives():
            return True
        now = time.monotonic()
        if self._killed_at is not None:
            # What is left then are zombies, whose parent has left the group and does not reap them.
            return self.status is not None and now - self._killed_at > _REAPED_AFTER
        if self._kill_at is not None and now >= self._kill_at:
            self._killed_at = now
            self._signal(signal.SIGKILL)
        return False

    def leave(self, kill_after: float, order: signal.Signals = signal.SIGTERM) -> None:
        """Stop it: send *order* to its whole process group, and SIGKILL *kill_after* seconds later."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + kill_after
            # A stopped process handles no signal before SIGCONT.
            for number in (order, signal.SIGCONT):
                self._signal(number)

    def go_on(self) -> None:
        """Send SIGCONT to the stopped program."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it at once."""
        if self._killed_at is None:
            self._kill_at = self._killed_at = time.monotonic()
            self._signal(signal.SIGKILL)

    def wait(self) -> float:
        """Return the seconds until `poll` has something to do by itself."""
        if self._kill_at is None:
            return float("inf")
        if self.status is not None or self._killed_at is not None:
            # The kernel reports the end of the group's leader (SIGCHLD), but not that of the rest.
            return _GLANCE
        return max(0.0, self._kill_at - time.monotonic())

    def close(self) -> None:
        """Release what belongs to the program, none of whose processes lives."""
        self.reports.close()
        if hasattr(self, "pid"):
            self._guard.forget(self.pid)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            # macOS raises PermissionError for a group of zombies.
            pass

    def _group_lives(self) -> bool:
        try:
            # Where we are the init of a container, its orphans are our children.
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        now = time.monotonic()
        if now < self._look_closer_at:
            return True
        self._look_closer_at = now + _CLOSER_LOOKS_EVERY
        return not _is_dead(self.pid)


def _is_dead(group: int) -> bool:
    """Whether all that is left of it has ended, and waits for a parent that does not ask (a container without an init, say).
    False where the system does not tell."""
    states = []
    try:
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    state, _, its_group = file.read().rpartition(b")")[2].split()[:3]
            except (OSError, ValueError):
                # It has just gone.
                continue
            if int(its_group) == group:
                states.append(state)
    except OSError:
        return False
    return bool(states) and set(states) <= {b"Z", b"X"}


def in_words(status: int) -> str:
    """Return in words how a program ended."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
