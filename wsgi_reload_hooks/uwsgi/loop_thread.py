"""Runs the reload loop in a worker: in a thread of its own, or from uWSGI's timer where Python threads are off.

One worker at a time is the leader. The others look now and then whether it is gone, and publish what they have loaded.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from ..core.log import HOOKS_FAILED, ReloadLog
from ..core.settings import Settings
from ..process.native import Native
from .application_load import ApplicationLoad, exit_undisturbed
from .graceful_exit import GracefulExit
from .leader import Leader
from .notes import exit_request_name
from .server import Server
from .shared_state import SharedState
from .worker import Worker

LOADING = 0.02
"""Seconds between two turns while the application is being loaded."""
_RETRY = 5.0
_GLANCE = 0.5
_TURN_AT_MOST = 1.0
# Longer than the master takes to find a dead worker, and sleeps when it has forked too many.
_ABANDONED = 4.0


class LoopThread:
    """Of this process. Its methods may be called by any thread. *make_leader* is called when this worker is to lead."""

    def __init__(
        self,
        server: Server,
        settings: Settings,
        state: SharedState,
        worker: Worker,
        log: ReloadLog,
        load: ApplicationLoad,
        make_leader: Callable[[], Leader],
    ) -> None:
        self._server = server
        self._settings = settings
        self._state = state
        self._worker = worker
        self._log = log
        self._load = load
        self._make_leader = make_leader
        self._leader: Leader | None = None
        self._exit: GracefulExit | None = None
        self._native = Native()
        self._turning = self._native.lock()
        self._started_in = 0
        self._stopped = False
        self._siblings_seen = self._alone_since = time.monotonic()
        self._dead: list[tuple[int, int]] = []

    def forked(self) -> None:
        """This worker was forked from the master, which may have run the loop itself: nothing of that is here."""
        self._turning = self._native.lock()
        self._leader = None
        self._dead = []

    def start(self) -> None:
        """Start the thread, unless this process has it or Python threads are off."""
        if self._server.has_threads and not self.is_started:
            self._started_in = os.getpid()
            self._native = Native()
            self._turning = self._native.lock()
            if self._server.lazy:
                self._exit = GracefulExit(self._server, self._state.place(exit_request_name(self._server.number())))
            self._native.start_thread(self._run, ())

    @property
    def is_started(self) -> bool:
        """Whether this process has the thread."""
        return self._started_in == os.getpid()

    def turn_while_waiting(self) -> float:
        """Take a turn in the main thread, which waits for something, where there is no thread. The seconds to wait."""
        return LOADING if self.is_started else self._turn()

    def turn_on_timer(self) -> None:
        """Take turns in the main thread, which is in a timer's handler, until nothing more is to be done soon."""
        while self._turn() < self._settings.interval / 2:
            self._native.sleep(LOADING)

    def stop_leading(self) -> None:
        """Let another worker lead."""
        leader, self._leader = self._leader, None
        if leader is not None:
            leader.close()
        self._state.release_lock()

    def stop(self) -> None:
        """The process exits. The thread lives until then: no process would end what it began now."""
        self._stopped = True
        exit_undisturbed()
        self._turning.acquire(True, _TURN_AT_MOST)
        if self._exit is not None:
            self._exit.close()
        self.stop_leading()

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        # Signals are for the main thread: a handler of uWSGI's may end the process where it stands.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            pause = self._turn()
            leader, exit_ = self._leader, self._exit
            readers: list[Any] = [] if leader is None else list(leader.readers)
            readers += [] if exit_ is None else exit_.readers
            if not readers:
                self._native.sleep(pause)
                continue
            try:
                self._native.ready(readers, pause)
            except (OSError, ValueError):
                # Closed by the main thread, which ends the process.
                self._native.sleep(pause)

    def _turn(self) -> float:
        """Take one turn. The seconds until the next one."""
        with self._turning:
            return _RETRY if self._stopped else self._turn_once()

    def _turn_once(self) -> float:
        hurry = self._load.under_way
        try:
            if self._load.under_way:
                self._load.look()
            hurry = (self._exit is not None and self._exit.step()) or self._load.under_way
            self._worker.publish()
            self._exit_if_abandoned()
            if not self._state.acquire_lock():
                self.stop_leading()
                return min(self._settings.interval / 2, LOADING if hurry else 1.0)
            if self._leader is None:
                self._leader = self._make_leader()
            pause = self._leader.step()
        except Exception as error:
            self._log.failure(HOOKS_FAILED, error)
            self.stop_leading()
            return _RETRY
        return min(pause, LOADING) if hurry else pause

    def _exit_if_abandoned(self) -> None:
        """Exit where the master waits for this worker, which does not know that all are to end.

        uWSGI forks a worker with the master's handlers: an INT that comes before ours are in place is lost. Then the
        siblings are gone, and the master forks no others.
        """
        now = time.monotonic()
        if now - self._siblings_seen < _GLANCE:
            return
        self._siblings_seen = now
        before, self._dead = self._dead, self._server.dead_siblings()
        if not self._dead or self._dead != before:
            # None, or the master still does something about them.
            self._alone_since = now
        elif now - self._alone_since > _ABANDONED and not self._load.under_way:
            os.kill(os.getpid(), signal.SIGINT)
