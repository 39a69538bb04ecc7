"""How proven code gets into the workers: the order, the pace, and whom nobody signals; a uWSGI in simulated time."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wsgi_reload_hooks.uwsgi import rolling
from wsgi_reload_hooks.uwsgi.graceful_exit import ExitRequests
from wsgi_reload_hooks.uwsgi.legacy_gate import is_behind
from wsgi_reload_hooks.uwsgi.notes import exit_request_name
from wsgi_reload_hooks.uwsgi.rolling import Progress, RollingRestart
from wsgi_reload_hooks.uwsgi.server import Server, Slot
from wsgi_reload_hooks.uwsgi.shared_state import Note, SharedState

pytestmark = pytest.mark.unit

SIGNAL = 254
OLD, NEW = "00", "11"
PATH = "/project/app.py"
STEP = 0.02
# Above what a system gives to processes: a signal that went out for real would find nobody.
FIRST_PID = 100_000_000


@dataclasses.dataclass
class Worker:
    """One worker of the simulated server."""

    number: int
    pid: int
    digest: str
    ready: bool = True
    told: bool = True
    busy: bool = False
    ended: bool = False
    respawns: int = 0
    requests: int = 0
    began: float = 0.0
    ends_at: float | None = None
    ready_at: float = 0.0


class Simulated(Server):
    """Its workers end and load in their time; the whole story is in `killed`."""

    def __init__(self, count: int, *, lazy: bool = True, myself: int = 1, import_seconds: float = 0.2) -> None:
        self.master = 1
        self.lazy = lazy
        self.now = 1000.0
        self.import_seconds = import_seconds
        self.respawns: list[float] = []
        self.killed: list[tuple[float, int, signal.Signals]] = []
        self.woken = self.reloads = 0
        self.set: dict[str, str] = {"processes": str(count)}
        self.moved = False
        self.endless: set[int] = set()
        self.crew = [Worker(number, FIRST_PID + number, OLD) for number in range(1, count + 1)]
        self._next = FIRST_PID + 100
        self.mine = 0
        self.ledger = SharedState(os.getppid())
        if myself:
            self.mine = self.crew[myself - 1].pid = os.getpid()

    def workers(self) -> list[Slot]:
        return [Slot(each.number, each.pid, 1, each.requests, each.busy, each.respawns) for each in self.crew]

    def option(self, name: str) -> str | None:
        return self.set.get(name)

    def has_moved(self) -> bool:
        return self.moved

    def wake(self, signal: int) -> None:
        assert signal == SIGNAL
        self.woken += 1

    def find(self, pid: int) -> Worker:
        return next(each for each in self.crew if each.pid == pid)

    def notes(self) -> dict[int, Note]:
        """What those wrote that are far enough."""
        return {
            each.pid: {
                "pid": each.pid,
                "began": each.began,
                "held": False,
                "inherited": [],
                "files": {PATH: [None, each.digest]},
            }
            for each in self.crew
            if each.told
        }

    def kill(self, pid: int, sig: signal.Signals) -> None:
        """What `os.kill` does here; to HUP somebody while anybody loads is the bug that all of this avoids."""
        if sig == signal.SIGHUP:
            assert all(each.ready for each in self.crew if each.ends_at is None), "somebody is loading"
        self.killed.append((self.now, pid, sig))
        if sig == signal.SIGKILL or pid not in self.endless:
            self.find(pid).ends_at = self.now + 0.05

    def pass_time(self) -> None:
        self.now += STEP
        for each in self.crew:
            if each.ends_at is not None and self.now >= each.ends_at:
                each.pid, self._next = self._next, self._next + 1
                each.digest, each.ready, each.told, each.ends_at = NEW, False, False, None
                each.respawns += 1
                each.ready_at, each.began = self.now + self.import_seconds, self.now
                self.respawns.append(self.now)
            elif not each.told:
                # A step without a note, as it is between the fork and the import of the hooks.
                each.told = True
            elif not each.ready and self.now >= each.ready_at:
                each.ready = True

    def hupped(self) -> list[int]:
        return [pid for _, pid, sig in self.killed if sig == signal.SIGHUP]


class Shadow:
    """A module with some of its names replaced, for one importer only."""

    def __init__(self, module: ModuleType, **names: Callable[..., object]) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@pytest.fixture(autouse=True)
def simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Simulated]:
    """Whatever looks at processes, or at a clock, looks at the simulated ones."""
    servers: list[Simulated] = []
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(rolling, "is_ready", lambda slot: servers[0].find(slot.pid).ready)
    monkeypatch.setattr(rolling, "has_ended", lambda pid: servers[0].find(pid).ended)

    def kill(pid: int, sig: signal.Signals) -> None:
        servers[0].kill(pid, sig)

    monkeypatch.setattr(rolling, "os", Shadow(os, kill=kill))
    monkeypatch.setattr(rolling, "time", Shadow(time, monotonic=lambda: servers[0].now, time=lambda: servers[0].now))
    return servers


def verdict_of(server: Simulated) -> Note:
    return {"began": server.now, "asked": server.now, "files": {PATH: [None, NEW]}, "changed": [PATH], "done": False}


def take_step(server: Simulated, exchange: RollingRestart, verdict: Note, notes: dict[int, Note], now: float) -> bool:
    """One step; whether it is over. What it asks of uWSGI itself is counted."""
    progress = exchange.step(verdict, notes, now)
    server.reloads += progress is Progress.RELOAD_ALL
    return progress is Progress.DONE


def run(server: Simulated, verdict: Note, exchange: RollingRestart, seconds: float = 60.0) -> bool:
    """Step until it is over; whether it ever was. A leader that ended itself is followed by another one."""
    end = server.now + seconds
    lost: int | None = server.mine
    while server.now < end:
        if take_step(server, exchange, verdict, server.notes(), server.now):
            return True
        server.pass_time()
        if lost and not any(each.pid == lost for each in server.crew):
            lost, exchange = None, RollingRestart(server, server.ledger, SIGNAL)
    return False


def start(simulation: list[Simulated], server: Simulated) -> tuple[RollingRestart, Note]:
    simulation.append(server)
    return RollingRestart(server, server.ledger, SIGNAL), verdict_of(server)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("myself", [1, 0])
def test_everyone_is_replaced_once(count: int, myself: int, simulation: list[Simulated]) -> None:
    """Each worker gets one HUP, no other signal, and nobody while anybody loads."""
    server = Simulated(count, myself=myself)
    before = [each.pid for each in server.crew]
    exchange, verdict = start(simulation, server)
    assert run(server, verdict, exchange)
    assert sorted(server.hupped()) == sorted(before)
    assert len(server.killed) == count
    assert {each.digest for each in server.crew} == {NEW}
    assert server.reloads == 0


@pytest.mark.parametrize("myself", [1, 2, 4])
def test_the_one_that_does_this_is_the_last(myself: int, simulation: list[Simulated]) -> None:
    """The leader sees all the others through before it goes itself."""
    server = Simulated(4, myself=myself)
    exchange, verdict = start(simulation, server)
    assert run(server, verdict, exchange)
    assert server.hupped()[-1] == server.mine


def test_one_worker_shows_the_way(simulation: list[Simulated]) -> None:
    """The first one is alone until it is ready with the new code; most are never away at once."""
    server = Simulated(8, myself=0)
    exchange, verdict = start(simulation, server)
    while not take_step(server, exchange, verdict, server.notes(), server.now):
        away = [each for each in server.crew if each.ends_at is not None or not each.ready]
        arrived = [each for each in server.crew if each.digest == NEW and each.ready]
        assert len(away) <= (1 if not arrived else 4)
        server.pass_time()
        assert server.now < 1060.0


def test_idle_ones_go_first(simulation: list[Simulated]) -> None:
    """Who has a request is left to finish it while there are others."""
    server = Simulated(4, myself=0)
    server.crew[0].busy = server.crew[1].busy = True
    busy = {server.crew[0].pid, server.crew[1].pid}
    exchange, verdict = start(simulation, server)
    take_step(server, exchange, verdict, server.notes(), server.now)
    assert not busy & set(server.hupped()) and len(server.hupped()) == 1


@pytest.mark.parametrize("state", ["loading", "unheard", "held"])
def test_nobody_is_signalled_while_anybody_loads(state: str, simulation: list[Simulated]) -> None:
    """One that imports, one that is so young that it wrote nothing, one that waits for a repair: all wait for it."""
    server = Simulated(4, myself=0)
    exchange, verdict = start(simulation, server)
    third = server.crew[2]
    for _ in range(50):
        server.now += STEP
        third.ready, notes = state == "unheard", server.notes()
        if state == "unheard":
            del notes[third.pid]
        elif state == "held":
            third.ready = True
            notes[third.pid]["held"] = True
        assert not take_step(server, exchange, verdict, notes, server.now)
    assert server.killed == []


def test_who_has_the_new_code_is_left_alone(simulation: list[Simulated]) -> None:
    """A worker that was respawned meanwhile has loaded it by itself."""
    server = Simulated(4, myself=0)
    exchange, verdict = start(simulation, server)
    server.crew[1].digest = NEW
    assert run(server, verdict, exchange)
    assert FIRST_PID + 2 not in server.hupped()
    assert len(server.killed) == 3


def test_who_has_imported_a_changed_file_for_a_request_is_behind(simulation: list[Simulated]) -> None:
    """What a rehearsal does not load, it cannot compare: whoever is older than the verdict is replaced."""
    server = Simulated(1, myself=0)
    _, verdict = start(simulation, server)
    lazy = "/project/lazy_part.py"
    verdict["changed"] = [lazy]
    (note,) = server.notes().values()
    note["files"] = {PATH: [None, NEW], lazy: [None, OLD]}
    assert is_behind(note, verdict)
    assert not is_behind({**note, "began": verdict["began"]}, verdict)


def test_the_end_of_a_worker_wakes_the_master(simulation: list[Simulated]) -> None:
    """By itself it would look once a second."""
    server = Simulated(2, myself=0)
    exchange, verdict = start(simulation, server)
    server.crew[0].ended = True
    assert not take_step(server, exchange, verdict, server.notes(), server.now)
    assert server.woken == 1 and server.killed == []


@pytest.mark.parametrize("option", ["worker-reload-mercy", "reload-mercy"])
def test_one_that_does_not_end_is_ended(option: str, simulation: list[Simulated]) -> None:
    """As uWSGI does with it after a reload of its own, and not before."""
    server = Simulated(2, myself=0)
    server.set[option] = "5"
    stuck = server.crew[0].pid
    server.endless.add(stuck)
    exchange, verdict = start(simulation, server)
    assert run(server, verdict, exchange)
    hupped = next(at for at, pid, sig in server.killed if (pid, sig) == (stuck, signal.SIGHUP))
    (killed,) = [at for at, pid, sig in server.killed if sig == signal.SIGKILL]
    assert 5.0 <= killed - hupped <= 5.5


def test_who_has_a_bell_is_asked_and_gets_a_signal_when_that_was_in_vain(simulation: list[Simulated]) -> None:
    """No signal while it may have heard; nobody else is asked in the meantime."""
    server = Simulated(2, myself=0)
    exchange, verdict = start(simulation, server)
    first = server.crew[0]
    # Somebody has it, and nobody comes.
    bell = ExitRequests(server.ledger.place(exit_request_name(first.number)))
    try:
        began, deaf = server.now, first.pid
        assert run(server, verdict, exchange)
    finally:
        bell.close()
    (asked, pid, _), (_, other, _) = server.killed
    assert pid == deaf
    assert 2.0 < asked - began < 2.5
    assert other == FIRST_PID + 2


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("import_seconds", [0.0, 0.2])
def test_the_master_is_not_choked(count: int, import_seconds: float, simulation: list[Simulated]) -> None:
    """Save after save, by one leader after the other: uWSGI's master never finds a reason to sleep 2 s."""
    server = Simulated(count, myself=0, import_seconds=import_seconds)
    start(simulation, server)
    for _ in range(4):
        for each in server.crew:
            each.digest = OLD
        server.now += STEP
        assert run(server, verdict_of(server), RollingRestart(server, server.ledger, SIGNAL))
    assert len(server.respawns) == 4 * count
    row = 0
    for before, after in zip([0.0, *server.respawns], server.respawns, strict=False):
        # Counted as uWSGI does it, in whole seconds.
        row = row + 1 if int(after) - int(before) <= 1 else 0
        assert row <= count, server.respawns


@pytest.mark.parametrize("why", ["not lazy", "mule", "mules", "spooler", "moved", "inherited"])
def test_all_is_executed_anew_where_a_roll_would_not_do(why: str, simulation: list[Simulated]) -> None:
    """Once, and again only when nothing came of it for 5 s."""
    server = Simulated(4, myself=0, lazy=why != "not lazy")
    server.moved = why == "moved"
    if why in ("mule", "mules", "spooler"):
        server.set[why] = ""
    exchange, verdict = start(simulation, server)
    notes = server.notes()
    if why == "inherited":
        for note in notes.values():
            note["inherited"] = [PATH]
    began = server.now
    while server.now < began + 4.9:
        assert not take_step(server, exchange, verdict, notes, server.now)
        server.now += STEP
    assert (server.reloads, server.killed) == (1, [])
    server.now += 0.2
    take_step(server, exchange, verdict, notes, server.now)
    assert server.reloads == 2


@pytest.mark.parametrize("long", [True, False])
def test_a_long_request_is_waited_for_but_not_for_ever(long: bool, simulation: list[Simulated]) -> None:
    """Everybody waits for it while uWSGI is executed anew: so it is given 10 s to end. Many short ones are no reason."""
    server = Simulated(2, myself=0, lazy=False)
    exchange, verdict = start(simulation, server)
    server.crew[0].busy = True
    began = server.now
    while not server.reloads and server.now < began + 60.0:
        take_step(server, exchange, verdict, server.notes(), server.now)
        server.now += STEP
        server.crew[0].requests += not long
    assert server.reloads == 1
    if long:
        assert 9.5 < server.now - began < 11.0
    else:
        assert server.now - began < 1.0


def test_a_long_request_that_ends_is_followed_by_the_reload(simulation: list[Simulated]) -> None:
    """Not a moment later than it must be."""
    server = Simulated(2, myself=0, lazy=False)
    exchange, verdict = start(simulation, server)
    server.crew[0].busy = True
    began = server.now
    while not server.reloads and server.now < began + 60.0:
        take_step(server, exchange, verdict, server.notes(), server.now)
        server.now += STEP
        server.crew[0].busy = server.now < began + 3.0
    assert 2.9 < server.now - began < 4.0
