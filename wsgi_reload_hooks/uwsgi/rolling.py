"""Puts approved code into service under uWSGI: worker after worker where each loads for itself, else all at once."""

from __future__ import annotations

import enum
import os
import signal
import time
from collections.abc import Mapping

from .graceful_exit import request_exit
from .legacy_gate import is_behind
from .notes import RESPAWNS, exit_request_name, read
from .options import APART
from .server import Server, Slot, has_ended, is_ready
from .shared_state import Note, SharedState

_FINISHING = 2.0
# Looks, a fiftieth of a second apart or more: a process that stands still, this one included, is given its time.
_UNHEARD_LOOKS = 100
_MERCY = 60.0
_LONG_REQUEST = 0.3
_QUIET_AT_MOST = 10.0
_UNHEARD = 5.0
# uWSGI's master sleeps two seconds when it has respawned more workers than it has in a row: each not later than in the
# second of the clock after that of the last.
_ROW = 1
_CLOCKS_APART = 0.05


class Progress(enum.Enum):
    """UNDER_WAY: to be gone on with. RELOAD_ALL: now is the moment to call ``uwsgi.reload()``, and then to be gone on
    with. DONE: every worker has the approved code and is ready.
    """

    UNDER_WAY = enum.auto()
    RELOAD_ALL = enum.auto()
    DONE = enum.auto()


class RollingRestart:
    """Puts what was approved into service, a `step` at a time. *signal_number* wakes the master."""

    def __init__(self, server: Server, state: SharedState, signal_number: int) -> None:
        self._server = server
        self._state = state
        self._signal = signal_number
        self._sent: dict[int, float] = {}
        # Those of them that were asked to exit, and are not known to have heard: the path of the pipe, looks at it.
        self._asked: dict[int, tuple[str, int]] = {}
        # How many workers the master has forked again, how many of them in a row, and when it did last.
        self._respawns: Note = read(state, RESPAWNS) or {"total": 0, "row": 1, "at": time.time()}
        self._asked_at = self._waiting_since = 0.0
        self._busy: dict[int, tuple[int, float]] = {}
        self._looking_since = 0.0

    def step(self, approved: Note, notes: Mapping[int, Note], now: float) -> Progress:
        """Do what can be done now without waiting. *notes*: those of the workers, by pid."""
        slots = self._server.workers()
        self._count_respawns(slots)
        self._sent = {pid: at for pid, at in self._sent.items() if any(slot.pid == pid for slot in slots)}
        if any(has_ended(slot.pid) for slot in slots):
            self._server.wake(self._signal)
            return Progress.UNDER_WAY
        behind = [
            slot
            for slot in slots
            if slot.pid in self._sent or slot.pid not in notes or is_behind(notes[slot.pid], approved)
        ]
        # Without its own note a worker may be so young that it still has the master's handlers.
        waiting = [slot for slot in slots if slot.pid not in notes or notes[slot.pid]["held"] or not is_ready(slot)]
        if not behind and not waiting:
            self._waiting_since = 0.0
            return Progress.DONE if slots else Progress.UNDER_WAY
        if self._can_roll(approved, notes):
            self._roll(slots, behind, waiting, now)
            return Progress.UNDER_WAY
        return Progress.RELOAD_ALL if self._may_reload_all(waiting, now) else Progress.UNDER_WAY

    def look(self, now: float) -> None:
        """Look at who is busy with what; to be called now and then before `step`, so that it need not wait to know.

        A worker that is at the same request for some time would have all the others wait for it.
        """
        self._looking_since = self._looking_since or now
        busy = {}
        for slot in self._server.workers():
            if slot.busy:
                requests, since = self._busy.get(slot.pid, (slot.requests, now))
                busy[slot.pid] = (requests, since) if requests == slot.requests else (slot.requests, now)
        self._busy = busy

    # -- worker after worker -----------------------------------------------------------------------------------------

    def _roll(self, slots: list[Slot], behind: list[Slot], waiting: list[Slot], now: float) -> None:
        self._insist(now)
        # A HUP would end a worker that is still loading, or worse: no worker gets one while another one loads.
        if any(slot.pid not in self._sent for slot in waiting):
            return
        finishing = {pid for pid, sent in self._sent.items() if now - sent > _FINISHING}
        fresh = [slot for slot in slots if slot not in behind]
        under_way = len(self._sent) - len(finishing)
        at_once = max(1, len(slots) // 2) if fresh else 1
        serving = len(slots) - len(self._sent)
        rest = [slot for slot in behind if slot.pid not in self._sent]
        # Idle ones first, the one that does this last.
        rest.sort(key=lambda slot: (slot.pid == os.getpid(), slot.busy))
        for slot in rest:
            if under_way >= at_once or (len(slots) > 1 and serving <= len(slots) // 2) or self._would_choke():
                return
            if slot.pid == os.getpid() and under_way:
                return
            self._sent[slot.pid] = now
            under_way += 1
            serving -= 1
            # On SIGHUP uWSGI ends a worker at once that has accepted a request, and has not begun to read it.
            path = self._state.place(exit_request_name(slot.number))
            if request_exit(path, slot.pid):
                self._asked[slot.pid] = (path, 0)
            else:
                _send(slot.pid, signal.SIGHUP)

    def _insist(self, now: float) -> None:
        """Send HUP to workers that were asked in vain, and kill, as uWSGI does on a reload of its own, those that stay."""
        mercy = float(self._server.option("worker-reload-mercy") or self._server.option("reload-mercy") or _MERCY)
        for pid, (path, looks) in list(self._asked.items()):
            if pid not in self._sent or not os.path.exists(path):
                # It has ended, or heard: then it removes its pipe.
                del self._asked[pid]
            elif looks < _UNHEARD_LOOKS:
                self._asked[pid] = (path, looks + 1)
            else:
                del self._asked[pid]
                _send(pid, signal.SIGHUP)
        for pid, sent in self._sent.items():
            if now - sent > mercy:
                self._sent[pid] = now
                _send(pid, signal.SIGKILL)

    def _count_respawns(self, slots: list[Slot]) -> None:
        known = self._respawns
        new = sum(slot.respawns for slot in slots) - known["total"]
        if new:
            self._respawns = {"total": known["total"] + new, "row": self._row() + max(0, new), "at": time.time()}
            self._state.write(RESPAWNS, self._respawns)

    def _row(self) -> int:
        """How many respawns the next one would come after, as the master counts."""
        at: float = self._respawns["at"]
        return int(self._respawns["row"]) if int(time.time() - _CLOCKS_APART) <= int(at) + _ROW else 0

    def _would_choke(self) -> bool:
        """Whether one more would have the master sleep."""
        if self._server.option("forkbomb-delay") == "0":
            return False
        allowed = int(self._server.option("processes") or self._server.option("workers") or 1)
        return self._row() + len(self._sent) > allowed

    # -- all at once -------------------------------------------------------------------------------------------------

    def _can_roll(self, approved: Note, notes: Mapping[int, Note]) -> bool:
        """Whether a replaced worker would come back with the new code, and so all of the server be new in the end."""
        if (
            not self._server.lazy
            or self._server.has_moved()
            or any(self._server.option(name) is not None for name in APART)
        ):
            return False
        inherited = {path for note in notes.values() for path in note["inherited"]}
        return not inherited & set(approved["changed"])

    def _may_reload_all(self, waiting: list[Slot], now: float) -> bool:
        """Whether now is the moment: no worker loads, and no long request would have all others wait for its end."""
        self._waiting_since = self._waiting_since or now
        if waiting or (self._asked_at and now - self._asked_at < _UNHEARD):
            return False
        self.look(now)
        long = any(now - since > _LONG_REQUEST for _, since in self._busy.values())
        looked = now - self._looking_since > _LONG_REQUEST or not self._busy
        if (long or not looked) and now - self._waiting_since < _QUIET_AT_MOST:
            return False
        self._asked_at = now
        self._looking_since = 0.0
        return True


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
