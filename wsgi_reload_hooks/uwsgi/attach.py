"""How the hooks get into uWSGI: what is done where this package is imported, before any application is loaded.

Under lazy-apps that is every worker, at each respawn; else it is the master, whose workers are told at their fork.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import signal
import sys
import time
from types import TracebackType
from typing import Any

from ..control.service import control_or_none
from ..core.log import PREFIX, ReloadLog
from ..core.refusal import Refusal
from ..core.settings import Settings, SettingsError
from ..core.text import printable
from ..process.native import Native
from ..report.callbacks import Callbacks
from ..trial.trial import Plan
from ..uwsgi import option_checks
from ..watching.engines import Engine, engine
from ..watching.rules import Files
from ..watching.scanner import Scanner
from .graceful_exit import GracefulExit
from .leader import Leader, Means
from .rolling import RollingRestart
from .server import Server, catches_hangup, has_ended
from .shared_state import SharedState
from .targets import NoInterpreter, interpreter, targets
from .worker import VERDICT, Worker, bell_name, hidden_folders

_HEARTBEAT = 1
_LOADING = 0.02
_RETRY = 5.0
_STRAGGLING = 3.0
_GLANCE = 0.5
_TURN_AT_MOST = 1.0
# Longer than the master takes to find a dead worker, and sleeps when it has forked too many.
_FORGOTTEN = 4.0


def start() -> None:
    """Take part in this uWSGI. Says one line and does nothing where that cannot be."""
    server = Server()
    if server.master == 0:
        server.log.error(PREFIX + "they need the master process, saves are not served: start uWSGI with --master")
        return
    try:
        settings = Settings.load()
        if settings.enabled:
            Hooks(server, settings).start()
    except (SettingsError, OSError) as error:
        server.log.error(PREFIX + "%s; saves are not served", printable(str(error)))


class Hooks:
    """What this process does for reloading.

    Raises OSError where there is no private folder to be had.
    """

    def __init__(self, server: Server, settings: Settings) -> None:
        self._server = server
        self._settings = settings
        self._files = Files(settings)
        self._journal = ReloadLog(server.log, self._files.root, settings.log_format == "json")
        self._ledger = SharedState(server.master)
        self._targets, self._complaints = targets(server.options())
        self._command: tuple[str, ...] | None = None
        self._station = Worker(server.number(), self._files, self._ledger, self._targets, self._journal)
        self._leader: Leader | None = None
        self._folder = os.getcwd()
        self._native = Native()
        self._signal = 0
        self._pid = os.getpid()
        self._watching = 0
        self._siblings_seen = self._lonely_since = time.monotonic()
        self._dead: list[tuple[int, int]] = []
        self._loading = True
        self._turning = self._native.lock()
        self._departure: GracefulExit | None = None
        self._over = self._executable = False
        self._theirs_excepthook = sys.excepthook

    def start(self) -> None:
        """Before the application is loaded."""
        first = self._server.number() == 0 or self._is_first_life()
        self._signal = self._server.take_signal()
        self._station.watch_imports()
        sys.excepthook = self._raised
        atexit.register(self._ends)
        self._executable = self._server.mend_binary_path()
        if self._server.number() == 0:
            self._server.beat(self._signal, self._beat, _HEARTBEAT)
            self._server.after_fork(self._forked)
        else:
            self._server.beat(self._signal, self._beat, _HEARTBEAT if first and self._server.number() == 1 else 0)
            self._begin_watching()
        if first and self._server.number() < 2 and not self._server.was_reloaded:
            for line in (*self._complaints, *option_checks.complaints(self._server, self._executable)):
                self._journal.warning("%s", line)
        if not first and self._settings.broken_start == "wait" and self._station.ended_before():
            self._station.in_trouble(Refusal("the import ended the process"))
        self._station.pass_gate(self._drive)
        if self._server.number() == 0:
            self._stop_leading()
        else:
            self._station.settle(self._server.number())

    def _is_first_life(self) -> bool:
        mine = next((slot for slot in self._server.workers() if slot.pid == os.getpid()), None)
        return mine is None or mine.respawns == 0

    # -- the watching thread -----------------------------------------------------------------------------------------

    def _forked(self) -> None:
        """A worker was forked from the master that has loaded the application."""
        number = self._server.number()
        if number == 0:
            # A mule or a spooler.
            return
        self._pid = os.getpid()
        self._turning = self._native.lock()
        self._loading = False
        atexit.register(_end_undisturbed)
        self._dead = []
        self._station.has_loaded = True
        if sys.excepthook == self._raised:
            sys.excepthook = self._theirs_excepthook
        self._leader = None
        self._station.settle(number)
        self._begin_watching()

    def _begin_watching(self) -> None:
        if self._server.has_threads and self._watching != os.getpid():
            self._watching = os.getpid()
            self._native = Native()
            self._turning = self._native.lock()
            if self._server.lazy:
                self._departure = GracefulExit(self._server, self._ledger.place(bell_name(self._server.number())))
            self._native.start_thread(self._watch, ())

    def _watch(self) -> None:
        # Signals are for the main thread: a handler of uWSGI's may end the process where it stands.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            pause = self._turn()
            leader, departure = self._leader, self._departure
            readers: list[Any] = [] if leader is None else list(leader.readers)
            readers += [] if departure is None else departure.readers
            if not readers:
                self._native.sleep(pause)
                continue
            try:
                self._native.select(readers, [], [], pause)
            except (OSError, ValueError):
                # Closed by the main thread, which ends the process.
                self._native.sleep(pause)

    def _turn(self) -> float:
        """One turn of watching. The seconds until the next."""
        with self._turning:
            return _RETRY if self._over else self._turn_once()

    def _turn_once(self) -> float:
        hurry = self._loading
        try:
            if self._loading:
                self._look_after_load()
            hurry = (self._departure is not None and self._departure.step()) or self._loading
            self._station.tell()
            self._end_if_forgotten()
            if not self._ledger.lead():
                self._stop_leading()
                return min(self._settings.interval / 2, _LOADING if hurry else 1.0)
            if self._leader is None:
                self._leader = self._make_leader()
            pause = self._leader.step()
        except Exception as error:
            # Whatever we did wrong: the server is worth more than a reload.
            self._journal.failure("an error in the hooks themselves, the server goes on; please report it", error)
            self._stop_leading()
            return _RETRY
        return min(pause, _LOADING) if hurry else pause

    def _end_if_forgotten(self) -> None:
        """End where the master waits for this worker, which has not heard that all are to end.

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
            self._lonely_since = now
        elif now - self._lonely_since > _FORGOTTEN and not self._loading:
            os.kill(os.getpid(), signal.SIGINT)

    def _make_leader(self) -> Leader:
        exchange = RollingRestart(self._server, self._ledger, self._signal)
        control = control_or_none("uwsgi", self._server.master, self._journal.warning)
        means = Means(self._plan, exchange, self._make_engine, self._callbacks(), control, self._executable)
        try:
            return Leader(self._server, self._settings, self._files, self._ledger, means)
        except BaseException:
            if control is not None:
                control.leave()
            raise

    def _make_engine(self, scanner: Scanner) -> Engine:
        return engine(self._settings, self._files, scanner, lambda line: self._journal.warning("%s", line), _python)

    def _callbacks(self) -> Callbacks:
        settings, command = self._settings, None
        if settings.on_change or settings.on_reloaded or settings.on_refused:
            try:
                command = interpreter()
            except NoInterpreter as error:
                self._journal.warning("%s; until then no callback is called", error)
                settings = dataclasses.replace(settings, on_change="", on_reloaded="", on_refused="")
        return Callbacks(settings, self._journal, self._files.root, command)

    def _stop_leading(self) -> None:
        leader, self._leader = self._leader, None
        if leader is not None:
            leader.close()
        self._ledger.resign()

    def _stop_for_good(self) -> None:
        """The process ends. The thread goes on until then: what it began now, nobody would end."""
        self._over = True
        _end_undisturbed()
        self._turning.acquire(True, _TURN_AT_MOST)
        if self._departure is not None:
            self._departure.close()
        self._stop_leading()

    def _drive(self) -> float:
        """Held at the gate: where no thread watches, this one does."""
        if self._watching == os.getpid():
            return _LOADING
        return self._turn()

    def _beat(self, number: int) -> None:
        """uWSGI's timer, in any worker that is idle."""
        if self._pid != os.getpid():
            # The application has put its own hook in the place of the one that is called after a fork.
            self._forked()
        self._begin_watching()
        if not self._server.has_threads and self._server.number():
            self._server.no_harakiri()
            while self._turn() < self._settings.interval / 2:
                self._native.sleep(_LOADING)

    def _plan(self) -> Plan | None:
        if not self._targets or not self._settings.trial:
            return None
        if self._command is None:
            try:
                self._command = interpreter()
            except NoInterpreter as error:
                self._targets = ()
                self._journal.warning("%s; until then new code is compiled, not rehearsed", error)
                return None
        return Plan(
            command=self._command,
            path=tuple(sys.path),
            folder=self._folder,
            root=self._files.root,
            targets=self._targets,
            environ=dict(os.environ),
            modules={"uwsgi": self._server.stand_in()},
            argv=tuple(sys.argv),
            warmup=self._settings.warmup,
        )

    # -- code that does not load ---------------------------------------------------------------------------------------

    def _look_after_load(self) -> None:
        """Whether uWSGI is done with loading, and has an application to show for it."""
        # In this order: uWSGI counts the application first.
        done = catches_hangup(os.getpid())
        mine = next((slot for slot in self._server.workers() if slot.pid == os.getpid()), None)
        if mine is None or not (done or mine.apps):
            return
        self._loading = False
        # After what the application has registered, so before it.
        atexit.register(_end_undisturbed)
        self._station.arrived()
        if sys.excepthook == self._raised:
            sys.excepthook = self._theirs_excepthook
        if self._targets and not mine.apps and self._server.lazy and self._settings.broken_start == "wait":
            self._station.in_trouble(Refusal("uWSGI found no application in it", self._targets[0].name))
            os.kill(os.getpid(), signal.SIGHUP)

    def _raised(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """In the place of `sys.excepthook`, which uWSGI calls for what an import raised, before it gives up."""
        # Of several mounts only the last is a target, so with a mount every error may be about an application.
        about = self._server.option("mount") is not None or self._station.is_about_targets(error)
        if not self._waits() or not about:
            self._theirs_excepthook(kind, error, trace)
            return
        self._hold(Refusal.from_exception(error, hidden_folders(), self._files.ours))

    def _waits(self) -> bool:
        """Whether code that does not load now is something to wait for."""
        if not self._loading or catches_hangup(os.getpid()):
            return False
        return self._settings.broken_start == "wait" or self._ledger.read(VERDICT) is not None

    def _hold(self, why: Refusal) -> None:
        """This process has half an application: it waits for the repair, and makes place for one that loads it."""
        self._station.in_trouble(why)
        while self._station.must_wait():
            time.sleep(self._drive())
        self._give_place()

    def _give_place(self) -> None:
        if self._server.number():
            # The master forks the next one, which loads the repaired code.
            self._stop_for_good()
            self._leave_straggler()
            os._exit(1)
        self._stop_leading()
        self._server.execute_again()

    def _ends(self) -> None:
        """The process ends in an orderly way."""
        if os.getpid() != self._pid:
            # Something that the application forked.
            return
        number = self._server.number()
        if self._waits():
            # It has loaded nothing: sys.exit() in an import, or uWSGI gives up because of need-app.
            self._hold(Refusal("the import ended the process"))
        self._stop_for_good()
        if number == 0:
            self._ledger.clear()
            return
        self._station.leave()
        self._leave_straggler()

    def _leave_straggler(self) -> None:
        """Outlive the worker by a moment: uWSGI's master would find it up to a second later, and cleans nothing up."""
        number, ended = self._server.number(), os.getpid()
        if self._server.has_several_interpreters():
            # A process with several interpreters, forked at this moment, may hang in Python before it gets to us.
            return
        if os.fork() == 0:
            try:
                self._straggle(number, ended)
            finally:
                os._exit(0)

    def _straggle(self, number: int, ended: int) -> None:
        while os.getppid() == ended:
            time.sleep(0.001)
        self._server.wake(self._signal)
        _close_files()
        until = time.monotonic() + _STRAGGLING
        while time.monotonic() < until and not has_ended(self._server.master):
            if any(slot.number == number and slot.pid != ended for slot in self._server.workers()):
                return
            time.sleep(0.002)
        if has_ended(self._server.master):
            self._ledger.clear()


def _end_undisturbed() -> None:
    """The process ends: no signal is to tell it so once more. uWSGI's handlers would call `exit` again, in the middle of
    `exit`, which waits for itself then for ever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT))


def _python() -> str | None:
    try:
        command = interpreter()
    except NoInterpreter:
        return None
    return command[0] if len(command) == 1 else None


def _close_files() -> None:
    """Nobody is to wait for a connection to end, or for a port to be free, because of this process."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        os.closerange(3, 1024)
        return
    for name in names:
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                continue
