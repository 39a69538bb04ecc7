"""Starts a trial of new code in a fresh interpreter, next to the processes that serve, and judges its outcome.

The trial process runs `trial_main`. The two share two unlinked files (the plan, the result), and a pipe whose end
tells the trial process that this one has ended.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

from ..core.refusal import Refusal
from ..core.text import PACKAGE_ROOT
from ..process.native import Native
from ..watching.rules import Files
from ..watching.signature import Signature
from .plan import Outcome, Plan

FLAG = "WSGI_TRIAL"
"""Name of the environment variable that tells an application that it is only being tried."""

TRIAL_MAIN = os.path.join(PACKAGE_ROOT, "trial", "trial_main.py")
"""The program of the trial process; the user that the trial runs as must be able to read it."""

_MACHINERY = (f'  File "{os.path.join(PACKAGE_ROOT, "")}', '  File "<frozen importlib')

# Seconds. The trial process itself reports where it hangs, but not while C code holds the interpreter's lock.
_GRACE = 2.0

_TAIL = 8192

_FRAME = re.compile(r'^ +File "([^"<]+)", line (\d+)', re.MULTILINE)

_TAIL_LINES = 12

_LINE_AT_MOST = 500


def scratch_file() -> IO[bytes]:
    """Make an unbuffered file without a name, in memory if the system supports that: a killed process leaves none
    behind, whereas even the search for a folder for temporary files makes one. Raises OSError.
    """
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("trial"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


class Trial:
    """Runs one trial, started at once. *timeout*: seconds for all of it.

    For one thread. Raises OSError if it cannot be started (no such interpreter, no space for a temporary file, no more
    processes): that says nothing about the code.
    """

    def __init__(self, plan: Plan, files: Files, timeout: float, native: Native | None = None) -> None:
        self._plan = plan
        self._files = files
        self._timeout = timeout
        self._native = native or Native()
        self._began = time.monotonic()
        self._deadline = self._began + timeout
        self._loaded: dict[str, Signature | None] = {}
        self._rooms = sorted({target.room for target in plan.targets}) or [0]
        self._outcome: Outcome | None = None
        self._child: _Child | None = self._enter()

    def poll(self) -> Outcome | None:
        """Return the outcome; None if the trial still runs or was cancelled. Raises OSError as the constructor does."""
        while self._child is not None:
            late = time.monotonic() > self._deadline + _GRACE
            if not late and not self._child.has_ended():
                return None
            child, self._child = self._child, None
            child.end()
            refused = self._judged(child, late)
            if refused is None and self._rooms:
                self._child = self._enter()
            else:
                self._outcome = Outcome(refused, self._loaded, time.monotonic() - self._began)
        return self._outcome

    def cancel(self) -> None:
        """Stop the trial, with all that it has started. May be called at any time, and again."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _enter(self) -> _Child:
        room = self._rooms.pop(0)
        targets = [target for target in self._plan.targets if target.room == room]
        note = {
            "targets": [{**dataclasses.asdict(target), "files": target.files(self._plan.folder)} for target in targets],
            "path": list(self._plan.path),
            "folder": self._plan.folder,
            "root": self._plan.root,
            "argv": self._plan.argv,
            "warmup": list(self._plan.warmup),
            "asgi": self._plan.asgi,
            "modules": _sendable(self._plan.modules),
            "deadline": self._deadline,
            "late": self._late(),
        }
        return _Child(self._native, self._plan.command, {**self._plan.environ, FLAG: "1"}, json.dumps(note).encode())

    def _judged(self, child: _Child, late: bool) -> Refusal | None:
        for line in child.told():
            if "loaded" in line:
                path, found = line["loaded"]
                if not self._files.excluded(path):
                    self._loaded[path] = Signature(*found) if found else None
            elif "refused" in line:
                return Refusal(**{**line["refused"], "files": tuple(line["refused"]["files"])})
            else:
                return None
        last = next(reversed(self._loaded), None)
        reason = self._late() if late else f"the interpreter that tried it {child.end_in_words()}"
        if last is not None:
            reason += f"; the last it began to load was {self._files.relative(last)}"
        text = child.tail()
        # Python's own report of a crash begins with the innermost frame.
        for path, line in _FRAME.findall(text):
            if os.path.abspath(path) in self._loaded:
                return Refusal(reason, os.path.abspath(path), int(line), text, tuple(self._loaded))
        return Refusal(reason, last, None, text, tuple(self._loaded))

    def _late(self) -> str:
        return f"it did not load within {self._timeout:g} s"


class FinishedTrial:
    """Stands for a trial whose *outcome* is known before: the sources do not compile, or there is nothing to try."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def poll(self) -> Outcome:
        """The outcome."""
        return self._outcome

    def cancel(self) -> None:
        """Do nothing: nothing runs."""


def run_trial(plan: Plan, files: Files, timeout: float, pause: float = 0.01) -> Outcome:
    """Try *plan* and wait for the outcome, *timeout* seconds at most; *pause*: seconds between two polls.

    Raises OSError if it cannot be tried.
    """
    native = Native()
    trial = Trial(plan, files, timeout, native)
    try:
        while True:
            outcome = trial.poll()
            if outcome is not None:
                return outcome
            native.sleep(pause)
    finally:
        trial.cancel()


class _Child:
    """Runs a fresh interpreter as leader of a process group; it inherits only the descriptors that it needs."""

    def __init__(self, native: Native, command: tuple[str, ...], environ: Mapping[str, str], note: bytes) -> None:
        self._native = native
        self._status: int | None = None
        self._lifeline = -1
        held: list[int] = []
        with scratch_file() as plan:
            plan.write(note)
            plan.seek(0)
            self._told = scratch_file()
            self._output = scratch_file()
            try:
                reading, self._lifeline = os.pipe()
                held.append(reading)
                output = self._output.fileno()
                places = ((output, 1), (output, 2), (plan.fileno(), 3), (self._told.fileno(), 4), (reading, 5))
                self._pid = native.spawn([*command, TRIAL_MAIN], environ, places)
            except BaseException:
                self._close()
                raise
            finally:
                for number in held:
                    os.close(number)

    def has_ended(self) -> bool:
        """Tell whether it has ended. It is not reaped yet, so that its pid and its group are not reused."""
        try:
            if hasattr(os, "waitid"):
                return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            if self._status is None:
                pid, status = self._native.waitpid(self._pid, os.WNOHANG)
                self._status = status if pid else None
            return self._status is not None
        except ChildProcessError:
            # This process reaps all children elsewhere, or has the kernel do it.
            return True

    def end(self) -> None:
        """Kill the process and all that it has started, and reap it."""
        try:
            os.killpg(self._pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            # macOS raises PermissionError for a group of zombies.
            pass
        if self._status is None:
            try:
                self._status = self._native.waitpid(self._pid, 0)[1]
            except ChildProcessError:
                pass
        self._lines = self._whole(self._told.fileno()).splitlines()
        size = os.fstat(self._output.fileno()).st_size
        self._tail = os.pread(self._output.fileno(), _TAIL, max(0, size - _TAIL))
        self._close()

    def told(self) -> Iterator[dict[str, Any]]:
        """Yield its messages, one for each line; after `end`."""
        for line in self._lines:
            try:
                yield json.loads(line)
            except ValueError:
                # The process was killed while it wrote this line.
                return

    def tail(self) -> str:
        """Return the last lines that it has printed; after `end`."""
        lines = self._tail.decode(errors="backslashreplace").rstrip().splitlines()
        theirs = [line[:_LINE_AT_MOST] for line in lines if not line.startswith(_MACHINERY)]
        return "\n".join(theirs[-_TAIL_LINES:])

    def end_in_words(self) -> str:
        """Return how it ended, in words; after `end`."""
        if self._status is None:
            return "ended"
        code = os.waitstatus_to_exitcode(self._status)
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def _whole(self, number: int) -> bytes:
        return os.pread(number, os.fstat(number).st_size, 0)

    def _close(self) -> None:
        self._told.close()
        self._output.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def _sendable(value: Any) -> Any:
    """Convert *value* for JSON, which has neither bytes nor keys that are not text; None for what cannot be sent."""
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, Mapping):
        return {"dict": [[_sendable(key), _sendable(each)] for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_sendable(each) for each in value]
    return value if isinstance(value, (bool, int, float, str)) else None
