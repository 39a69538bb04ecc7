"""Watches how uWSGI loads the application in this process, and tells the rest of the hooks when it does not load."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterable
from types import TracebackType

from ..core.refusal import Refusal
from ..core.settings import Settings
from ..trial.plan import Target
from ..watching.rules import Files
from .notes import APPROVED, read
from .server import Server, catches_hangup
from .shared_state import SharedState
from .worker import Worker, hidden_folders


class ApplicationLoad:
    """Of this process. *failed* is called in the main thread with what an import raised, and does not return there."""

    def __init__(
        self,
        server: Server,
        settings: Settings,
        files: Files,
        state: SharedState,
        worker: Worker,
        targets: Iterable[Target],
        failed: Callable[[Refusal], None],
    ) -> None:
        self._server = server
        self._settings = settings
        self._files = files
        self._state = state
        self._worker = worker
        self._targets = tuple(targets)
        self._failed = failed
        self._theirs_excepthook = sys.excepthook
        self.under_way = True

    def begin(self) -> None:
        """uWSGI is about to load the application, and calls `sys.excepthook` for what an import raises."""
        self._theirs_excepthook = sys.excepthook
        sys.excepthook = self._raised

    def look(self) -> None:
        """Look whether uWSGI is done with loading, and has an application to show for it."""
        # In this order: uWSGI counts the application first.
        done = catches_hangup(os.getpid())
        mine = next((slot for slot in self._server.workers() if slot.pid == os.getpid()), None)
        if mine is None or not (done or mine.apps):
            return
        self.end()
        self._worker.mark_loaded()
        if self._targets and not mine.apps and self._server.lazy and self._settings.broken_start == "wait":
            self._worker.report_load_failure(Refusal("uWSGI found no application in it", self._targets[0].name))
            os.kill(os.getpid(), signal.SIGHUP)

    def end(self) -> None:
        """The application is loaded, here or in the master that has forked this worker."""
        self.under_way = False
        # After what the application has registered, so before it.
        atexit.register(exit_undisturbed)
        if sys.excepthook == self._raised:
            sys.excepthook = self._theirs_excepthook

    def waits_for_repair(self) -> bool:
        """Whether code that does not load now is something to wait for."""
        if not self.under_way or catches_hangup(os.getpid()):
            return False
        return self._settings.broken_start == "wait" or read(self._state, APPROVED) is not None

    def _raised(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """In the place of `sys.excepthook`, which uWSGI calls for what an import raised, before it gives up."""
        # Of several mounts only the last is a target, so with a mount every error may be about an application.
        about = self._server.option("mount") is not None or self._worker.is_about_targets(error)
        if not self.waits_for_repair() or not about:
            self._theirs_excepthook(kind, error, trace)
            return
        self._failed(Refusal.from_exception(error, hidden_folders(), self._files.ours))


def exit_undisturbed() -> None:
    """Block the signals that end a worker: this one exits. uWSGI's handlers would call `exit` again, in the middle of
    `exit`, which waits for itself then for ever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT))
