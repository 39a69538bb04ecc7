"""When a change is worth telling: quiet, the longest wait, and the iterator of sets."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from edits import save, save_atomically
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wsgi_reload_hooks import Settings, SettingsError, watch
from wsgi_reload_hooks.watching.debounce import Debouncer, ScanRequests, settled
from wsgi_reload_hooks.watching.engines import Engine
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.watching.scanner import Scanner
from wsgi_reload_hooks.watching.stat_engine import StatEngine

pytestmark = pytest.mark.unit

FAST = Settings(engine="stat", interval=0.01, step=0.001, debounce=0.002)


# -- the debouncer ---------------------------------------------------------------------------------------------------


def test_due_when_quiet() -> None:
    """Changes are due when none came for `step` seconds."""
    debouncer = Debouncer(step=1.0, debounce=10.0)
    debouncer.add({"a"}, 100.0)
    assert debouncer and debouncer.wait(100.25) == 0.75 and debouncer.take(100.9) == set()
    debouncer.add({"b"}, 100.9)
    assert debouncer.take(101.5) == set()
    assert debouncer.take(101.9) == {"a", "b"}
    assert not debouncer and debouncer.take(200.0) == set()


def test_due_at_last() -> None:
    """However busy it is, changes wait no longer than `debounce` seconds, counted from the first."""
    debouncer = Debouncer(step=1.0, debounce=2.0)
    for tenths in range(20):
        debouncer.add({str(tenths)}, 50.0 + tenths / 10)
        assert debouncer.take(50.0 + tenths / 10) == set()
    assert len(debouncer.take(52.0)) == 20
    debouncer.add({"new"}, 52.5)
    assert debouncer.wait(52.5) == 1.0


def test_quiet_ticks_do_not_count() -> None:
    """A tick that brings nothing does not prolong the wait."""
    debouncer = Debouncer(step=1.0, debounce=9.0)
    debouncer.add({"a"}, 10.0)
    debouncer.add(set(), 10.9)
    assert debouncer.take(11.0) == {"a"}


@hypothesis_settings(deadline=None, database=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sets(st.sampled_from("abc"))), max_size=60),
    st.integers(1, 20),
    st.integers(1, 60),
)
def test_nothing_lost_nothing_early_nothing_late(ticks: list[tuple[int, set[str]]], step: int, debounce: int) -> None:
    """Whatever comes when: all is told, never before it is quiet or time, and at the first tick after that."""
    debouncer = Debouncer(step, debounce)
    now, waiting = 0, []
    for delay, changes in [*ticks, (1000, set())]:
        now += delay
        debouncer.add(changes, now)
        if changes:
            waiting.append((now, changes))
        taken = debouncer.take(now)
        if waiting and now >= min(waiting[-1][0] + step, waiting[0][0] + debounce):
            assert taken == set().union(*(each for _, each in waiting))
            waiting = []
        else:
            assert taken == set()
            assert not waiting or debouncer.wait(now) > 0
    assert not waiting


# -- the loop --------------------------------------------------------------------------------------------------------


class EndOfScript(Exception):
    """Time is over."""


class Script:
    """An engine, a clock and a pause: the engine tells at the time given, pausing is what makes time pass."""

    def __init__(self, changes: dict[float, str], interval: float = 4.0) -> None:
        self.now = 0.0
        self.interval = interval
        self.pauses: list[float] = []
        self._changes = dict(changes)

    def clock(self) -> float:
        return self.now

    reader = None
    unsure = False

    def urge(self) -> None:
        """It has nothing to hurry with."""

    def tick(self, settling: bool = False) -> set[str]:
        due = [when for when in self._changes if when <= self.now]
        return {self._changes.pop(when) for when in due}

    def wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        if self.now > 100:
            raise EndOfScript

    def pause(self) -> float:
        return self.interval

    def describe(self) -> str:
        return "a script"

    def close(self) -> None:
        """Nothing to end."""

    leave = close


def told(script: Script, settings: Settings) -> list[tuple[float, set[str]]]:
    found = []
    try:
        for changes in settled(script, Debouncer(settings.step, settings.debounce), script.wait, script.clock):
            found.append((script.now, changes))
    except EndOfScript:
        return found
    raise AssertionError("it ended by itself")


def test_interval_then_step() -> None:
    """The engine is asked each `interval`; after a change each `step`, until it is quiet."""
    settings = Settings(engine="stat", interval=4.0, step=1.0, debounce=30.0)
    script = Script({3.0: "a", 4.5: "b", 5.5: "c", 20.0: "d"})
    assert told(script, settings) == [(7.0, {"a", "b", "c"}), (24.0, {"d"})]
    assert set(script.pauses) <= {4.0, 1.0, 0.0}


def test_busy_all_the_time() -> None:
    """A file that never rests is told `debounce` seconds after it was noticed, again and again."""
    settings = Settings(engine="stat", interval=4.0, step=1.0, debounce=10.0)
    script = Script({float(second): "log" for second in range(100)})
    times = [when for when, _ in told(script, settings)]
    assert times[:7] == [10.0, 24.0, 38.0, 52.0, 66.0, 80.0, 94.0]


# -- watch() ---------------------------------------------------------------------------------------------------------


class Scripted(threading.Event):
    """A stop event: each pause of the loop does the next thing, and stops when nothing is left."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        super().__init__()
        self._steps = iter(steps)

    def wait(self, timeout: float | None = None) -> bool:
        step = next(self._steps, None)
        if step is None:
            self.set()
        else:
            step()
        return super().wait(timeout)


def nothing() -> None:
    """Let one pause pass."""


def names(changes: Iterator[set[str]]) -> list[set[str]]:
    return [{Path(path).name for path in each} for each in changes]


def test_watch_files(tmp_path: Path) -> None:
    """`watch` yields sets of changed, born and vanished files until it is stopped."""
    a, b = save(tmp_path / "a", "x"), tmp_path / "b"
    stop = Scripted(
        lambda: save_atomically(a, "longer"),
        *[nothing] * 3,
        lambda: save(b, "born"),
        *[nothing] * 3,
        a.unlink,
        *[nothing] * 4,
    )
    assert names(watch(str(a), str(b), settings=FAST, stop_event=stop)) == [{"a"}, {"b"}, {"a"}]


def test_watch_collects_what_is_saved_together(tmp_path: Path) -> None:
    """What is saved within `step` comes as one set."""
    paths = [save(tmp_path / name, "x") for name in "abc"]
    stop = Scripted(*(lambda path=path: save(path, "longer") for path in paths), *[nothing] * 10_000)
    # Longer than a machine stands still.
    settings = Settings(engine="stat", interval=0.01, step=2.5, debounce=30.0)
    changes = watch(*map(str, paths), settings=settings, stop_event=stop)
    assert {Path(path).name for path in next(changes)} == {"a", "b", "c"}
    stop.set()
    assert list(changes) == []


def test_watch_that_is_stopped_before_it_begins(tmp_path: Path) -> None:
    """With the stop event set, the iterator ends at once."""
    stop = threading.Event()
    stop.set()
    assert list(watch(str(tmp_path / "a"), stop_event=stop)) == []


def test_watch_counts_from_the_first_next(tmp_path: Path) -> None:
    """The baseline is that of the first `next()`, not of the call."""
    path = save(tmp_path / "a", "x")
    changes = watch(
        str(path), settings=FAST, stop_event=Scripted(nothing, lambda: save(path, "longest"), *[nothing] * 3)
    )
    save(path, "longer")
    assert names(changes) == [{"a"}]
    assert path.read_text() == "longest"


@pytest.mark.parametrize("name", ["a" * 300, "loop"])
def test_watch_impossible_paths(tmp_path: Path, name: str) -> None:
    """A path that cannot be asked is no error, listed or given."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = str(tmp_path / name)
    assert list(watch(path, settings=FAST, stop_event=Scripted(nothing))) == []
    settings = Settings(extra_files=(path,))
    StatEngine(settings, Files(settings, str(tmp_path)), Scanner(), print).look(expand=True)


def test_watch_loaded_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without paths the loaded modules are watched, also one that takes the place of another."""
    monkeypatch.chdir(tmp_path)
    for name in ("watched_one", "watched_two"):
        save(tmp_path / f"{name}.py", "x")

    def load(name: str) -> None:
        module = types.ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        monkeypatch.setitem(sys.modules, name, module)

    def swap() -> None:
        monkeypatch.delitem(sys.modules, "watched_one")
        load("watched_two")

    load("watched_one")
    stop = Scripted(
        lambda: save(tmp_path / "watched_one.py", "longer"),
        *[nothing] * 3,
        swap,
        nothing,
        lambda: save(tmp_path / "watched_two.py", "longer"),
        *[nothing] * 3,
    )
    assert names(watch(settings=FAST, stop_event=stop)) == [{"watched_one.py"}, {"watched_two.py"}]


def test_watch_listed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without paths the listed files are watched, too."""
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "a.html", "x")
    settings = Settings(engine="stat", interval=0.01, step=0.001, debounce=0.002, extra_files=("*.html",))
    stop = Scripted(lambda: save(path, "longer"), *[nothing] * 3)
    assert names(watch(settings=settings, stop_event=stop)) == [{"a.html"}]


def test_watch_refuses_wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting is told at the first `next()`."""
    monkeypatch.setenv("WSGI_RELOAD_INTERVAL", "never")
    with pytest.raises(SettingsError):
        next(watch("x"))


def test_globs_are_expanded_once_a_second(tmp_path: Path) -> None:
    """A file that a glob finds later is told once it was looked for, which costs a walk a second at most."""
    now = 0.0
    scanner = Scanner()
    save(tmp_path / "a.html", "")
    settings = Settings(extra_files=("*.html",))
    engine = StatEngine(settings, Files(settings, str(tmp_path)), scanner, print, lambda: now)
    save(tmp_path / "b.html", "")
    for now in (0.5, 0.9):  # noqa: B007
        assert engine.tick() == set() and len(scanner) == 1
    now = 1.1
    assert engine.tick() == {str(tmp_path / "b.html")}
    now = 1.7
    assert engine.tick() == set()


def test_a_look_that_is_ordered_too_late() -> None:
    """One that is ordered while a tick begins counts as done with the next one: this one may have begun without it."""
    looks = ScanRequests()
    driven = mock.Mock(spec=Engine, unsure=False)
    driven.urge.side_effect = looks.order
    assert looks.order() == 1
    begun = looks.begin(driven)
    looks.end(driven, begun, more=False)
    assert looks.done == 1 and looks.due
