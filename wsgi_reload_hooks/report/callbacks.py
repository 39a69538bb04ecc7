"""Runs the user's callbacks, functions or commands, in separate processes, so that none can delay or break a reload.

For each event it starts one `callback_main`, which runs the callback, limits its time, and reports through a pipe what
was wrong with it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.log import ReloadLog
from ..core.settings import Settings
from ..core.text import PACKAGE_ROOT, printable
from ..process.native import Native
from ..trial.trial import scratch_file

CALLBACK_MAIN = os.path.join(PACKAGE_ROOT, "report", "callback_main.py")
"""The program of the callback process; the user that functions run as must be able to read it."""
ENDS_WITHIN = 60.0
"""Seconds that a function or a command may take."""
RUNNING_AT_MOST = 8

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_VERDICT_AT_MOST = 8192


@dataclasses.dataclass(frozen=True)
class Error:
    """Says why something was refused: *reason* is one line, *path* and *line* are where to look (None if unknown)."""

    reason: str
    path: str | None = None
    line: int | None = None
    traceback: str = ""


@dataclasses.dataclass(frozen=True)
class Event:
    """Says what happened. *kind*: ``change`` (it is being tried), ``reloaded`` (it is in service) or ``refused``.

    *root* is the project's folder, *paths* are the changed files (absolute), *seconds* is how long it took, *workers* how
    many serve, *at* when it was, in seconds since the epoch.
    """

    kind: str
    server: str
    pid: int
    root: str
    paths: tuple[str, ...] = ()
    seconds: float = 0.0
    workers: int = 0
    error: Error | None = None
    at: float = 0.0

    def as_json(self) -> str:
        """Return the JSON that a command reads from its standard input."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Event:
        """Parse what `as_json` returned."""
        note = json.loads(text)
        error = None if note["error"] is None else Error(**note["error"])
        return cls(**{**note, "paths": tuple(note["paths"]), "error": error})


@dataclasses.dataclass(frozen=True)
class Rights:
    """Says as which user a function or a command runs: as the workers' user if the server itself is root."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Callbacks:
    """Runs the callbacks of the settings ``on_change``, ``on_reloaded`` and ``on_refused``. For one thread.

    *folder*: the working directory of what is told. *command*: how a Python is started, its absolute path first (default:
    this one). *path*: ``sys.path`` for functions, after *folder* (default: that of this process).
    """

    def __init__(
        self,
        settings: Settings,
        journal: ReloadLog,
        folder: str,
        command: Sequence[str] | None = None,
        rights: Rights | None = None,
        path: Sequence[str] | None = None,
    ) -> None:
        self._told: Mapping[str, str] = {
            "change": settings.on_change,
            "reloaded": settings.on_reloaded,
            "refused": settings.on_refused,
        }
        self._journal = journal
        self._folder = folder
        self._command = [sys.executable] if command is None else list(command)
        self._rights = rights
        self._path = path
        self._running: list[_Announcement] = []
        self._ended: list[int] = []
        self._full = False

    @property
    def busy(self) -> bool:
        """Tell whether a callback runs or is not reaped: `look` has something to do."""
        return bool(self._running or self._ended)

    def fire(self, event: Event) -> None:
        """Start the callback of *event*, if the settings name one. Returns at once, and raises nothing."""
        told = self._told[event.kind]
        if not told:
            return
        name = f"on_{event.kind}"
        if len(self._running) >= RUNNING_AT_MOST:
            if not self._full:
                self._full = True
                self._journal.warning("%s: not told, %d are still running", name, len(self._running))
            return
        try:
            plan = json.dumps(self._plan(name, told)).encode()
            self._running.append(_Announcement(self._command, plan, event.as_json().encode()))
        except OSError as error:
            self._journal.warning("%s: no process can be started for it: %s", name, printable(str(error)))

    def look(self) -> None:
        """Reap callbacks that have ended, and log their errors. Never waits; call it now and then."""
        if not self.busy:
            return
        for each in list(self._running):
            if not each.has_ended():
                continue
            self._running.remove(each)
            self._ended.append(each.pid)
            self._full = False
            if each.verdict:
                self._journal.warning("%s", each.verdict)
        native = Native()
        self._ended = [pid for pid in self._ended if not reaped(native, pid)]

    def leave(self) -> None:
        """Close the pipes in a forked child, which runs no callbacks."""
        for each in self._running:
            each.close()
        self._running, self._ended = [], []

    def _plan(self, name: str, told: str) -> dict[str, Any]:
        is_function = _FUNCTION.fullmatch(told) is not None
        path = sys.path if self._path is None else self._path
        return {
            "name": name,
            "function": told if is_function else "",
            "words": [] if is_function else shlex.split(told),
            "python": self._command,
            "path": [self._folder, *(each for each in path if each != self._folder)],
            "folder": self._folder,
            "rights": None if self._rights is None else dataclasses.astuple(self._rights),
            "limit": ENDS_WITHIN,
            "server": os.getpid(),
        }


class _Announcement:
    """Runs the callback of one event. Raises OSError if no process can be started."""

    def __init__(self, command: Sequence[str], plan: bytes, event: bytes) -> None:
        self.verdict = ""
        """What was wrong with it, on one line; after its end."""
        self._heard = b""
        self._reader, writer = os.pipe()
        try:
            os.set_blocking(self._reader, False)
            with scratch_file() as said, scratch_file() as planned:
                for file, content in ((said, event), (planned, plan)):
                    file.write(content)
                    file.seek(0)
                places = [(said.fileno(), 0), (planned.fileno(), 3), (writer, 4)]
                if _is_open(2):
                    places.append((2, 2))
                # -I -S: the environment and site-packages run no code in it; it may have more rights than the callback.
                self.pid = Native().spawn([*command, "-I", "-S", CALLBACK_MAIN], os.environ, places)
        except BaseException:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)

    def has_ended(self) -> bool:
        """Tell whether it has ended: its end of the pipe is then closed, whatever code reaps it."""
        try:
            while True:
                heard = os.read(self._reader, _VERDICT_AT_MOST)
                if not heard:
                    break
                self._heard = (self._heard + heard)[:_VERDICT_AT_MOST]
        except BlockingIOError:
            return False
        self.close()
        self.verdict = printable(self._heard.decode(errors="replace").strip())
        return True

    def close(self) -> None:
        os.close(self._reader)


def reaped(native: Native, pid: int) -> bool:
    """Reap the child *pid* if it has ended, without waiting. Returns whether it is gone."""
    try:
        return bool(native.waitpid(pid, os.WNOHANG)[0])
    except ChildProcessError:
        # This process reaps all children elsewhere, or has the kernel do it.
        return True


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
