"""Runs inside a program that a supervisor has started: reports what the program loads.

It runs in every Python among the program's descendants, however they are started. The program must never notice it:
errors here are ignored, and the program then runs as if it had no supervisor.
"""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Any

from ..core.text import PACKAGE_ROOT
from ..process.pipe import Sender
from ..watching.import_hook import ImportHook
from ..watching.signature import Signature, known_signature

FLAG = "WSGI_SUPERVISED"
"""Name of the environment variable that tells a program that a supervisor has started it, and where to report to."""

REPORTS_AT = 8
"""The number of the descriptor for the reports."""

BOOT = os.path.join(PACKAGE_ROOT, "script", "boot")
"""The folder that is put before all others of ``PYTHONPATH``: Python loads its ``sitecustomize`` at the start."""

_HIGH = 100
_STANDARD_LIBRARY = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "")
_INSTALLED = ("site-packages", "dist-packages")


def flag(writer: int, third_party: bool) -> str:
    """The value of `FLAG` for a program that reports to the pipe whose end *writer* is here. *third_party*: of libraries,
    too."""
    status = os.fstat(writer)
    # Those who are started without our descriptors find the pipe by its place in this process.
    return ":".join(map(str, (status.st_dev, status.st_ino, os.getpid(), writer, int(third_party))))


def is_supervised() -> bool:
    """Tell whether a supervisor has started this program, or one of its ancestors."""
    return FLAG in os.environ


def sender() -> tuple[Sender | None, bool]:
    """The way to the supervisor of this process, if there is one, and whether it asks for libraries, too."""
    try:
        device, inode, pid, there, third_party = map(int, os.environ.get(FLAG, "").split(":"))
    except ValueError:
        return None, False
    places = (f"/proc/{pid}/fd/{there}", f"/dev/fd/{REPORTS_AT}")
    number = _opened(places, (device, inode))
    return None if number is None else _SureSender(number, places, (device, inode)), bool(third_party)


class _SureSender(Sender):
    """A `Sender` in a program that closes files it has not opened: what has our number then is a file of its own."""

    def __init__(self, writer: int, places: tuple[str, ...], pipe: tuple[int, int]) -> None:
        super().__init__(writer)
        self._places = places
        self._pipe = pipe

    def flush(self) -> None:
        if not _is_pipe(self._fd, self._pipe):
            number = _opened(self._places, self._pipe)
            if number is None:
                self._backlog.clear()
                return
            self._fd = number
        super().flush()


def _opened(places: tuple[str, ...], pipe: tuple[int, int]) -> int | None:
    for place in places:
        try:
            number = os.open(place, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            if _is_pipe(number, pipe):
                # Not where the program expects its own files: 1 may be closed, and others come next.
                return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        except OSError:
            # So many files are not allowed here.
            continue
        finally:
            os.close(number)
    return None


def _is_pipe(number: int, pipe: tuple[int, int]) -> bool:
    try:
        status = os.fstat(number)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == pipe


class ImportReporter:
    """Tells by *way* what this process loads, from its `install` on. *third_party*: of libraries, too."""

    def __init__(self, way: Sender, third_party: bool) -> None:
        self._way = way
        self._third_party = third_party
        self._told: set[str] = set()
        self._main_is_told = False

    def install(self) -> None:
        """Begin to report."""
        runs = _runs()
        self._way.send("hello", executable=sys.executable, path=sys.path, runs=runs, version=sys.version_info[:2])
        if os.path.isabs(runs) and self._is_first_party(runs):
            self._saw(runs, known_signature(runs))
        ImportHook(self._counts, self._saw).install()

    def _counts(self, path: str) -> bool:
        self._tell_main()
        return self._is_first_party(path)

    def _is_first_party(self, path: str) -> bool:
        if self._third_party:
            return True
        # The supervisor looks more closely: this is to say less of what cannot matter.
        return not path.startswith(_STANDARD_LIBRARY) and not any(part in _INSTALLED for part in path.split(os.sep))

    def _saw(self, path: str, found: Signature | None) -> None:
        if path not in self._told:
            self._told.add(path)
            self._way.send("loaded", path=path, signature=found)

    def _tell_main(self) -> None:
        """Report the program's own file, which no import loads."""
        if not self._main_is_told:
            path: Any = getattr(sys.modules.get("__main__"), "__file__", None)
            if isinstance(path, str):
                self._main_is_told = True
                path = os.path.abspath(path)
                if self._is_first_party(path):
                    self._saw(path, known_signature(path))


def _runs() -> str:
    """What this interpreter was started with: the path of a script, the name of a module (``-m``), or else."""
    given: list[str] = getattr(sys, "argv", None) or [""]
    if given[0] != "-m":
        return os.path.abspath(given[0]) if os.path.isfile(given[0]) else given[0]
    # Not even Python itself knows yet which module it will be.
    words = command_line()
    word = words[-len(given)] if len(words) > len(given) else ""
    return word.partition("m")[2] if word.startswith("-") else word


def command_line() -> list[str]:
    """Return the words that this process was started with; none if the system does not tell."""
    words: list[str] = list(getattr(sys, "orig_argv", ()))
    if not words:
        try:
            with open("/proc/self/cmdline", "rb") as file:
                words = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
        except OSError:
            pass
    return words


def tell() -> None:
    """Report to the supervisor of this process, if there is one, what the process loads from now on."""
    way, third_party = sender()
    if way is not None:
        ImportReporter(way, third_party).install()
