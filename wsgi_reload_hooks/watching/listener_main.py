"""Runs as the listener process: receives file events through watchfiles, and writes out those that matter.

It is a process of its own because watchfiles starts a thread, which a process that forks must not have, and which
polls twenty times a second. Standard input: what to watch, a line of JSON for each request; the program ends with it.
Standard output: the events.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import select
import signal
import stat
import sys
import time
from typing import Any

_NAME = "watchfiles._rust_notify"
# Milliseconds between two looks of watchfiles at what its thread has collected, once there is something.
_STEP = 10
_TOGETHER = 100
# The same if no signal wakes this process.
_STEP_ALONE = 25
_TRIES = 3
# Seconds.
_GIVEN_BACK = 0.05
# Text in watchfiles' error when a limit of the system is reached -> the name of that limit.
_LIMITS = {"MaxFilesWatch": "fs.inotify.max_user_watches", "os error 24": "fs.inotify.max_user_instances"}


class FolderListener:
    """Watches folders for names in them. *notify*: watchfiles' `RustNotify`."""

    def __init__(self, notify: Any) -> None:
        self._notify = notify
        self._listener: Any = None
        self._places: dict[str, tuple[int, int]] = {}
        self._answer: dict[str, Any] = {"deaf": [], "why": None, "limit": None}
        self._names: dict[str, frozenset[str] | None] = {}
        self.wakes = True
        """Whether a signal comes with each event, or none can come."""

    def listen(self, folders: dict[str, list[str] | None]) -> dict[str, Any]:
        """Watch *folders* from now on, for the names given with each (None: all names). Returns the answer."""
        self._names = {folder: None if names is None else frozenset(names) for folder, names in folders.items()}
        places = {folder: place for folder in sorted(folders) for place in [_place(folder)] if place is not None}
        if places != self._places:
            self._places = places
            self._listener = None
            self._begin()
        return self._answer

    def _begin(self) -> None:
        granted: tuple[str, ...] = ()
        error: Exception | None = None
        for _ in range(_TRIES):
            # A watch needs the right to read.
            granted, error = self._grant(tuple(folder for folder in self._places if os.access(folder, os.R_OK)))
            if not isinstance(error, FileNotFoundError):
                break
        self.wakes = self._wake_me()
        # A folder that vanished meanwhile is not deaf: an event of its parent causes a new request.
        deaf = sorted(folder for folder in {*self._places} - {*granted} if os.path.isdir(folder))
        self._answer = {
            "deaf": deaf,
            "why": None if not deaf else "no right to read them" if error is None else _why(error),
            "limit": None if error is None else _limit(error),
        }

    def hear(self) -> list[str]:
        """Return the changed paths that matter; waits only a moment for more."""
        if self._listener is None:
            return []
        step, wait = (_STEP, _TOGETHER) if self.wakes else (_STEP_ALONE, 1000)
        try:
            changes = self._listener.watch(_TOGETHER, step, wait, None)
        except Exception:
            # A name that is no text, for instance; watchfiles reports nothing after that, so its watches are given up.
            self._give_back()
            self._begin()
            return sorted(self._names)
        if not isinstance(changes, set):
            return []
        heard = sorted({path for _, path in changes if self._matters(path)})
        if any(path in self._names for path in heard):
            # A folder vanished or appeared: its watch is gone, even if its successor looks the same.
            self._places = {}
        return heard

    def moved(self) -> list[str]:
        """Return the watched paths that lead to another folder by now, because of a mount or an unmount."""
        moved = [folder for folder in self._names if _place(folder) != self._places.get(folder)]
        if moved:
            self._places = {}
        return moved

    def _matters(self, path: str) -> bool:
        if path in self._names:
            # A watched folder itself moved, vanished or was replaced.
            return True
        folder, name = os.path.split(path)
        if folder not in self._names:
            return False
        names = self._names[folder]
        return names is None or name in names

    def _open(self, folders: tuple[str, ...]) -> Exception | None:
        if not folders:
            return None
        try:
            # The signal must wake this thread, not the one that this starts.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
            self._listener = self._notify(list(folders), False, False, 0, False, False)
        except Exception as error:
            # Folders that vanish meanwhile, limits of the system; any other error is reported too.
            self._listener = None
            return error
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGIO])
        return None

    def _grant(self, folders: tuple[str, ...]) -> tuple[tuple[str, ...], Exception | None]:
        """Watch as many of *folders* as the system allows. Returns these, and the error for the rest."""
        error = self._open(folders)
        if error is None:
            return folders, None
        # watchfiles watches all or none: a binary search finds how many the system grants.
        least, most = 0, len(folders)
        while least + 1 < most:
            middle = (least + most) // 2
            self._give_back()
            if self._open(folders[:middle]) is None:
                least = middle
            else:
                most = middle
        self._give_back()
        return (folders[:least] if self._open(folders[:least]) is None else ()), error

    def _give_back(self) -> None:
        """Stop watching. A thread of watchfiles gives the watches back a little later."""
        self._listener = None
        time.sleep(_GIVEN_BACK)

    def _wake_me(self) -> bool:
        """Have the kernel send a signal with each event, so that this process need not poll. Tells whether it does."""
        try:
            import fcntl

            numbers = [
                int(name)
                for name in os.listdir("/proc/self/fd")
                if _leads_to(f"/proc/self/fd/{name}") == "anon_inode:inotify"
            ]
            for number in numbers:
                fcntl.fcntl(number, fcntl.F_SETOWN, os.getpid())
                fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL) | os.O_ASYNC)
        except (ImportError, OSError, AttributeError):
            return self._listener is None
        return bool(numbers) or self._listener is None


def _place(folder: str) -> tuple[int, int] | None:
    """Return the device and inode of the folder that has this path now; None if there is none."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


def _leads_to(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _limit(error: Exception) -> str | None:
    return next((limit for words, limit in _LIMITS.items() if words in str(error)), None)


def _why(error: Exception) -> str:
    return str(error) if _limit(error) is None else "a limit of the system is reached"


def _mounts() -> list[int]:
    """Open the file that Linux marks as changed at a mount or unmount, which no watch reports."""
    try:
        return [os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)]
    except OSError:
        return []


def _load(path: str) -> Any:
    """Load `RustNotify` from watchfiles' extension module alone; the whole package would import more than we need."""
    loader = importlib.machinery.ExtensionFileLoader(_NAME, path)
    spec = importlib.util.spec_from_file_location(_NAME, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module.RustNotify


def _say(what: dict[str, Any]) -> None:
    data = json.dumps(what).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def main() -> None:
    """Watch until standard input ends."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGIO, lambda number, frame: None)
    # A service manager may send these to all processes of a server. This one ends with its standard input.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ear = FolderListener(_load(sys.argv[1]))
    asked = b""
    mounts = _mounts()
    while True:
        ready, _, mounted = select.select([0, woken], [], mounts, None if ear.wakes else 0)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                return
            asked += data
            *lines, asked = asked.split(b"\n")
            if lines:
                # Requests before the last one are out of date.
                request = json.loads(lines[-1])
                _say({**ear.listen(request["folders"]), "listening": request["number"]})
        if woken in ready:
            os.read(woken, 1 << 16)
        heard = ear.hear() if woken in ready or not ear.wakes else []
        heard += ear.moved() if mounted else []
        if heard:
            _say({"heard": heard})


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    except Exception as error:
        _say({"ended": repr(error)})
    # Always 0: a gunicorn arbiter that reaps this process would log any other status as a worker's. And at once: Python
    # would restore SIGIO's default action, which ends the process.
    os._exit(0)
