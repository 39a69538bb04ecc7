"""The watcher thread in a gunicorn arbiter: it scans the files, reads what workers report, and wakes the main loop.

While the main thread forks, this one may ask the file system, read, append, and wake. It may not log, print, import,
or hold a lock that a child takes: what a fork copies of it has to be harmless.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Iterable
from typing import Any

from ..control.channel import ControlSocket
from ..core.settings import Settings
from ..process.native import Native, patched
from ..watching.checkout import Checkout
from ..watching.debounce import Debouncer, ScanRequests, settled
from ..watching.engines import Engine, engine
from ..watching.rules import Files
from ..watching.scanner import Scanner
from .channels import Channels

# What the thread is told: to look at the files now, or that there is one more worker to listen to.
_LOOK = b"\0"
_LISTEN = b"\1"


class Watcher:
    """One thread, and the inbox of the main loop: (kind, what) in order.

    Kinds: "changed" (a set of paths), "request" (a reload whatever the files say), "log" (a line for the log), "control"
    (messages of the command line), "crashed" (the exception that ended the thread). *channels*: what workers report; it
    stays in them. *control*: the socket of the command line, if there is one.
    """

    def __init__(
        self,
        server: Any,
        settings: Settings,
        files: Files,
        scanner: Scanner,
        channels: Channels,
        control: ControlSocket | None,
    ) -> None:
        self.inbox: deque[tuple[str, Any]] = deque()
        self.busy = False
        """Whether the main loop has deadlines: it is woken at each scan then."""
        self._server = server
        self._settings = settings
        self._files = files
        self._scanner = scanner
        self._control = control
        self._channels = channels
        channels.added = self._listen_anew
        self._scans = ScanRequests()
        self._native = Native()
        self._patched = patched()
        self._stop, self._stop_in = os.pipe()
        os.set_blocking(self._stop_in, False)
        self._generation = scanner.generation
        self._engine: Engine | None = None
        self._known = 0

    def start(self) -> None:
        """Start the thread."""
        # Python warns of forks beside threads; it cannot know what this thread keeps away from.
        warnings.filterwarnings(
            "ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning, module=r"gunicorn\.arbiter"
        )
        # Here, in the main thread: it may start a process.
        self._engine = engine(self._settings, self._files, self._scanner, self._log)
        self._native.start_thread(self._run, (self._engine,))

    def describe(self) -> str:
        """How it notices changes, for the log."""
        return "" if self._engine is None else self._engine.describe()

    def close(self) -> None:
        """End the thread (the arbiter), or forget it (a worker, which has no such thread)."""
        os.close(self._stop_in)
        if self._control is not None:
            self._control.withdraw()

    def leave(self) -> None:
        """To be called in a worker: keep nothing of it."""
        os.close(self._stop)
        os.close(self._stop_in)
        self._channels.leave()
        if self._control is not None:
            self._control.leave()
        if self._engine is not None:
            self._engine.leave()

    def order(self) -> int:
        """Have the thread scan all files now. The number of that scan."""
        number = self._scans.order()
        self._tell(_LOOK)
        return number

    @property
    def done(self) -> int:
        """The number of the last ordered scan whose findings the main loop has taken out of the inbox."""
        done = self._scans.done
        # In this order: the thread puts them there before it counts the scan as done.
        if not self.inbox:
            self._known = done
        return self._known

    def ask(self, changed: Iterable[str] | None) -> None:
        """Request a reload. Safe from any thread and from a signal handler."""
        self.inbox.append(("request", None) if changed is None else ("changed", frozenset(changed)))
        self.wake()

    def look(self) -> None:
        """Have the thread notice that something else is to be watched."""
        if self._scanner.generation != self._generation:
            self._generation = self._scanner.generation
            self._tell(_LOOK)

    def wake(self) -> None:
        """Have the main loop do its step now."""
        if self._patched:
            # gevent's queues belong to one thread. A signal is the main thread's, and SIGCHLD does no harm.
            os.kill(os.getpid(), signal.SIGCHLD)
        else:
            self._server.wakeup()

    def _listen_anew(self) -> None:
        self._tell(_LISTEN)

    def _tell(self, what: bytes) -> None:
        # A full pipe: the thread is told something already.
        with contextlib.suppress(BlockingIOError):
            os.write(self._stop_in, what)

    def _log(self, line: str) -> None:
        self.inbox.append(("log", line))
        self.wake()

    def _run(self, driven: Engine) -> None:
        debouncer = Debouncer(self._settings.step, self._settings.debounce, Checkout(self._files.root).unfinished)
        try:
            for changed in settled(driven, debouncer, self._pause, scans=self._scans):
                self._server.reload(changed)
        except _Stop:
            os.close(self._stop)
        except BaseException as error:
            self.inbox.append(("crashed", error))
            self.wake()
        finally:
            driven.close()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        left = seconds
        while left > 0:
            engine = None if self._engine is None else self._engine.reader
            control = None if self._control is None else self._control.reader
            own = [each for each in (self._stop, engine, control) if each is not None]
            ready = self._native.ready([*self._channels.readers, *own], left)
            told = _LISTEN
            if self._stop in ready:
                ready.discard(self._stop)
                told = os.read(self._stop, 4096)
            if not told:
                raise _Stop
            if engine in ready or _LOOK in told:
                break
            if control in ready and self._control is not None:
                self.inbox.append(("control", self._control.receive()))
            if ready:
                self._channels.pump()
                self.wake()
                # A little later more has come: workers report file by file.
                self._native.sleep(0.005)
            left = until - time.monotonic()
        if self.busy:
            self.wake()


class _Stop(Exception):
    """The thread is to end."""
