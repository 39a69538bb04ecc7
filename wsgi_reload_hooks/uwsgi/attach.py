"""Installs the hooks in uWSGI when this package is imported, before any application is loaded.

Under lazy-apps that is every worker, at each respawn; else it is the master, whose workers follow at their fork.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import time
from collections.abc import Callable

from ..control.service import control_or_none
from ..core.log import PREFIX, ReloadLog
from ..core.refusal import Refusal
from ..core.settings import Settings, SettingsError
from ..core.text import printable
from ..report.callbacks import Callbacks
from ..watching.engines import Engine, engine
from ..watching.rules import Files
from ..watching.scanner import Scanner
from . import options
from .application_load import ApplicationLoad
from .leader import Leader, Means
from .loop_thread import LoopThread
from .rolling import Progress, RollingRestart
from .server import Server
from .shared_state import SharedState
from .targets import NoInterpreter, TrialPlan, interpreter, targets
from .wake_up_child import fork_wake_up_child
from .worker import Worker

_TIMER_SECONDS = 1


def start(on_timer: Callable[[int], object], on_progress: Callable[[Progress], bool]) -> Hooks | None:
    """Take part in this uWSGI; where that cannot be done, only log one line, and return None.

    uWSGI calls *on_timer*, and the loop calls *on_progress* after each step of bringing new code into service.
    """
    server = Server()
    if server.master == 0:
        server.log.error(PREFIX + "disabled: uWSGI runs without a master process; add --master")
        return None
    try:
        settings = Settings.load()
        if settings.enabled:
            hooks = Hooks(server, settings, on_progress)
            hooks.start(on_timer)
            return hooks
    except (SettingsError, OSError) as error:
        server.log.error(PREFIX + "%s; saves are not served", printable(str(error)))
    return None


class Hooks:
    """What this process does for reloading. Raises OSError where no private folder can be made."""

    def __init__(self, server: Server, settings: Settings, on_progress: Callable[[Progress], bool]) -> None:
        self._server = server
        self._settings = settings
        self._on_progress = on_progress
        self._files = Files(settings)
        self._log = ReloadLog(server.log, self._files.root, settings.log_format == "json")
        self._state = SharedState(server.master)
        found, self._complaints = targets(server.options())
        self._plan = TrialPlan(server, settings, self._files, found, self._log)
        self._worker = Worker(server.number(), self._files, self._state, found, self._log)
        self._load = ApplicationLoad(
            server, settings, self._files, self._state, self._worker, found, self._wait_for_repair
        )
        self._thread = LoopThread(server, settings, self._state, self._worker, self._log, self._load, self._make_leader)
        self._signal = 0
        self._pid = os.getpid()
        self._executable = False

    def start(self, on_timer: Callable[[int], object]) -> None:
        """Before the application is loaded."""
        number = self._server.number()
        first = number == 0 or self._is_first_life()
        self._signal = self._server.take_signal()
        self._worker.watch_imports()
        self._load.begin()
        atexit.register(self._exits)
        self._executable = self._server.mend_binary_path()
        self._server.register_timer(self._signal, on_timer, _TIMER_SECONDS if first and number < 2 else 0)
        if number == 0:
            self._server.after_fork(self._forked)
        else:
            self._thread.start()
        if first and number < 2 and not self._server.was_reloaded:
            for line in (*self._complaints, *options.complaints(self._server, self._executable)):
                self._log.warning("%s", line)
        if not first and self._settings.broken_start == "wait" and self._worker.ended_before():
            self._worker.report_load_failure(Refusal("the import ended the process"))
        self._worker.pass_gate(self._thread.turn_while_waiting)
        if number == 0:
            self._thread.stop_leading()
        else:
            self._worker.set_number(number)

    def keep_going(self) -> None:
        """Make sure that the loop's thread runs, or take its turns here where Python threads are off."""
        if self._pid != os.getpid():
            # The application has put its own hook in the place of the one that is called after a fork.
            self._forked()
        self._thread.start()
        if not self._server.has_threads and self._server.number():
            self._server.no_harakiri()
            self._thread.turn_on_timer()

    def _is_first_life(self) -> bool:
        mine = next((slot for slot in self._server.workers() if slot.pid == os.getpid()), None)
        return mine is None or mine.respawns == 0

    def _forked(self) -> None:
        """A worker was forked from the master that has loaded the application."""
        number = self._server.number()
        if number == 0:
            # A mule or a spooler.
            return
        self._pid = os.getpid()
        self._load.end()
        self._thread.forked()
        self._worker.has_loaded = True
        self._worker.set_number(number)
        self._thread.start()

    # -- what the leader works with ------------------------------------------------------------------------------------

    def _make_leader(self) -> Leader:
        restart = RollingRestart(self._server, self._state, self._signal)
        control = control_or_none("uwsgi", self._server.master, self._log.warning)
        means = Means(
            plan=self._plan.make,
            restart=restart,
            on_progress=self._on_progress,
            make_engine=self._make_engine,
            callbacks=self._callbacks(),
            control=control,
            executable=self._executable,
        )
        try:
            return Leader(self._server, self._settings, self._files, self._state, means)
        except BaseException:
            if control is not None:
                control.leave()
            raise

    def _make_engine(self, scanner: Scanner) -> Engine:
        return engine(self._settings, self._files, scanner, lambda line: self._log.warning("%s", line), _python)

    def _callbacks(self) -> Callbacks:
        settings, command = self._settings, None
        if settings.on_change or settings.on_reloaded or settings.on_refused:
            try:
                command = interpreter()
            except NoInterpreter as error:
                self._log.warning("%s; until then no callback is called", error)
                settings = dataclasses.replace(settings, on_change="", on_reloaded="", on_refused="")
        return Callbacks(settings, self._log, self._files.root, command)

    # -- the end of this process ---------------------------------------------------------------------------------------

    def _wait_for_repair(self, why: Refusal) -> None:
        """This process has half an application: wait for the repair, then exit so that another one loads it."""
        self._worker.report_load_failure(why)
        while self._worker.must_wait():
            time.sleep(self._thread.turn_while_waiting())
        if self._server.number():
            # The master forks the next one, which loads the repaired code.
            self._thread.stop()
            fork_wake_up_child(self._server, self._state, self._signal)
            os._exit(1)
        self._thread.stop_leading()
        self._server.execute_again()

    def _exits(self) -> None:
        """The process exits in an orderly way."""
        if os.getpid() != self._pid:
            # Something that the application forked.
            return
        number = self._server.number()
        if self._load.waits_for_repair():
            # It has loaded nothing: sys.exit() in an import, or uWSGI gives up because of need-app.
            self._wait_for_repair(Refusal("the import ended the process"))
        self._thread.stop()
        if number == 0:
            self._state.clear()
            return
        self._worker.leave()
        fork_wake_up_child(self._server, self._state, self._signal)


def _python() -> str | None:
    try:
        command = interpreter()
    except NoInterpreter:
        return None
    return command[0] if len(command) == 1 else None
