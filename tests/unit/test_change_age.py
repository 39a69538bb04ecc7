"""Quiet counts from the save: how old is a change, and when is it told therefore."""

from __future__ import annotations

import os
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from edits import date, save
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from unit.test_debounce import EndOfScript, Script

from wsgi_reload_hooks.watching import debounce
from wsgi_reload_hooks.watching.debounce import Debouncer, age, settled

pytestmark = pytest.mark.unit

Patch = Callable[[Callable[[str], os.stat_result]], None]
MANY = 1000.0


def changed_at(path: Path) -> float:
    """When the file system says that *path* changed last; nobody can set that."""
    return path.stat().st_ctime


class Saved:
    """What `os.stat` says of paths that are not there: they changed last at the time given with each."""

    def __init__(self, times: dict[str, float]) -> None:
        self.times = times

    def __call__(self, path: str) -> os.stat_result:
        when = self.times[path]
        return os.stat_result((0,) * 10, {"st_ctime": when})


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Have the watcher, and nobody else, ask this one for what `os.stat` says."""
    return lambda stat: monkeypatch.setattr(debounce, "os", types.SimpleNamespace(stat=stat))


# -- age() -----------------------------------------------------------------------------------------------------------


def test_seconds_since_the_change(tmp_path: Path) -> None:
    """The age of one file is the time since it was saved, by the clock that is given."""
    path = save(tmp_path / "a", "x")
    assert age([str(path)], MANY, changed_at(path) + 0.75) == pytest.approx(0.75, abs=1e-6)


def test_by_the_clock_of_the_system(tmp_path: Path) -> None:
    """Without a clock it is the system's: a file that was saved just now is young, and gets older."""
    path = save(tmp_path / "a", "x")
    before = time.time() - changed_at(path)
    found = age([str(path)], MANY)
    assert max(0.0, before) <= found <= time.time() - changed_at(path)


def test_not_the_time_of_modification(tmp_path: Path) -> None:
    """A tool that back-dates a file (rsync, tar, cp -p) does not make the change an old one."""
    path = date(save(tmp_path / "a", "x"))
    assert age([str(path)], MANY, changed_at(path) + 0.5) == pytest.approx(0.5, abs=1e-6)


def test_renamed_over(tmp_path: Path) -> None:
    """A file that was written long ago and put in its place just now has changed just now."""
    new, path = save(tmp_path / "new", "x"), tmp_path / "a"
    written = changed_at(new)
    while os.stat(save(tmp_path / "clock", "")).st_ctime <= written:
        time.sleep(0.001)
    new.rename(path)
    assert changed_at(path) > written
    assert age([str(path)], MANY, changed_at(path)) == 0.0


def test_at_most(tmp_path: Path) -> None:
    """A file that is as it was before the last look has not changed, but the way to it has: it counts from now."""
    path = save(tmp_path / "a", "x")
    assert age([str(path)], 0.25, changed_at(path) + 60) == 0.0
    assert age([str(path)], 0.25, changed_at(path) + 0.255) == 0.25


def test_the_youngest_counts(patch: Patch) -> None:
    """Of several files the one that was saved last says how long it has been quiet."""
    patch(Saved({"a": 95.0, "b": 99.5, "c": 97.0}))
    assert age(["a", "b", "c"], MANY, 100.0) == 0.5
    assert age(["a", "c"], MANY, 100.0) == 3.0
    assert age(["c", "a"], MANY, 100.0) == 3.0


@pytest.mark.parametrize("name", ["gone", "a" * 300, "a\0b", "loop", "file/below"])
def test_who_cannot_be_asked_is_new(tmp_path: Path, name: str) -> None:
    """Of a file that vanished, or cannot be asked, nobody knows since when: it counts from now."""
    path = save(tmp_path / "file", "x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    now = changed_at(path) + 5
    for paths in ([name], ["file", name], [name, "file"]):
        assert age([str(tmp_path / each) for each in paths], MANY, now) == 0.0


def test_clock_in_the_future(tmp_path: Path, patch: Patch) -> None:
    """A file from the future (another machine's clock) counts from now, the more so beside others."""
    path = save(tmp_path / "a", "x")
    assert age([str(path)], MANY, changed_at(path) - 3600) == 0.0
    patch(Saved({"old": 90.0, "ahead": 100.5}))
    assert age(["old", "ahead"], MANY, 100.0) == age(["ahead", "old"], MANY, 100.0) == 0.0


def test_clock_that_went_backwards() -> None:
    """Never less than nothing, also if the looks are less than no time apart."""
    assert age([], -1.0, 100.0) == 0.0


@hypothesis_settings(deadline=None, database=None)
@given(st.lists(st.floats(0, 200)), st.floats(0, 50), st.floats(0, 200))
def test_any_times(times: list[float], at_most: float, now: float) -> None:
    """Between nothing and `at_most`, and as old as the youngest; what cannot be is new."""
    known = {str(number): when for number, when in enumerate(times)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(debounce, "os", types.SimpleNamespace(stat=Saved(known)))
        found = age(known, at_most, now)
    assert found == min([at_most, *(now - when if 0 <= now - when <= at_most + 0.01 else 0.0 for when in times)])


# -- the loop --------------------------------------------------------------------------------------------------------


class Slow(Script):
    """A script whose engine tells of a file later than it was saved; *saved*: what changed -> when."""

    def __init__(self, saved: dict[str, float], tells: dict[float, str], interval: float) -> None:
        super().__init__(tells, interval)
        self.stat: Callable[[str], os.stat_result] = Saved(saved)


def when_told(script: Slow, debouncer: Debouncer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, set[str]]]:
    """When was what told? The script's clock is the time of the file system, too."""
    found = []
    monkeypatch.setattr(debounce, "os", types.SimpleNamespace(stat=script.stat))
    monkeypatch.setattr(debounce, "time", types.SimpleNamespace(time=script.clock))
    try:
        for changes in settled(script, debouncer, script.wait, script.clock):
            found.append((script.now, changes))
    except EndOfScript:
        return found
    raise AssertionError("it ended by itself")


def test_step_counts_from_the_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change is told `step` seconds after its save, not after the look that found it."""
    script = Slow({"a": 5.0}, {5.0: "a"}, interval=4.0)
    assert when_told(script, Debouncer(4.0, 30.0), monkeypatch) == [(9.0, {"a"})]


def test_quiet_already_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it has been quiet for a `step` by the time of the look, nothing is waited for."""
    script = Slow({"a": 5.0}, {5.0: "a"}, interval=4.0)
    assert when_told(script, Debouncer(2.0, 30.0), monkeypatch) == [(8.0, {"a"})]


def test_the_last_save_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files that one look finds, the one saved last decides."""
    script = Slow({"a": 5.0, "b": 7.5}, {5.0: "a", 7.5: "b"}, interval=4.0)
    assert when_told(script, Debouncer(2.0, 30.0), monkeypatch) == [(9.5, {"a", "b"})]


def test_no_older_than_the_look_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose time is long ago (another file, by a link that was switched): quiet counts from the look."""
    script = Slow({"a": -1000.0}, {5.0: "a"}, interval=4.0)
    assert when_told(script, Debouncer(6.0, 30.0), monkeypatch) == [(14.0, {"a"})]


def test_a_vanished_file_counts_from_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows when a file vanished: a whole `step` is waited from the look on."""

    def gone(path: str) -> os.stat_result:
        raise FileNotFoundError(path)

    script = Slow({}, {5.0: "a"}, interval=4.0)
    script.stat = gone
    assert when_told(script, Debouncer(2.0, 30.0), monkeypatch) == [(10.0, {"a"})]


def test_debounce_counts_from_the_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest wait begins with the first save, too."""
    saves = {5.0: "a", 8.5: "b", 10.5: "c"}
    script = Slow({name: when for when, name in saves.items()}, saves, interval=4.0)
    assert when_told(script, Debouncer(4.0, 6.0), monkeypatch) == [(11.0, {"a", "b", "c"})]
