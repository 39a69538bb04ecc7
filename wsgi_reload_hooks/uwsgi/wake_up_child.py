"""A short-lived child of a worker that ends: it wakes uWSGI's master, which would find the dead worker up to 1 s later."""

from __future__ import annotations

import os
import time

from .server import Server, has_ended
from .shared_state import SharedState

_AT_MOST = 3.0


def fork_wake_up_child(server: Server, state: SharedState, signal_number: int) -> None:
    """Fork a child that outlives this worker by a moment; *signal_number* wakes the master.

    The child removes the private folder if the master ends meanwhile: uWSGI's master cleans nothing up.
    """
    number, ended = server.number(), os.getpid()
    if server.has_several_interpreters():
        # A process with several interpreters, forked at this moment, may hang in Python before it gets to us.
        return
    if os.fork() == 0:
        try:
            _wake_up(server, state, signal_number, number, ended)
        finally:
            os._exit(0)


def _wake_up(server: Server, state: SharedState, signal_number: int, number: int, ended: int) -> None:
    while os.getppid() == ended:
        time.sleep(0.001)
    server.wake(signal_number)
    _close_files()
    until = time.monotonic() + _AT_MOST
    while time.monotonic() < until and not has_ended(server.master):
        if any(slot.number == number and slot.pid != ended for slot in server.workers()):
            return
        time.sleep(0.002)
    if has_ended(server.master):
        state.clear()


def _close_files() -> None:
    """No client waits for a connection to end, and no server for a port to be free, because of this process."""
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
