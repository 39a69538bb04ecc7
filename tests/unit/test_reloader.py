"""What to do about a change, state by state; no file, no clock, no process."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wsgi_reload_hooks.core.refusal import Refusal
from wsgi_reload_hooks.reload.reloader import Reloader, State
from wsgi_reload_hooks.watching.signature import MISSING, UNKNOWN, Digest, Digests, Signature

pytestmark = pytest.mark.unit

BROKEN = Refusal("NameError: x", "a.py", 1)
OTHER = Refusal("NameError: y", "a.py", 1)


class Disk(Digests):
    """Contents by path, without a disk."""

    def __init__(self) -> None:
        super().__init__()
        self.contents: dict[str, Digest] = {}

    def now(self, path: str) -> Digest:
        return self.contents.get(path, MISSING)

    def at(self, path: str, seen: Signature | None) -> Digest:
        raise NotImplementedError


class Case:
    """A reloader whose service has loaded `a.py` and `b.py`, and what it said at debug."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.lines: list[str] = []
        self.reloader = Reloader(self.disk, self.lines.append)
        for path in ("a.py", "b.py"):
            self.disk.contents[path] = b"1"
            self.reloader.serves(path, b"1")

    def save(self, path: str, content: Digest | None) -> bool:
        """Save it (None: delete it), and have the change noticed."""
        if content is None:
            del self.disk.contents[path]
        else:
            self.disk.contents[path] = content
        return self.reloader.changed([path])

    def begin(self, *loaded: str) -> set[str]:
        """An attempt whose workers load these files from disk as it is."""
        pending = self.reloader.begin()
        for path in loaded:
            self.reloader.tried(path, self.disk.now(path))
        return pending

    def good(self, *loaded: str) -> None:
        """An attempt that goes into service."""
        self.begin(*(loaded or ("a.py", "b.py")))
        self.reloader.proven()
        self.reloader.switched()

    def bad(self, *loaded: str, why: Refusal = BROKEN) -> bool:
        """An attempt that is refused; whether that is news."""
        self.begin(*loaded)
        return self.reloader.refused(why)

    def idle(self) -> bool:
        reloader = self.reloader
        return reloader.state is State.IDLE and not reloader.wanted and not reloader.pending


@pytest.fixture
def case() -> Case:
    """A server at rest."""
    return Case()


# -- IDLE ------------------------------------------------------------------------------------------------------------


def test_change_in_idle_is_wanted(case: Case) -> None:
    """At rest, a changed, a new and a deleted file are to be served."""
    assert case.save("a.py", b"2") and case.reloader.wanted
    assert case.begin() == {"a.py"} and not case.reloader.wanted
    case = Case()
    assert case.save("a.py", None) and case.begin() == {"a.py"}
    case = Case()
    assert case.save("new.py", b"1") and case.begin() == {"new.py"}


def test_touch_in_idle_is_nothing(case: Case) -> None:
    """A file that was touched, or saved as it was, is nothing to do."""
    case.save("a.py", b"1")
    assert case.idle()


def test_changes_add_up(case: Case) -> None:
    """All that changed before an attempt begins is part of it."""
    case.save("a.py", b"2")
    case.save("b.py", b"2")
    assert case.begin() == {"a.py", "b.py"}


def test_new_name_in_a_folder(case: Case) -> None:
    """A folder with new names in it is something to do."""
    assert case.reloader.changed([], ["site-packages"]) and case.reloader.wanted
    assert case.begin() == {"site-packages"}


def test_request(case: Case) -> None:
    """A reload that is asked for happens though nothing changed, once."""
    case.reloader.asked("HUP")
    assert case.reloader.wanted and case.begin("a.py", "b.py") == set()
    case.reloader.proven()
    case.reloader.switched()
    assert case.idle() and case.reloader.request is None


def test_there_and_back_before_it_began(case: Case) -> None:
    """A change that is undone before its attempt began is nothing to do."""
    case.save("a.py", b"2")
    case.save("a.py", b"1")
    assert case.idle()


def test_there_and_back_does_not_take_back_a_request(case: Case) -> None:
    """A request stands, whatever the files do."""
    case.reloader.asked("HUP")
    case.save("a.py", b"2")
    case.save("a.py", b"1")
    assert case.reloader.wanted and case.begin() == set()


def test_workers_that_loaded_different_contents(case: Case) -> None:
    """Where workers in service loaded different contents of a file, any content on disk is news."""
    case.reloader.serves("lazy.py", b"1")
    case.reloader.serves("lazy.py", b"2")
    assert case.reloader.service["lazy.py"] == UNKNOWN
    assert case.save("lazy.py", b"2") and case.reloader.wanted


def test_listed_files(case: Case) -> None:
    """Listed files count without being loaded, and stay in service when nobody loads them."""
    case.disk.contents["conf.yaml"] = b"1"
    case.reloader.listed(["conf.yaml", "gone.yaml"])
    case.save("conf.yaml", b"1")
    case.save("gone.yaml", b"1")
    case.save("gone.yaml", None)
    case.reloader.wanted = False
    assert not case.reloader.pending
    case.save("conf.yaml", b"2")
    case.good()
    assert case.reloader.service["conf.yaml"] == b"2" and case.reloader.service["gone.yaml"] == MISSING
    case.save("conf.yaml", b"2")
    assert case.idle()


# -- PROVING ---------------------------------------------------------------------------------------------------------


def test_change_during_the_attempt_starts_it_over(case: Case) -> None:
    """A file that is saved while new workers boot starts the attempt over, with all changes."""
    case.save("a.py", b"2")
    case.begin()
    assert case.save("b.py", b"2") and case.reloader.wanted and case.reloader.state is State.PROVING
    assert case.begin() == {"a.py", "b.py"}


def test_what_the_attempt_has_is_no_news(case: Case) -> None:
    """A late word about a change that the attempt has already loaded does not start it over."""
    case.save("a.py", b"2")
    case.begin("a.py")
    assert not case.reloader.changed(["a.py"]) and not case.reloader.wanted


def test_there_and_back_during_the_attempt(case: Case) -> None:
    """When all is undone while new workers boot, nothing is wanted any more."""
    case.save("a.py", b"2")
    case.begin()
    case.save("a.py", b"1")
    assert case.idle()


def test_outdated_attempt(case: Case) -> None:
    """An attempt knows which of its files differ on disk by now, and which its workers disagree about."""
    case.save("a.py", b"2")
    case.begin("a.py", "b.py")
    assert case.reloader.outdated() == set()
    case.disk.contents["b.py"] = b"2"
    assert case.reloader.outdated() == {"b.py"}
    case.reloader.tried("a.py", b"3")
    assert case.reloader.outdated() == {"a.py", "b.py"}


def test_request_during_the_attempt(case: Case) -> None:
    """A request while new workers boot starts them over."""
    case.save("a.py", b"2")
    case.begin()
    case.reloader.asked("HUP")
    assert case.reloader.wanted and case.begin() == {"a.py"}


# -- SWITCHING -------------------------------------------------------------------------------------------------------


def test_what_was_loaded_is_in_service(case: Case) -> None:
    """After a good attempt, what its workers loaded is in service, and only that."""
    case.save("a.py", b"2")
    case.save("b.py", b"2")
    case.good("a.py", "new.py")
    assert case.idle()
    assert set(case.reloader.service) == {"a.py", "new.py"}
    case.save("a.py", b"2")
    assert case.idle()
    case.save("a.py", b"1")
    assert case.reloader.wanted


def test_change_during_the_switch_follows(case: Case) -> None:
    """A change while the new workers take over is the next attempt."""
    case.save("a.py", b"2")
    case.begin("a.py", "b.py")
    assert case.reloader.proven() == {"a.py"}
    case.save("b.py", b"2")
    case.reloader.switched()
    assert case.reloader.wanted and case.begin() == {"b.py"}


# -- REFUSED ---------------------------------------------------------------------------------------------------------


def test_refused_change_stays_pending(case: Case) -> None:
    """A refused change is part of each attempt until it is repaired."""
    case.save("a.py", b"broken")
    assert case.bad() and case.reloader.state is State.REFUSED and not case.reloader.wanted
    assert case.save("b.py", b"2")
    assert case.begin() == {"a.py", "b.py"}
    assert not case.reloader.refused(BROKEN)
    assert case.save("a.py", b"repaired") and case.begin("a.py", "b.py") == {"a.py", "b.py"}
    case.reloader.proven()
    case.reloader.switched()
    assert case.idle()


def test_same_refusal_is_told_once(case: Case) -> None:
    """The same refusal is news once, another one is, and after a good reload or a request each is again."""
    case.save("a.py", b"broken")
    assert case.bad()
    case.save("a.py", b"broken still")
    assert not case.bad()
    case.save("a.py", b"broken otherwise")
    assert case.bad(why=OTHER)
    case.reloader.asked("HUP")
    assert case.bad(why=OTHER)
    case.save("a.py", b"good")
    case.good()
    case.save("a.py", b"broken")
    assert case.bad(why=OTHER)


def test_touch_of_what_was_refused(case: Case) -> None:
    """To touch a refused file is no reason to try again."""
    case.save("a.py", b"broken")
    case.bad("b.py")
    case.save("a.py", b"broken")
    case.save("b.py", b"1")
    assert case.reloader.state is State.REFUSED and not case.reloader.wanted


def test_touch_of_what_the_attempt_did_not_reach(case: Case) -> None:
    """To touch a file that was not part of the refused attempt is no reason to try again."""
    case.save("a.py", b"broken")
    case.bad()
    case.save("b.py", b"1")
    assert case.reloader.state is State.REFUSED and not case.reloader.wanted


def test_undone_change(case: Case) -> None:
    """A refused change that is undone leads back to rest without a reload."""
    case.save("a.py", b"broken")
    case.bad()
    assert case.save("a.py", b"1")
    assert case.idle()


def test_undone_change_with_a_new_file(case: Case) -> None:
    """A refused change that brought a new file is undone when that file is gone, too."""
    case.save("a.py", b"imports new.py")
    case.save("new.py", b"broken")
    case.bad("a.py", "new.py")
    case.save("a.py", b"1")
    case.save("new.py", None)
    assert case.idle()


def test_refusal_after_all_was_undone(case: Case) -> None:
    """The same mistake made again, after it was undone, is told again."""
    case.save("a.py", b"broken")
    assert case.bad()
    case.save("a.py", b"1")
    case.save("a.py", b"broken")
    assert case.bad()


def test_half_undone(case: Case) -> None:
    """When one of two refused changes is undone the other one is tried again."""
    case.save("a.py", b"broken")
    case.save("b.py", b"broken")
    case.bad()
    case.save("a.py", b"1")
    assert case.reloader.wanted and case.begin() == {"b.py"}


def test_new_name_may_repair(case: Case) -> None:
    """A new name in a folder is a reason to try again."""
    case.save("a.py", b"imports what is not there")
    case.bad("a.py")
    assert case.reloader.changed([], ["/project"]) and case.reloader.wanted
    assert case.begin() == {"a.py", "/project"}


def test_saved_while_it_was_refused(case: Case) -> None:
    """A file that was saved between its loading and its refusal is tried again at once."""
    case.save("a.py", b"broken")
    case.begin("a.py")
    case.disk.contents["a.py"] = b"repaired"
    assert case.reloader.refused(BROKEN) and case.reloader.wanted


def test_refused_request(case: Case) -> None:
    """A refused request is over: it is not repeated with the next change, and without one the server is at rest."""
    case.reloader.asked("HUP")
    assert case.bad("a.py", "b.py") and case.reloader.request is None and case.idle()
    case.save("a.py", b"2")
    assert case.begin() == {"a.py"}


# -- the first start -------------------------------------------------------------------------------------------------


def test_failed_start(case: Case) -> None:
    """When the very first start fails nothing is in service, and a repair of what was loaded is wanted."""
    reloader = Reloader(case.disk)
    case.disk.contents.update({"a.py": b"broken", "conf.yaml": b"1"})
    reloader.listed(["conf.yaml"])
    reloader.failed_start({"a.py": b"broken"})
    assert reloader.refused(BROKEN) and not reloader.wanted
    assert not reloader.changed(["a.py"])
    case.disk.contents["a.py"] = b"good"
    assert reloader.changed(["a.py"]) and reloader.wanted and "a.py" in reloader.begin()


def test_failed_start_and_a_listed_file(case: Case) -> None:
    """After a failed start a listed file may bring the repair."""
    reloader = Reloader(case.disk)
    case.disk.contents["conf.yaml"] = b"1"
    reloader.listed(["conf.yaml"])
    reloader.failed_start({})
    reloader.refused(BROKEN)
    case.disk.contents["conf.yaml"] = b"2"
    assert reloader.changed(["conf.yaml"]) and reloader.wanted


def test_start_that_failed_before_it_loaded_anything(case: Case) -> None:
    """When the very first start fails before it has loaded a file of ours, that is a refusal, too."""
    reloader = Reloader(case.disk)
    reloader.listed(["conf.yaml"])
    reloader.failed_start({})
    assert reloader.refused(BROKEN) and reloader.state is State.REFUSED and not reloader.wanted
    assert reloader.changed([], ["/project"]) and reloader.wanted


def test_start_that_failed_for_some(case: Case) -> None:
    """When other workers of the first start make it, the server is at rest."""
    case.reloader.failed_start({"a.py": b"1"})
    case.reloader.refused(BROKEN)
    case.reloader.served_after_all()
    assert case.idle()


# -- all of it -------------------------------------------------------------------------------------------------------


def test_states_are_told(case: Case) -> None:
    """Each change of state is one line, and only a change is."""
    case.save("a.py", b"broken")
    case.bad()
    case.bad()
    case.save("a.py", b"2")
    case.good()
    assert case.lines == [
        "IDLE -> PROVING",
        "PROVING -> REFUSED",
        "REFUSED -> PROVING",
        "PROVING -> REFUSED",
        "REFUSED -> PROVING",
        "PROVING -> SWITCHING",
        "SWITCHING -> IDLE",
    ]


FILES = ("a.py", "b.py", "c.py")


@hypothesis_settings(deadline=None, max_examples=300, database=None)
@given(
    st.lists(st.tuples(st.sampled_from(FILES), st.sampled_from([b"1", b"2", b"broken"]), st.booleans()), max_size=30)
)
def test_last_good_save_wins(saves: list[tuple[str, Digest, bool]]) -> None:
    """Whatever is saved, while at rest or while an attempt runs: at the end the disk is in service, or is refused."""
    case = Case()
    case.disk.contents["c.py"] = b"1"
    case.reloader.serves("c.py", b"1")

    def settle(during: Iterable[tuple[str, Digest]] = ()) -> None:
        for _ in range(20):
            if not case.reloader.wanted:
                return
            case.begin(*FILES)
            for path, content in during:
                case.save(path, content)
            during = ()
            if case.reloader.state is not State.PROVING or case.reloader.wanted:
                continue
            if b"broken" in case.disk.contents.values():
                case.reloader.refused(BROKEN)
            else:
                case.reloader.proven()
                case.reloader.switched()
        raise AssertionError("it does not come to rest")

    for path, content, at_rest in saves:
        if at_rest:
            case.save(path, content)
            settle()
        else:
            case.save("a.py", b"3")
            settle([(path, content)])
    disk_is_broken = b"broken" in case.disk.contents.values()
    assert (case.reloader.state is State.REFUSED) == disk_is_broken
    if not disk_is_broken:
        assert case.idle() and case.reloader.service == case.disk.contents
    assert case.reloader.pending >= {
        path for path, content in case.disk.contents.items() if case.reloader.service[path] != content
    }


def test_a_pause_holds_back_changes_alone(case: Case) -> None:
    """A worker that did not load what is in service is tried again; what was saved amid a refused attempt waits."""
    reloader = case.reloader
    reloader.paused = True
    reloader.retry()
    assert reloader.due
    reloader.asked("HUP")
    case.begin("a.py")
    case.disk.contents["a.py"] = b"2"
    reloader.refused(BROKEN)
    assert reloader.wanted and not reloader.due
    reloader.paused = False
    assert reloader.due
