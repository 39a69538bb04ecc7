"""The listener: a small process that hears of changes (`ear`), from the side of the one that asks it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
from collections.abc import Mapping
from typing import Any

from ..core.text import PACKAGE_ROOT
from ..process.native import Native

_LISTENER_MAIN = os.path.join(PACKAGE_ROOT, "watching", "listener_main.py")
_MODULE = "_rust_notify"
_READ_AT_MOST = 1 << 16
_LOOKS_AT_ITS_END = 60

Names = Mapping[str, frozenset[str] | None]
"""Folders, and the names in them that matter; None: all names."""


def extension() -> str | None:
    """The file of watchfiles' extension module, or None where watchfiles is not installed."""
    try:
        package = importlib.util.find_spec("watchfiles")
    except (ImportError, ValueError):
        return None
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = os.path.join(folder, _MODULE + suffix)
            if os.path.exists(path):
                return path
    return None


class Listener:
    """One such process. Its methods run in one thread, and none but `close` waits.

    *python*: the absolute path of an interpreter of this version. *module*: watchfiles' extension module.
    Raises OSError where no process can be had.
    """

    def __init__(self, python: str, module: str, native: Native) -> None:
        self._native = native
        self._owner = os.getpid()
        self._closed = False
        self._requests = 0
        self._asked = b""
        self._heard = b""
        theirs_in, self._ask = os.pipe()
        try:
            self.reader, theirs_out = os.pipe()
        except OSError:
            os.close(theirs_in)
            os.close(self._ask)
            raise
        try:
            command = [python, "-I", "-S", _LISTENER_MAIN, module]
            self._pid = native.spawn(command, os.environ, [(theirs_in, 0), (theirs_out, 1)])
        except OSError:
            self.leave()
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        os.set_blocking(self._ask, False)
        os.set_blocking(self.reader, False)

    @property
    def behind(self) -> bool:
        """Whether there is more to be sent: to be called again soon."""
        return bool(self._asked)

    def listen(self, names: Names) -> int:
        """Have it listen to these, in place of those before. A number: its answer has it as "listening"."""
        self._requests += 1
        folders = {folder: None if wanted is None else sorted(wanted) for folder, wanted in names.items()}
        self._asked += json.dumps({"number": self._requests, "folders": folders}).encode() + b"\n"
        self._send()
        return self._requests

    def read(self) -> list[dict[str, Any]]:
        """What it has said since the last call: "heard", "listening", at last "ended"."""
        self._send()
        while not self._closed:
            try:
                data = os.read(self.reader, _READ_AT_MOST)
            except OSError:
                # Nothing more for now; or closed at this moment, by the thread that ends the process.
                break
            if not data:
                lines = [json.loads(line) for line in self._heard.splitlines()]
                return lines if any("ended" in line for line in lines) else [*lines, {"ended": "it is gone"}]
            self._heard += data
        *complete, self._heard = self._heard.split(b"\n")
        return [json.loads(line) for line in complete]

    def close(self) -> None:
        """End it; waits a moment for that."""
        self.leave()
        if os.getpid() != self._owner:
            return
        try:
            for _ in range(_LOOKS_AT_ITS_END):
                if self._native.waitpid(self._pid, os.WNOHANG)[0]:
                    return
                self._native.sleep(0.005)
        except ChildProcessError:
            # Somebody in this process reaps all children.
            pass

    def leave(self) -> None:
        """In a process that was forked from the one that listens: keep nothing of it, so that its end is noticed."""
        self._closed = True
        os.close(self._ask)
        os.close(self.reader)

    def _send(self) -> None:
        try:
            while self._asked:
                self._asked = self._asked[os.write(self._ask, self._asked) :]
        except BlockingIOError:
            pass
        except OSError:
            # It is gone, which reading tells.
            self._asked = b""
