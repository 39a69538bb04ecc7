"""What runs inside a program that a supervisor has started: it tells what the program loads.

Every Python among its descendants does, whichever way they are started. It must never be noticed: what fails here
fails without a word, and the program runs as if nobody supervised it.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Optional

from .imports import ImportWitness
from .reports import Sender
from .scanner import Signature, known_signature

FLAG = "WSGI_SUPERVISED"
"""Name of the environment variable that tells a program that a supervisor has started it, and where to report to."""

REPORTS_AT = 8
"""The number of the descriptor for the reports."""

BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot")
"""The folder that is put before all others of ``PYTHONPATH``: Python loads its ``sitecustomize`` at the start."""

_STANDARD_LIBRARY = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "")
_INSTALLED = ("site-packages", "dist-packages")


def flag(writer: int, third_party: bool) -> str:
    """The value of `FLAG` for a program that reports to the pipe whose end *writer* is here. *third_party*: of libraries,
    too."""
    status = os.fstat(writer)
    # Those who are started without our descriptors find the pipe by its place in this process.
    return ":".join(map(str, (status.st_dev, status.st_ino, os.getpid(), writer, int(third_party))))


def is_supervised() -> bool:
    """Whether a supervisor has started this program, or one of its ancestors."""
    return FLAG in os.environ


def sender() -> tuple[Optional[Sender], bool]:
    """The way to the supervisor of this process, if there is one, and whether it asks for libraries, too."""
    try:
        device, inode, pid, there, third_party = map(int, os.environ.get(FLAG, "").split(":"))
    except ValueError:
        return None, False
    for place in (f"/proc/{pid}/fd/{there}", f"/dev/fd/{REPORTS_AT}"):
        try:
            number = os.open(place, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            continue
        status = os.fstat(number)
        if (status.st_dev, status.st_ino) == (device, inode):
            return Sender(number), bool(third_party)
        # Something of the program's own.
        os.close(number)
    return None, False


class Teller:
    """Tells by *way* what this process loads, from its `install` on. *third_party*: of libraries, too."""

    def __init__(self, way: Sender, third_party: bool) -> None:
        self._way = way
        self._third_party = third_party
        self._told: set[str] = set()
        self._main_is_told = False

    def install(self) -> None:
        """Begin."""
        self._way.send("hello", executable=sys.executable, path=sys.path)
        ImportWitness(self._counts, self._saw).install()

    def _counts(self, path: str) -> bool:
        self._tell_main()
        if self._third_party:
            return True
        # The supervisor looks more closely: this is to say less of what cannot matter.
        return not path.startswith(_STANDARD_LIBRARY) and not any(part in _INSTALLED for part in path.split(os.sep))

    def _saw(self, path: str, found: Optional[Signature]) -> None:
        if path not in self._told:
            self._told.add(path)
            self._way.send("loaded", path=path, signature=found)

    def _tell_main(self) -> None:
        """The program's own file is loaded by no import."""
        if not self._main_is_told:
            path: Any = getattr(sys.modules.get("__main__"), "__file__", None)
            if isinstance(path, str):
                self._main_is_told = True
                path = os.path.abspath(path)
                if self._counts(path):
                    self._saw(path, known_signature(path))


def tell() -> None:
    """Tell the supervisor of this process, if there is one, what it loads from now on."""
    way, third_party = sender()
    if way is not None:
        Teller(way, third_party).install()
