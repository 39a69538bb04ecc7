"""Supervises a program: its signals and its terminal, its processes, and the main loop that drives its reloads.

Bottle's and Django's protocol (exit code 3 means "start me again", an environment variable tells the child), reversed:
the parent watches, because a child that cannot import cannot watch itself.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from types import FrameType

from ..control.service import control_or_none
from ..core.log import HOOKS_FAILED, ReloadLog
from ..core.refusal import Refusal
from ..core.settings import Settings
from ..core.streams import Console, occupy
from ..process.helper import Helper
from ..process.pipe import Message
from ..reload.loop import ReloadLoop
from ..reload.reporter import START
from ..report.callbacks import Callbacks
from ..report.history import History
from ..report.publisher import Publisher
from ..watching.engines import engine
from ..watching.rules import Files
from ..watching.scanner import Scanner
from ..watching.signature import Signature, known_signature
from .backend import Program, ProgramBackend
from .child import Child
from .ending import Endings, Way
from .guard import Guard
from .terminal import Terminal

_SILENT_AFTER = 5.0
_WAIT_AT_MOST = 60.0
_ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_ENDED = "waiting for a change"
_RETRY = 5.0


class Supervisor:
    """Runs *program* and restarts it when its code changes. For the main thread.

    Raises OSError where nothing can be started.
    """

    def __init__(self, program: Program, settings: Settings, console: Console) -> None:
        occupy()
        self._settings = settings
        self._files = Files(settings)
        self._log = ReloadLog(console, self._files.root, settings.log_format == "json")
        self._scanner = Scanner()
        self._terminal = Terminal()
        self._guard = Guard()
        self._endings = Endings(settings.broken_start == "exit")
        self._record = History("run", "", os.getpid(), self._files.root, time.time())
        self._engine = engine(settings, self._files, self._scanner, lambda line: self._log.warning("%s", line))
        self._helper = Helper(sys.executable)
        self._backend = ProgramBackend(
            program, settings, self._files, self._log, self._engine, self._guard, self._terminal, self._helper
        )
        callbacks = Callbacks(settings, self._log, self._files.root)
        publisher = Publisher(settings, self._log, self._record, callbacks)
        self._loop = ReloadLoop(self._backend, settings, self._files, self._scanner, self._log, publisher)
        self._loop.drive(self._engine)
        self._introduced = False
        self._signals: deque[int] = deque()
        self._ordered: signal.Signals | None = None
        self._status: int | None = None
        self._retry_at = 0.0

    def run(self) -> int:
        """Run until the program ends or a signal ends the supervisor. The exit code, or a signal below 0.

        Raises OSError where the program cannot be run at all.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self._guard.close)
            undo.callback(self._helper.close)
            woken = undo.enter_context(self._caught_signals())
            # After the signal handlers: a signal that ends this process before them would leave the socket's folder behind.
            control = control_or_none(self._record.server, os.getpid(), self._log.warning)
            if control is not None:
                undo.callback(control.close)
            self._loop.answer(control)
            undo.callback(self._terminal.take_back)
            undo.callback(self._kill_all)
            self._loop.watched.listed(self._backend.listed_files())
            self._loop.request_now(START, time.monotonic())
            while (wait := self._step(time.monotonic())) is not None:
                self._sleep(woken, wait)
        return -self._ordered if self._status is None and self._ordered is not None else self._status or 0

    # -- one step ------------------------------------------------------------------------------------------------------

    def _step(self, now: float) -> float | None:
        """Do all that is due, without waiting. Returns the seconds until the next step; None when all is over."""
        while self._signals:
            self._take(self._signals.popleft())
        for child in self._backend.children:
            self._read_reports(child)
        for child in self._backend.children:
            if child.poll(functools.partial(self._stopped, child)):
                self._reap(child, now)
            elif child.status is not None:
                # Its descendants do not outlive it.
                child.leave(self._settings.kill_after)
        if self._is_over:
            self._close()
            for child in self._backend.children:
                child.leave(self._settings.kill_after, _order(self._ordered))
            return _WAIT_AT_MOST if self._backend.children else None
        if now < self._retry_at:
            return self._retry_at - now
        try:
            wait = self._loop.step(now)
            if self._backend.gave_up:
                self._status = 1
                return 0.0
            self._introduce(now)
            return min(wait, self._explore(now))
        except Exception as error:
            if isinstance(error, OSError) and not self._loop.machine.ever_served:
                # The program cannot be run at all.
                raise
            self._log.failure(HOOKS_FAILED, error)
            self._retry_at = now + _RETRY
            return _RETRY

    def _sleep(self, woken: int, wait: float) -> None:
        children = self._backend.children
        wait = min([wait, *(child.wait() for child in children)])
        readers = [woken, *(child.reports.reader for child in children)]
        if not self._is_over and time.monotonic() >= self._retry_at:
            readers += self._loop.readers
        if woken in select.select(readers, [], [], wait)[0]:
            os.read(woken, 4096)

    @property
    def _is_over(self) -> bool:
        """Tell whether only the end of the programs is awaited."""
        return self._ordered is not None or self._status is not None

    def _close(self) -> None:
        self._backend.explorer.cancel()
        self._loop.close()

    def _kill_all(self) -> None:
        """Kill everything that was started; also after an error."""
        self._close()
        for child in self._backend.children:
            child.kill()
            while not child.poll():
                time.sleep(0.01)
            child.close()

    # -- signals -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _caught_signals(self) -> Iterator[int]:
        """Keep signals in `_signals` while the block runs. The descriptor that is readable when there are some."""
        reader, writer = os.pipe()
        for number in (reader, writer):
            os.set_blocking(number, False)
        # What is ignored stays ignored: a shell does so for what it starts in the background, `nohup` for all.
        caught = [each for each in _ORDERS if signal.getsignal(each) is not signal.SIG_IGN]
        before = {each: signal.signal(each, self._caught) for each in (*caught, signal.SIGCHLD, signal.SIGCONT)}
        # The supervisor writes where the terminal stops background jobs that write (stty tostop), too.
        before[signal.SIGTTOU] = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        woken_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(woken_before)
            for each, handler in before.items():
                signal.signal(each, handler)
            os.close(reader)
            os.close(writer)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _take(self, number: int) -> None:
        serving = self._backend.serving
        if number == signal.SIGCONT and serving is not None:
            self._terminal.lend(serving.pid)
        elif number in _ORDERS:
            if self._ordered is not None:
                # The second signal ends the programs at once.
                for child in self._backend.children:
                    child.kill()
            self._ordered = signal.Signals(number)

    def _stopped(self, child: Child, number: int) -> None:
        if child is self._backend.serving:
            self._terminal.stop_with(child.pid, number)
        elif child in self._backend.leaving and number in (signal.SIGTTIN, signal.SIGTTOU):
            # It was told to leave, and tidies up the terminal.
            self._terminal.lend(child.pid)
            child.go_on()

    # -- what the program reports --------------------------------------------------------------------------------------

    def _read_reports(self, child: Child) -> None:
        for message in child.heard():
            try:
                self._understand(child, message)
            except (KeyError, TypeError, ValueError) as error:
                self._log.debug("not a report of these hooks, from the program: %r", error)

    def _understand(self, child: Child, message: Message) -> None:
        kind = message.pop("kind")
        if kind == "loaded":
            self._loaded(child, message["path"], message["signature"])
        elif kind == "hello":
            major, minor = message["version"]
            self._backend.candidates.hello(
                str(message["executable"]), map(str, message["path"]), str(message["runs"]), (int(major), int(minor))
            )

    def _loaded(self, child: Child, path: str, found: list[int] | None) -> None:
        seen = None if found is None else Signature(*found)
        if not self._files.ours(path) or (seen is not None and known_signature(path) is None):
            # Not of the project, or a temporary file that is gone already.
            return
        child.has_loaded(path)
        if child is self._backend.serving:
            self._loop.loaded(path, seen)

    def _introduce(self, now: float) -> None:
        """Log once what is watched, when the program has loaded what it loads."""
        child = self._backend.serving
        if self._introduced or child is None or child.status is not None:
            return
        if child.said_hello and child.has_settled(now):
            self._introduced = True
            self._record.engine = self._engine.describe()
            self._log.info("watching %d files %s", len(self._scanner), self._record.engine, event="watching")
        elif not child.said_hello and now - child.began > _SILENT_AFTER:
            self._introduced = True
            self._log.warning(
                "the program does not tell what it loads (no Python, or one with -E, -I or -S): watching %d files, those "
                "that extra_files lists and those of its command",
                len(self._scanner),
            )

    def _explore(self, now: float) -> float:
        """While the program runs undisturbed, find out what can be imported next to it. The seconds until the next step."""
        child = self._backend.serving
        if child is None or child.status is not None:
            return _WAIT_AT_MOST
        if self._settings.trial:
            self._backend.explorer.step(child, now, self._loop.quiet)
        return self._backend.explorer.wait if self._introduced else 0.1

    # -- ends ----------------------------------------------------------------------------------------------------------

    def _reap(self, child: Child, now: float) -> None:
        """Release *child*, none of whose processes lives any more."""
        self._read_reports(child)
        child.close()
        status = child.status or 0
        if child is self._backend.serving:
            self._backend.serving = None
            self._terminal.take_back()
            if self._ordered is None:
                self._ended(child, status, now)
            else:
                self._status = status
        else:
            self._backend.leaving.remove(child)
            if self._backend.serving is None:
                self._terminal.take_back()
            if self._ordered is not None and self._status is None and self._backend.serving is None:
                self._status = status

    def _ended(self, child: Child, status: int, now: float) -> None:
        """Handle the end of a program that ended by itself."""
        way, ended = self._endings.way(status, now - child.began, self._introduced)
        self._backend.explorer.cancel()
        match way:
            case Way.EXIT:
                self._status = status
            case Way.RELOAD:
                self._loop.request_now(ended, now)
            case Way.WAIT:
                why = Refusal(f"the program ended ({ended})", files=tuple(child.loaded), about=_ENDED)
                self._loop.stopped(why, child.loaded, now)


def _order(ordered: signal.Signals | None) -> signal.Signals:
    """Return the signal that stops a program."""
    return signal.SIGINT if ordered is signal.SIGINT else signal.SIGTERM
