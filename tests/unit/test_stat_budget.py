"""What looking at files may cost: the stat engine looks less often where it would take more than its budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from edits import save
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wsgi_reload_hooks.core.settings import Settings
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.watching.scanner import Scanner
from wsgi_reload_hooks.watching.stat_engine import StatEngine

pytestmark = pytest.mark.unit


class Costly(Scanner):
    """A scanner whose looks take the CPU time given; it says how often it looked, and brings the changes given."""

    def __init__(self, cost: float = 0.0) -> None:
        super().__init__()
        self.cost = cost
        self.used = 0.0
        self.looks = 0
        self.changes: set[str] = set()

    def tick(self, now: float | None = None, within: object = None) -> set[str]:
        self.used += self.cost
        self.looks += 1
        changes, self.changes = self.changes, set()
        return changes


class Lab:
    """A stat engine with clocks that stand still until somebody moves them."""

    def __init__(self, cost: float = 0.0, interval: float = 0.25, budget: float = 0.01, extra: str = "") -> None:
        self.now = 1000.0
        self.told: list[str] = []
        self.scanner = Costly(cost)
        settings = Settings(engine="stat", interval=interval, budget=budget, extra_files=(extra,) if extra else ())
        files = Files(settings, extra.rpartition("/")[0] or None)
        self.engine = StatEngine(
            settings, files, self.scanner, self.told.append, lambda: self.now, lambda: self.scanner.used
        )

    def run(self, seconds: float) -> None:
        """Let time pass as a loop does that waits as long as it is asked to."""
        end = self.now + seconds
        while self.now < end:
            self.engine.tick()
            # The least that a clock can tell.
            self.now += max(self.engine.pause(), 1e-6)


def settled_interval(lab: Lab) -> float:
    for _ in range(100):
        lab.engine.look(expand=False)
    return lab.engine.interval


# -- how often -------------------------------------------------------------------------------------------------------


def test_cheap_looks_keep_the_interval() -> None:
    """Within the budget it looks as often as the setting says, and has nothing to tell."""
    lab = Lab(cost=0.002)
    lab.run(100.0)
    assert lab.engine.interval == 0.25 and lab.told == []
    assert 395 <= lab.scanner.looks <= 405


def test_dear_looks_are_fewer() -> None:
    """Beyond the budget, the interval is what a look costs divided by the budget: no more is used than is allowed."""
    lab = Lab(cost=0.02)
    assert settled_interval(lab) == pytest.approx(2.0)
    before = lab.scanner.used, lab.now
    lab.run(1000.0)
    assert (lab.scanner.used - before[0]) / (lab.now - before[1]) == pytest.approx(0.01, rel=0.01)


def test_a_larger_budget_is_a_shorter_interval() -> None:
    """Whoever gives it more of a core has it look more often, to the interval at best."""
    assert [settled_interval(Lab(cost=0.02, budget=budget)) for budget in (0.005, 0.02, 0.05, 1.0)] == pytest.approx(
        [4.0, 1.0, 0.4, 0.25]
    )


def test_one_slow_look_is_no_reason() -> None:
    """A look that takes long once stretches a little, and is forgotten."""
    lab = Lab(cost=0.001)
    settled_interval(lab)
    lab.scanner.cost = 0.008
    lab.engine.look(expand=False)
    assert lab.engine.interval < 0.3 and lab.told == []
    lab.scanner.cost = 0.001
    assert settled_interval(lab) == 0.25


def test_shrinks_again() -> None:
    """When looks become cheap again, it looks as often as before."""
    lab = Lab(cost=0.05)
    assert settled_interval(lab) == pytest.approx(5.0)
    lab.scanner.cost = 0.0
    lab.run(60.0)
    assert lab.engine.interval == 0.25


@hypothesis_settings(deadline=None, database=None)
@given(
    st.lists(st.floats(0.0, 0.5), min_size=1, max_size=30),
    st.floats(0.01, 10.0),
    st.floats(0.0001, 1.0),
)
def test_never_more_often_than_asked(costs: list[float], interval: float, budget: float) -> None:
    """Whatever looks cost: not below the interval, and not above what the dearest of them would ask for."""
    lab = Lab(interval=interval, budget=budget)
    for cost in costs:
        lab.scanner.cost = cost
        lab.engine.look(expand=False)
        assert interval <= lab.engine.interval <= max(interval, max(costs) / budget * (1 + 1e-9))
        lab.now += lab.engine.pause()
        assert lab.engine.pause() == pytest.approx(0.0, abs=1e-6)


# -- when ------------------------------------------------------------------------------------------------------------


def test_pause() -> None:
    """The pause is what is left of the interval since the last look, and never less than nothing."""
    lab = Lab(interval=1.0)
    assert lab.engine.pause() == 1.0
    lab.now += 0.75
    assert lab.engine.pause() == 0.25
    lab.now += 5.0
    assert lab.engine.pause() == 0.0
    assert lab.engine.tick() == set() and lab.engine.pause() == 1.0


def test_pause_of_dear_looks() -> None:
    """The stretched interval is what is waited for."""
    lab = Lab(cost=0.02, interval=1.0)
    settled_interval(lab)
    lab.now += 0.5
    assert lab.engine.pause() == pytest.approx(1.5)
    assert lab.engine.tick() == set() and lab.engine.pause() == pytest.approx(1.5)


def test_no_look_before_it_is_due() -> None:
    """A tick that comes early costs nothing and finds nothing; the next one finds it."""
    lab = Lab(interval=1.0)
    lab.scanner.changes = {"a"}
    lab.now += 0.5
    assert lab.engine.tick() == set() and lab.scanner.looks == 0
    lab.now += 0.5
    assert lab.engine.tick() == {"a"} and lab.scanner.looks == 1


def test_changes_that_settle_are_looked_at_at_once() -> None:
    """Whoever waits for quiet asks more often than that, however dear it is."""
    lab = Lab(cost=0.05, interval=1.0)
    settled_interval(lab)
    looks = lab.scanner.looks
    lab.scanner.changes = {"a"}
    assert lab.engine.tick(settling=True) == {"a"} and lab.scanner.looks == looks + 1


def test_a_look_at_a_part_says_nothing_about_the_whole() -> None:
    """What a look at a few folders costs is no measure for the others."""
    lab = Lab(cost=0.02)
    interval = settled_interval(lab)
    lab.scanner.cost = 0.0
    for _ in range(20):
        lab.engine.look(expand=False, within=lambda folder: False)
    assert lab.engine.interval == interval


def test_globs_are_part_of_the_cost(tmp_path: Path) -> None:
    """Walking for globs is paid from the same budget: dear looks are dear walks, and as rare."""
    save(tmp_path / "a.html", "")
    lab = Lab(cost=0.05, extra=f"{tmp_path}/*.html")
    assert settled_interval(lab) == pytest.approx(5.0) and len(lab.scanner) == 1
    save(tmp_path / "b.html", "")
    lab.now += 4.9
    assert lab.engine.tick(settling=True) == set() and len(lab.scanner) == 1
    lab.now += 5.1
    lab.engine.tick()
    assert len(lab.scanner) == 2


# -- what is said ----------------------------------------------------------------------------------------------------


def test_told_once_in_one_line() -> None:
    """The log has one line: what a look costs, how often it looks now, and the setting that says so."""
    lab = Lab(cost=0.02)
    lab.scanner.watch("/a", None)
    lab.scanner.watch("/b", None)
    lab.run(500.0)
    (line,) = lab.told
    assert "\n" not in line
    for part in ("2 files", " s instead of 0.25 s", "budget = 0.01", "watchfiles"):
        assert part in line
    lab.scanner.cost = 0.0
    lab.run(100.0)
    lab.scanner.cost = 0.02
    lab.run(100.0)
    assert len(lab.told) == 1


@pytest.mark.parametrize(("cost", "lines"), [(0.0036, 0), (0.0039, 1)])
def test_a_little_more_is_not_worth_a_line(cost: float, lines: int) -> None:
    """Up to half as long again is nothing to talk about."""
    lab = Lab(cost=cost)
    settled_interval(lab)
    assert len(lab.told) == lines


def test_describe() -> None:
    """It says how often it looks now, not how often it was asked to."""
    lab = Lab(cost=0.02)
    assert lab.engine.describe() == "every 0.25 s (stat engine)"
    settled_interval(lab)
    assert lab.engine.describe() == "every 2 s (stat engine)"


def test_by_the_cpu_time_of_its_own_thread(tmp_path: Path) -> None:
    """Without clocks given it measures its own thread: real looks at a few files are far below the budget."""
    settings = Settings(engine="stat", interval=0.25, budget=0.1)
    scanner = Scanner()
    told: list[str] = []
    engine = StatEngine(settings, Files(settings, str(tmp_path)), scanner, told.append)
    for number in range(10):
        scanner.watch(str(save(tmp_path / f"{number}.py", "")), None)
    assert len(engine.look(expand=True)) == 10
    for _ in range(10):
        assert engine.look(expand=True) == set()
    assert engine.interval == 0.25 and told == [] and engine.reader is None
    assert engine.pause() <= 0.25
    engine.close()
    engine.leave()
