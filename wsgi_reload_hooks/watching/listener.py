"""Starts and asks the listener, a small process that receives file events (`listener_main`)."""

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
    """Return the file of watchfiles' extension module, or None if watchfiles is not installed."""
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
    """Runs one listener process. Its methods run in one thread, and only `close` waits.

    *python*: the absolute path of an interpreter of this version. *module*: watchfiles' extension module.
    Raises OSError if no process can be started.
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
        """Tell whether a request is not sent completely: call `read` or `listen` again soon."""
        return bool(self._asked)

    def listen(self, names: Names) -> int:
        """Have the listener watch *names* in place of those before. Returns a number: "listening" in the answer."""
        self._requests += 1
        folders = {folder: None if wanted is None else sorted(wanted) for folder, wanted in names.items()}
        self._asked += json.dumps({"number": self._requests, "folders": folders}).encode() + b"\n"
        self._send()
        return self._requests

    def read(self) -> list[dict[str, Any]]:
        """Return the listener's messages since the last call: "heard", "listening", and finally "ended"."""
        self._send()
        while not self._closed:
            try:
                data = os.read(self.reader, _READ_AT_MOST)
            except OSError:
                # Nothing more for now; or the thread that ends the process has just closed it.
                break
            if not data:
                lines = [json.loads(line) for line in self._heard.splitlines()]
                return lines if any("ended" in line for line in lines) else [*lines, {"ended": "it is gone"}]
            self._heard += data
        *complete, self._heard = self._heard.split(b"\n")
        return [json.loads(line) for line in complete]

    def close(self) -> None:
        """Stop the listener, and wait a moment for its end."""
        self.leave()
        if os.getpid() != self._owner:
            return
        try:
            for _ in range(_LOOKS_AT_ITS_END):
                if self._native.waitpid(self._pid, os.WNOHANG)[0]:
                    return
                self._native.sleep(0.005)
        except ChildProcessError:
            # This process reaps all its children elsewhere (gunicorn's arbiter).
            pass

    def leave(self) -> None:
        """Close the pipes in a forked child, so that the listener notices the end of its owner."""
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
            # The listener has ended; `read` reports that.
            self._asked = b""
