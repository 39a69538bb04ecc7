"""How proven code gets into service under uWSGI: worker after worker where each loads for itself, else all anew at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping

from ..watching.signature import UNKNOWN
from .exit_request import ring
from .options import APART
from .server import Server, Slot, has_ended, is_ready
from .shared_state import Note, SharedState
from .worker import bell_name, understood

_RESPAWNS = "respawns"
_FINISHING = 2.0
# Looks, a fiftieth of a second apart or more: whoever stands still, this process included, is not deaf for it.
_DEAF = 100
_MERCY = 60.0
_LONG_REQUEST = 0.3
_QUIET_AT_MOST = 10.0
_UNHEARD = 5.0
# uWSGI's master sleeps two seconds when it has respawned more workers than it has in a row: each not later than in the
# second of the clock after that of the last.
_ROW = 1
_CLOCKS_APART = 0.05


class RollingRestart:
    """Puts a verdict into service, a `step` at a time. *signal_number* wakes the master."""

    def __init__(self, server: Server, ledger: SharedState, signal_number: int) -> None:
        self._server = server
        self._ledger = ledger
        self._signal = signal_number
        self._sent: dict[int, float] = {}
        # Those of them that were asked to go, and are not known to have heard: the place of the bell, looks at it.
        self._asked: dict[int, tuple[str, int]] = {}
        # How many workers the master has forked again, how many of them in a row, and when it did last.
        self._respawns: Note = ledger.read(_RESPAWNS) or {"total": 0, "row": 1, "at": time.time()}
        self._asked_at = self._waiting_since = 0.0
        self._busy: dict[int, tuple[int, float]] = {}
        self._looking_since = 0.0

    def is_behind(self, note: Note, verdict: Note) -> bool:
        """Whether the worker of this *note* loaded something else than what the *verdict* is about."""
        if note["held"] or note["began"] >= verdict["began"]:
            return False
        if verdict.get("request"):
            return True
        loaded, proven = understood(note["files"]), understood(verdict["files"])
        # A rehearsal does not load what requests import: of that, only what is younger has the new text for sure.
        if any(path not in loaded or path not in proven for path in verdict["changed"]):
            return True
        return any(
            (path in proven and proven[path][1] != digest) or digest == UNKNOWN for path, (_, digest) in loaded.items()
        )

    def step(self, verdict: Note, notes: Mapping[int, Note], now: float) -> bool:
        """Do what can be done now; whether every worker has the new code and is ready.

        *notes*: what each worker wrote down, by pid.
        """
        slots = self._server.workers()
        self._count_respawns(slots)
        self._sent = {pid: at for pid, at in self._sent.items() if any(slot.pid == pid for slot in slots)}
        if any(has_ended(slot.pid) for slot in slots):
            self._server.wake(self._signal)
            return False
        behind = [
            slot
            for slot in slots
            if slot.pid in self._sent or slot.pid not in notes or self.is_behind(notes[slot.pid], verdict)
        ]
        # Without its own note a worker may be so young that it still has the master's handlers.
        waiting = [slot for slot in slots if slot.pid not in notes or notes[slot.pid]["held"] or not is_ready(slot)]
        if not behind and not waiting:
            self._waiting_since = 0.0
            return bool(slots)
        if self._must_execute(verdict, notes):
            self._execute(slots, waiting, now)
        else:
            self._roll(slots, behind, waiting, now)
        return False

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
        # To HUP a worker that is still loading would be its end, or worse: nobody while anybody loads.
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
            place = self._ledger.place(bell_name(slot.number))
            if ring(place, slot.pid):
                self._asked[slot.pid] = (place, 0)
            else:
                _send(slot.pid, signal.SIGHUP)

    def _insist(self, now: float) -> None:
        """HUP who was asked in vain, and end, as uWSGI does on a reload of its own, who does not end."""
        mercy = float(self._server.option("worker-reload-mercy") or self._server.option("reload-mercy") or _MERCY)
        for pid, (place, looks) in list(self._asked.items()):
            if pid not in self._sent or not os.path.exists(place):
                # It has ended, or heard: then it takes its bell away.
                del self._asked[pid]
            elif looks < _DEAF:
                self._asked[pid] = (place, looks + 1)
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
            self._ledger.write(_RESPAWNS, self._respawns)

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

    # -- all anew ----------------------------------------------------------------------------------------------------

    def _must_execute(self, verdict: Note, notes: Mapping[int, Note]) -> bool:
        """Whether a rolled worker would come back with old code, or only part of the server would be new."""
        if (
            not self._server.lazy
            or self._server.has_moved()
            or any(self._server.option(name) is not None for name in APART)
        ):
            return True
        inherited = {path for note in notes.values() for path in note["inherited"]}
        return bool(inherited & set(verdict["changed"]))

    def _execute(self, slots: list[Slot], waiting: list[Slot], now: float) -> None:
        self._waiting_since = self._waiting_since or now
        if waiting or (self._asked_at and now - self._asked_at < _UNHEARD):
            return
        self.look(now)
        long = any(now - since > _LONG_REQUEST for _, since in self._busy.values())
        looked = now - self._looking_since > _LONG_REQUEST or not self._busy
        if (long or not looked) and now - self._waiting_since < _QUIET_AT_MOST:
            return
        self._asked_at = now
        self._looking_since = 0.0
        self._server.reload()


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
