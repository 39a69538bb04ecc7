"""How a uWSGI worker ends when the leader asks it to: after the request that it has, or has just accepted.

On SIGHUP uWSGI ends a worker at once that is in no request; it is in none either between accepting and reading one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from ..process.native import Native
from .exit_request import Bell
from .server import Server

# Turns of the watching thread, not seconds: in a turn the main thread could have done something as well.
_PATIENCE = 15


class GracefulExit:
    """Of this worker, whose main thread makes it; *place*: of its bell. `step` is for the thread that watches."""

    def __init__(self, server: Server, place: str) -> None:
        self._server = server
        self._place = place
        self._main_thread = Native().get_ident()
        self._way_out = server.way_out()
        self._bell: Bell | None = None
        self._begun = False
        self._idle = 0
        self._hang()

    @property
    def readers(self) -> list[Bell]:
        """What `select` is to look at."""
        bell = self._bell
        return [] if bell is None else [bell]

    def step(self) -> bool:
        """Whether this worker is on its way out; does what can be done now for it to get there."""
        if not self._begun and not self._is_asked():
            return False
        # A signal would cut short what waits for a visitor to read or to write. After the request uWSGI looks by itself.
        self._idle = 0 if self._server.is_at_work() else self._idle + 1
        if self._idle == _PATIENCE and self._server.option("thunder-lock") is not None:
            # It waits for its turn to wait for a request: only that reaches it.
            signal.pthread_kill(self._main_thread, signal.SIGHUP)
        elif self._idle:
            # uWSGI's own way to have a worker look whether it is to go on.
            signal.pthread_kill(self._main_thread, signal.SIGWINCH)
        return True

    def close(self) -> None:
        """Be asked no more."""
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()

    def _is_asked(self) -> bool:
        way: Callable[[], object] | None = self._way_out
        if way is None:
            return False
        if self._bell is None or not self._bell.rang():
            if not os.path.exists(self._place):
                # Somebody has cleaned temporary folders.
                self._hang()
            return False
        self._begun = True
        way()
        # That it is gone tells the leader.
        self.close()
        return True

    def _hang(self) -> None:
        self.close()
        if self._way_out is None:
            return
        try:
            self._bell = Bell(self._place)
        except OSError:
            # No folder, a full disk: there are still signals.
            self._bell = None
