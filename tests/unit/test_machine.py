"""The reload machine: single sequences, and a state machine over every order of events."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wsgi_reload_hooks.core.refusal import Refusal
from wsgi_reload_hooks.reload.commands import Attempt, CancelTrial, Command, News, Phase, Report, StartTrial, Switch
from wsgi_reload_hooks.reload.machine import ReloadMachine
from wsgi_reload_hooks.watching.signature import MISSING

pytestmark = pytest.mark.unit

WHY = Refusal("NameError: x", "/shop/app.py", 3)


class World:
    """A machine with a disk: `save` changes a file, and the machine is told."""

    def __init__(self) -> None:
        self.machine = ReloadMachine()
        self.disk = {"a": b"a1", "b": b"b1"}
        self.commands: list[Command] = []
        self.now = 100.0
        for path, content in self.disk.items():
            self.machine.loaded(path, content)
        self.machine.served()

    def do(self, commands: list[Command]) -> list[Command]:
        """Note *commands*; the machine must never have more than one trial."""
        self.commands += commands
        return commands

    def save(self, path: str, content: bytes | None) -> list[Command]:
        """Save it (None: delete it), and notice that."""
        if content is None:
            self.disk.pop(path, None)
        else:
            self.disk[path] = content
        return self.do(self.machine.changed({path: self.content(path)}, (), self.now))

    def content(self, path: str) -> bytes:
        return self.disk.get(path, MISSING)

    def found(self) -> dict[str, bytes]:
        return {path: self.content(path) for path in self.machine.tried}

    def phase(self) -> Phase:
        return self.machine.phase

    def attempt(self) -> Attempt:
        assert self.machine.attempt is not None
        return self.machine.attempt

    def load(self) -> None:
        """The trial loads all that is on disk."""
        for path, content in self.disk.items():
            self.machine.loaded(path, content, self.attempt())

    def passed(self) -> list[Command]:
        return self.do(self.machine.passed(self.attempt(), self.found(), self.now))

    def failed(self, why: Refusal = WHY) -> list[Command]:
        return self.do(self.machine.failed(self.attempt(), why, self.found(), self.now))

    def switched(self) -> list[Command]:
        return self.do(self.machine.switched(self.attempt(), self.now))


@pytest.fixture
def world() -> World:
    return World()


def kinds(commands: list[Command]) -> list[str]:
    """The commands in one word each; of a report its news."""
    return [each.news.value if isinstance(each, Report) else type(each).__name__ for each in commands]


def test_good_save_is_tried_switched_and_reported(world: World) -> None:
    """The report has the paths and the seconds from the save to the switch."""
    assert kinds(world.save("a", b"a2")) == ["trying", "StartTrial"]
    assert world.machine.phase is Phase.TRYING and world.attempt().paths == {"a"}
    world.load()
    world.now += 1.5
    assert kinds(world.passed()) == ["Switch"]
    (report,) = world.switched()
    assert isinstance(report, Report)
    assert report.news is News.RELOADED
    assert report.paths == {"a"} and report.seconds == 1.5
    assert world.phase() is Phase.IDLE and world.machine.pending == set()
    assert world.machine.service == {"a": b"a2", "b": b"b1"}


def test_touch_is_no_change(world: World) -> None:
    """The same content does not start anything."""
    assert world.save("a", b"a1") == []
    assert world.machine.phase is Phase.IDLE


def test_refusal_is_told_once_and_then_still_refused(world: World) -> None:
    """Another save with the same fault is told in one short line."""
    world.save("a", b"bad")
    world.load()
    assert kinds(world.failed()) == ["refused"]
    assert world.machine.phase is Phase.REFUSED and world.machine.service["a"] == b"a1"
    assert kinds(world.save("a", b"bad again")) == ["trying", "StartTrial"]
    assert kinds(world.failed()) == ["still refused"]
    assert kinds(world.save("b", b"b2")) == ["trying", "StartTrial"]
    assert kinds(world.failed(Refusal("SyntaxError: y", "/shop/b.py", 1))) == ["refused"]


def test_repair_of_another_file_still_tries_the_refused_one(world: World) -> None:
    """What was refused stays pending until it is in service or taken back."""
    world.save("a", b"bad")
    world.load()
    world.failed()
    world.save("b", b"b2")
    assert world.attempt().paths == {"a", "b"}


def test_refused_save_that_is_taken_back_is_reported_as_reverted(world: World) -> None:
    """Nothing is tried; the next refusal is news again."""
    world.save("a", b"bad")
    world.load()
    world.failed()
    assert kinds(world.save("a", b"a1")) == ["reverted"]
    assert world.machine.phase is Phase.IDLE
    world.save("a", b"bad")
    assert kinds(world.failed()) == ["refused"]


def test_save_during_a_trial_cancels_it_and_its_result_is_ignored(world: World) -> None:
    """Workers would load the disk, which is another one by now."""
    world.save("a", b"a2")
    first = world.attempt()
    assert kinds(world.save("a", b"a3")) == ["CancelTrial", "trying", "StartTrial"]
    assert world.machine.passed(first, {}, world.now) == []
    assert world.machine.failed(first, WHY, {}, world.now) == []
    assert world.machine.phase is Phase.TRYING


def test_save_that_the_trial_met_before_it_was_noticed_starts_another_trial(world: World) -> None:
    """What was proven is not what is on disk."""
    world.save("a", b"a2")
    world.load()
    world.disk["b"] = b"b2"
    assert kinds(world.passed()) == ["trying", "StartTrial"]
    assert world.attempt().paths == {"a", "b"}


def test_save_during_a_switch_overtakes_it_and_carries_its_paths(world: World) -> None:
    """The report of the second one names the files of both, from the first save on."""
    world.save("a", b"a2")
    world.load()
    world.passed()
    unfinished = world.attempt()
    world.now += 1
    assert kinds(world.save("b", b"b2")) == ["trying", "StartTrial"]
    assert world.machine.switched(unfinished, world.now) == []
    world.load()
    world.passed()
    world.now += 1
    (report,) = world.switched()
    assert isinstance(report, Report) and report.paths == {"a", "b"} and report.seconds == 2


def test_reverted_overtaking_lets_the_switch_go_on(world: World) -> None:
    """The first switch is finished and reported."""
    world.save("a", b"a2")
    world.load()
    world.passed()
    unfinished = world.attempt()
    world.save("b", b"b2")
    assert kinds(world.save("b", b"b1")) == ["CancelTrial", "reverted"]
    assert world.machine.phase is Phase.SWITCHING and world.attempt() is unfinished
    assert kinds(world.switched()) == ["reloaded"]


def test_pause_holds_changes_and_never_requests(world: World) -> None:
    """A HUP is carried out in a pause, a save waits for its end."""
    world.machine.pause(True, world.now)
    assert world.save("a", b"a2") == [] and world.machine.held
    assert kinds(world.machine.pause(False, world.now)) == ["trying", "StartTrial"]
    world.machine.pause(True, world.now)
    assert kinds(world.machine.requested("HUP", world.now)) == ["CancelTrial", "trying", "StartTrial"]
    assert world.attempt().request == "HUP"


def test_refused_request_with_an_unchanged_disk_leaves_it_idle(world: World) -> None:
    """A HUP that fails says nothing about a file: what serves can be replaced as before."""
    world.machine.requested("HUP", world.now)
    assert kinds(world.failed()) == ["refused"]
    assert world.machine.phase is Phase.IDLE


def test_unavailable_trial_is_told_once_and_tried_again(world: World) -> None:
    """No process, no memory: the code is not refused."""
    world.save("a", b"a2")
    assert kinds(world.machine.unavailable(world.attempt(), "no room", world.now)) == ["unavailable"]
    deadline = world.machine.deadline
    assert deadline is not None and world.machine.tick(deadline - 0.1) == []
    assert kinds(world.machine.tick(deadline)) == ["trying", "StartTrial"]
    assert world.machine.unavailable(world.attempt(), "no room", world.now) == []
    assert kinds(world.save("a", b"a3")) == ["trying", "StartTrial"]
    world.load()
    assert kinds(world.passed()) == ["Switch"]


def test_retry_without_a_change_reports_only_what_is_new(world: World) -> None:
    """Tried again every few seconds, the same refusal is no news; another one is, and so is a change."""
    world.save("a", b"bad")
    world.load()
    assert kinds(world.failed()) == ["refused"]
    assert kinds(world.do(world.machine.retry(world.now))) == ["StartTrial"]
    assert world.failed() == []
    world.do(world.machine.retry(world.now))
    assert kinds(world.failed(Refusal("OSError: y", "/shop/a.py", 1))) == ["refused"]
    world.do(world.machine.retry(world.now))
    assert kinds(world.save("a", b"bad again")) == ["CancelTrial", "trying", "StartTrial"]
    assert kinds(world.failed(Refusal("OSError: y", "/shop/a.py", 1))) == ["still refused"]
    world.do(world.machine.retry(world.now))
    assert kinds(world.passed()) == ["Switch"]
    assert kinds(world.switched()) == ["reloaded"]


def test_successor_of_a_broken_first_start_does_not_report_it_again() -> None:
    """Nothing has served yet, and the refusal is known: a repair is the first start."""
    machine = ReloadMachine()
    machine.restored({}, None, WHY, served=False)
    loaded = {"a": b"bad"}
    assert machine.lost(WHY, loaded, loaded, 1.0) == []
    assert machine.phase is Phase.REFUSED
    machine.changed({"a": b"good"}, (), 2.0)
    assert machine.attempt is not None and machine.attempt.first


def test_broken_first_start_is_refused_once_for_all_workers() -> None:
    """Its repair is tried though no worker has ever served."""
    machine = ReloadMachine()
    loaded = {"a": b"bad"}
    assert kinds(machine.lost(WHY, loaded, loaded, 1.0)) == ["refused"]
    assert machine.lost(WHY, loaded, loaded, 1.1) == []
    assert machine.phase is Phase.REFUSED
    commands = machine.changed({"a": b"good"}, (), 2.0)
    assert kinds(commands) == ["trying", "StartTrial"]
    assert machine.attempt is not None and machine.attempt.first


def test_first_start_that_some_workers_survive_is_served() -> None:
    """One worker failed, the others are ready: nothing is refused."""
    machine = ReloadMachine()
    machine.lost(WHY, {"a": b"a1"}, {"a": b"a1"}, 1.0)
    machine.served()
    assert machine.phase is Phase.IDLE and machine.pending == set()


def test_no_content_is_in_service_after_a_refused_first_start() -> None:
    """A listed file that has its first content again, which never served, is tried and not reported as reverted."""
    machine = ReloadMachine()
    machine.listed({"a": b"bad"})
    machine.requested("start", 1.0)
    assert machine.attempt is not None
    machine.failed(machine.attempt, WHY, {"a": b"bad"}, 1.0)
    assert machine.changed({"a": b"bad"}, (), 2.0) == []
    machine.changed({"a": b"worse"}, (), 3.0)
    machine.failed(machine.attempt, WHY, {"a": b"worse"}, 3.0)
    assert kinds(machine.changed({"a": b"bad"}, (), 4.0)) == ["trying", "StartTrial"]


@pytest.mark.parametrize("content", [b"a1", b"a2", None])
def test_stopped_program_is_started_by_any_save(world: World, content: bytes | None) -> None:
    """A touch and a deletion, too; each end is told, and the attempt is about the saved file alone."""
    for _ in range(2):
        assert kinds(world.machine.stopped(WHY, ["a", "b"], world.now)) == ["refused"]
        assert world.machine.phase is Phase.REFUSED
    assert kinds(world.save("a", content)) == ["trying", "StartTrial"]
    assert world.attempt().paths == {"a"} and not world.attempt().first
    world.load()
    assert kinds(world.passed()) == ["Switch"]
    assert kinds(world.switched()) == ["reloaded"]
    assert world.phase() is Phase.IDLE


def test_program_that_stops_during_a_trial_is_started_with_the_new_code(world: World) -> None:
    """The save is tried again, now that nothing serves; refused code waits for its repair."""
    world.save("a", b"a2")
    assert kinds(world.machine.stopped(WHY, ["a", "b"], world.now)) == [
        "CancelTrial",
        "refused",
        "trying",
        "StartTrial",
    ]
    world.failed()
    assert kinds(world.machine.stopped(WHY, ["a", "b"], world.now)) == ["refused"]


def test_lost_replacement_is_told_once_and_changes_nothing(world: World) -> None:
    """The code on disk is what serves: what this worker met may pass by itself."""
    assert kinds(world.machine.lost(WHY, {"a": b"a1"}, {"a": b"a1"}, world.now)) == ["not replaced"]
    assert world.machine.lost(WHY, {"a": b"a1"}, {"a": b"a1"}, world.now) == []
    assert world.machine.phase is Phase.IDLE


def test_successor_goes_on_with_an_unfinished_switch() -> None:
    """The leader died in the middle of it; the refusal that it told is not told again."""
    machine = ReloadMachine()
    unfinished = Attempt(7, frozenset("a"), None, 1.0, False)
    machine.restored({"a": b"a2"}, unfinished, WHY)
    assert machine.phase is Phase.SWITCHING
    assert kinds(machine.switched(unfinished, 2.0)) == ["reloaded"]
    machine.changed({"a": b"bad"}, (), 3.0)
    assert machine.attempt is not None
    assert kinds(machine.failed(machine.attempt, WHY, {"a": b"bad"}, 3.0)) == ["still refused"]


def test_files_that_are_left_out_are_not_reported_as_reloaded(world: World) -> None:
    """Only of the attempt that left them out."""
    world.save("a", b"a2")
    world.save("b", b"b2")
    world.machine.leave_out(world.attempt(), ["b"])
    world.load()
    world.passed()
    (report,) = world.switched()
    assert isinstance(report, Report) and report.paths == {"a"}
    world.save("b", b"b3")
    world.load()
    world.passed()
    (report,) = world.switched()
    assert isinstance(report, Report) and report.paths == {"b"}


def test_file_that_is_gone_for_good_is_forgotten(world: World) -> None:
    """It was loaded and removed: nothing of it is pending."""
    world.machine.forget(["a"])
    assert world.machine.in_service("a") is None
    world.save("b", b"b2")
    assert world.attempt().paths == {"b"}


CONTENTS = st.sampled_from([b"1", b"2", b"bad", None])


class Everything(RuleBasedStateMachine):
    """Saves, requests, pauses, and trials and switches that end at any moment, in every order.

    Content ``bad`` fails its trial. The old code is never lost, the last save wins, and a refusal is told once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.trial: Attempt | None = None
        self.switch: Attempt | None = None
        self.serving = dict(self.world.disk)
        self.loaded: dict[str, bytes] = {}
        self.told = 0

    def _do(self, commands: list[Command]) -> None:
        for each in commands:
            match each:
                case CancelTrial(attempt):
                    assert self.trial is attempt
                    self.trial = None
                case StartTrial(attempt):
                    assert self.trial is None
                    self.trial = attempt
                    self.loaded = dict(self.world.disk)
                case Switch(attempt):
                    assert b"bad" not in self.loaded.values(), "a broken save went into service"
                    assert attempt.paths is not None
                    self.switch, self.serving = attempt, dict(self.loaded)
                case Report(News.RELOADED, attempt):
                    assert attempt is self.switch
                    self.switch = None
                case Report(News.REFUSED):
                    self.told += 1
                case _:
                    pass

    @rule(path=st.sampled_from("ab"), content=CONTENTS)
    def save(self, path: str, content: bytes | None) -> None:
        self._do(self.world.save(path, content))

    @rule()
    def request(self) -> None:
        self._do(self.world.machine.requested("HUP", self.world.now))

    @rule(on=st.booleans())
    def pause(self, on: bool) -> None:
        self._do(self.world.machine.pause(on, self.world.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds
        self._do(self.world.machine.tick(self.world.now))

    @precondition(lambda self: self.trial is not None)
    @rule()
    def trial_ends(self) -> None:
        attempt, self.trial = self.trial, None
        assert attempt is not None
        for path, content in self.loaded.items():
            self.world.machine.loaded(path, content, attempt)
        if b"bad" in self.loaded.values():
            self._do(self.world.machine.failed(attempt, WHY, self.world.found(), self.world.now))
        else:
            self._do(self.world.machine.passed(attempt, self.world.found(), self.world.now))

    @precondition(lambda self: self.trial is not None)
    @rule()
    def trial_is_unavailable(self) -> None:
        attempt, self.trial = self.trial, None
        assert attempt is not None
        self._do(self.world.machine.unavailable(attempt, "no room", self.world.now))

    @precondition(lambda self: self.switch is not None)
    @rule()
    def switch_ends(self) -> None:
        assert self.switch is not None
        self._do(self.world.machine.switched(self.switch, self.world.now))

    @invariant()
    def what_serves_was_proven(self) -> None:
        assert b"bad" not in self.serving.values()

    @invariant()
    def trial_and_phase_agree(self) -> None:
        assert self.trial is None or self.world.machine.phase is Phase.TRYING

    def teardown(self) -> None:
        """Without pause and with time, all comes to rest: the disk is in service, or refused."""
        machine = self.world.machine
        self._do(machine.pause(False, self.world.now))
        for _ in range(20):
            if self.trial is not None:
                self.trial_ends()
            elif self.switch is not None and machine.phase is Phase.SWITCHING:
                self.switch_ends()
            else:
                self.wait(10.0)
        assert machine.phase in (Phase.IDLE, Phase.REFUSED)
        bad = b"bad" in self.world.disk.values()
        assert (machine.phase is Phase.REFUSED) == bool(bad and machine.pending)
        if not bad:
            assert self.serving == self.world.disk


TestEverything = Everything.TestCase
TestEverything.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
