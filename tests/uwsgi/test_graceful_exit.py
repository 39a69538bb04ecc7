"""How a uWSGI worker goes: what it is told, when it is signalled, and when it is left alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from wsgi_reload_hooks.uwsgi.graceful_exit import GracefulExit, request_exit
from wsgi_reload_hooks.uwsgi.server import Server

pytestmark = pytest.mark.unit


class Simulated(Server):
    """A worker that is asked to go, and notes what becomes of it."""

    def __init__(self) -> None:
        self.can_go = self.at_work = True
        self.set: dict[str, str] = {}
        self.story: list[str] = []

    def way_out(self) -> Callable[[], object] | None:
        return (lambda: self.story.append("no next request")) if self.can_go else None

    def is_at_work(self) -> bool:
        return self.at_work

    def option(self, name: str) -> str | None:
        return self.set.get(name)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Simulated:
    server = Simulated()
    kill: Callable[[int, int], None] = lambda thread, number: server.story.append(signal.Signals(number).name)  # noqa: E731
    monkeypatch.setattr(signal, "pthread_kill", kill)
    return server


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "bell-1")


def test_who_is_not_asked_stays(server: Simulated, place: str) -> None:
    """Nothing happens, turn after turn."""
    leaving = GracefulExit(server, place)
    assert not any(leaving.step() for _ in range(100))
    assert len(leaving.readers) == 1
    leaving.close()
    assert (leaving.readers, server.story) == ([], [])


def test_a_request_is_left_alone(server: Simulated, place: str) -> None:
    """No signal while it lasts: it would cut short what is sent. The bell is gone at once, for the leader to see."""
    leaving = GracefulExit(server, place)
    assert request_exit(place, os.getpid())
    assert all(leaving.step() for _ in range(1000))
    assert server.story == ["no next request"]
    assert not os.path.exists(place)
    assert leaving.readers == []


def test_who_waits_for_a_request_is_woken_until_it_is_gone(server: Simulated, place: str) -> None:
    """A wake-up that comes before it sleeps would be lost. It is told once that there is to be no next request."""
    server.at_work = False
    leaving = GracefulExit(server, place)
    assert request_exit(place, os.getpid())
    assert all(leaving.step() for _ in range(100))
    assert server.story == ["no next request"] + ["SIGWINCH"] * 100


def test_who_waits_for_a_lock_gets_one_hangup(server: Simulated, place: str) -> None:
    """Only with thunder-lock, and after so many turns in a row without a request."""
    server.set["thunder-lock"] = ""
    leaving = GracefulExit(server, place)
    assert request_exit(place, os.getpid())
    for at_work in [False] * 14 + [True] * 50 + [False] * 50:
        server.at_work = at_work
        leaving.step()
    assert server.story == ["no next request"] + ["SIGWINCH"] * 28 + ["SIGHUP"] + ["SIGWINCH"] * 35


def test_a_cleaned_folder(server: Simulated, place: str) -> None:
    """The bell comes back, when there is a place for it."""
    leaving = GracefulExit(server, place)
    os.unlink(place)
    assert not leaving.step()
    assert request_exit(place, os.getpid())
    # What was said is not lost with it.
    os.unlink(place)
    assert leaving.step()
    later = GracefulExit(server, os.path.join(place, "bell-2"))
    assert not later.step()
    os.mkdir(place)
    assert not later.step()
    assert request_exit(os.path.join(place, "bell-2"), os.getpid())
    assert later.step()


def test_where_there_is_no_way_out_there_is_no_bell(server: Simulated, place: str) -> None:
    """The leader sends a signal then."""
    server.can_go = False
    leaving = GracefulExit(server, place)
    assert not leaving.step()
    assert not request_exit(place, os.getpid())
    assert leaving.readers == []
