"""Did a file change: signatures, contents, folders, and the baseline they are compared with."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from edits import LONG_AGO, date, save, save_atomically, without_rights
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wsgi_reload_hooks.watching.scanner import Folder, Scanner
from wsgi_reload_hooks.watching.signature import MISSING, UNKNOWN, Digests, Signature, known_signature, signature

pytestmark = pytest.mark.unit


def watched(*paths: Path) -> Scanner:
    scanner = Scanner()
    for path in paths:
        scanner.watch(str(path), signature(str(path)))
    return scanner


# -- the model -------------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c")
EDITS = ("save in place", "save atomically", "back-date", "touch", "delete", "rename", "chmod", "tick", "tick", "tick")


class Model:
    """What ought to be told, from what was done: each save and each touch makes a new version of its file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.versions: dict[str, int | None] = dict.fromkeys(NAMES)
        self.told = dict(self.versions)
        self.missed: set[str] = set()
        self.scanner = watched(*(root / name for name in NAMES))
        self._count = 0

    def do(self, edit: str, name: str, other: str) -> None:
        path = self.root / name
        there = self.versions[name] is not None
        if edit == "tick":
            self.tick()
        elif edit == "save in place":
            path.write_text("x")
            self._new_version(name)
        elif edit == "save atomically":
            save_atomically(path, "x")
            self._new_version(name)
        elif edit in ("touch", "back-date") and there:
            self._new_version(name, back=edit == "back-date")
        elif edit == "chmod" and there:
            path.chmod(0o600 if path.stat().st_mode & 0o044 else 0o644)
        elif edit == "delete" and there:
            path.unlink()
            self.versions[name] = None
        elif edit == "rename" and there and other != name:
            path.rename(self.root / other)
            self.versions[other], self.versions[name] = self.versions[name], None

    def tick(self) -> None:
        expected, missed = set(), set()
        for name, version in self.versions.items():
            if version is None and self.told[name] is not None and name not in self.missed:
                missed.add(name)
            elif version != self.told[name]:
                expected.add(str(self.root / name))
                self.told[name] = version
        self.missed = missed
        assert self.scanner.tick() == expected

    def _new_version(self, name: str, *, back: bool = False) -> None:
        # All within one second, and each nanosecond counts.
        self._count += 1
        date(self.root / name, LONG_AGO + (-self._count if back else self._count))
        self.versions[name] = self._count


@hypothesis_settings(deadline=None, max_examples=200, database=None)
@given(st.lists(st.tuples(st.sampled_from(EDITS), st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=40))
def test_any_sequence_of_edits(edits: list[tuple[str, str, str]]) -> None:
    """After any edits a tick tells exactly the files that differ from what was told last; gone counts at the second."""
    with tempfile.TemporaryDirectory() as folder:
        model = Model(Path(folder))
        for edit in edits:
            model.do(*edit)
        model.tick()
        model.tick()
        model.tick()
        assert model.told == model.versions


# -- single cases ----------------------------------------------------------------------------------------------------


def test_saved_between_two_ticks_by_rename(tmp_path: Path) -> None:
    """A file that is gone for one tick while it is saved is told once, when it is back."""
    path = save(tmp_path / "a", "x")
    scanner = watched(path)
    path.rename(tmp_path / "a.bak")
    assert scanner.tick() == set()
    save(path, "y")
    assert scanner.tick() == {str(path)}
    assert scanner.tick() == set()


def test_gone_and_back_unchanged_is_nothing(tmp_path: Path) -> None:
    """A file that is gone for one tick and comes back as it was is no change, however often."""
    path = save(tmp_path / "a", "x")
    scanner = watched(path)
    for _ in range(3):
        path.rename(tmp_path / "a.bak")
        assert scanner.tick() == set()
        (tmp_path / "a.bak").rename(path)
        assert scanner.tick() == set()


def test_watched_anew_after_it_was_gone(tmp_path: Path) -> None:
    """A file that was dropped while it was gone has its moment of grace again."""
    path = save(tmp_path / "a", "x")
    scanner = watched(path)
    path.unlink()
    assert scanner.tick() == set()
    scanner.watch_only(())
    scanner.tick()
    save(path, "x")
    scanner.watch(str(path), signature(str(path)))
    path.unlink()
    assert scanner.tick() == set()
    assert scanner.tick() == {str(path)}


def test_baseline_from_before(tmp_path: Path) -> None:
    """A file is compared with the baseline it was given, and a second baseline does not count."""
    path = save(tmp_path / "a", "x")
    before = signature(str(path))
    save(path, "longer")
    scanner = Scanner()
    scanner.watch(str(path), before)
    scanner.watch(str(path), signature(str(path)))
    assert scanner.tick() == {str(path)}


def test_born(tmp_path: Path) -> None:
    """A file that was watched before it existed is told when it appears."""
    scanner = watched(tmp_path / "a")
    assert scanner.tick() == set()
    save(tmp_path / "a", "x")
    assert scanner.tick() == {str(tmp_path / "a")}


def test_only_what_is_kept(tmp_path: Path) -> None:
    """Files that are not kept are watched no more, the others keep their baseline."""
    a, b = save(tmp_path / "a", "x"), save(tmp_path / "b", "x")
    scanner = watched(a, b)
    save(a, "longer")
    save(b, "longer")
    scanner.watch_only([str(b), str(tmp_path / "never watched")])
    assert len(scanner) == 1
    assert scanner.tick() == {str(b)}


def test_unasked_is_no_change() -> None:
    """A file that cannot be asked because of permissions has neither changed nor vanished."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        path = save(root / "closed" / "a", "x")
        scanner = watched(path)
        (root / "closed").chmod(0)
        try:
            assert without_rights(lambda: [scanner.tick() for _ in range(3)] == [set()] * 3)
            assert without_rights(lambda: known_signature(str(path)) is None)
            assert without_rights(lambda: Digests().now(str(path)) == UNKNOWN)
        finally:
            (root / "closed").chmod(0o755)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "loop", "file/below"])
def test_impossible_paths(tmp_path: Path, name: str) -> None:
    """A path that cannot be is no error, neither as a baseline nor at a tick."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    save(tmp_path / "file", "")
    path = str(tmp_path / name)
    scanner = Scanner()
    scanner.watch(path, known_signature(path))
    assert [scanner.tick(), scanner.tick()] == [set(), set()]


def test_file_becomes_a_folder(tmp_path: Path) -> None:
    """A module that becomes a package is a change."""
    path = save(tmp_path / "a", "x")
    scanner = watched(path)
    path.unlink()
    path.mkdir()
    assert scanner.tick() == {str(path)}


def test_two_threads(tmp_path: Path) -> None:
    """One thread may tick and add files while another one chooses what is kept."""
    names = [str(tmp_path / str(number)) for number in range(300)]
    scanner = Scanner()
    done = threading.Event()
    failures: list[BaseException] = []

    def tick() -> None:
        try:
            while not done.is_set():
                for name in names:
                    scanner.watch(name, None)
                scanner.tick()
        except BaseException as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=tick)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(300):
            scanner.watch_only(names[::2])
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert failures == []


# -- folders ---------------------------------------------------------------------------------------------------------


def listing(path: str) -> frozenset[str]:
    return frozenset(name for name in os.listdir(path) if name.endswith(".py")) if os.path.isdir(path) else frozenset()


def test_folder_tells_births_and_deaths(tmp_path: Path) -> None:
    """A folder tells when a name that counts appears or vanishes, and nothing else."""
    folder = Folder(str(tmp_path), listing)
    now = (LONG_AGO + 10**10) / 1e9
    date(tmp_path)
    assert not folder.changed(now)
    save(tmp_path / "README", "")
    assert not folder.changed(now)
    save(tmp_path / "a.py", "")
    assert folder.changed(now) and not folder.changed(now)
    save(tmp_path / "a.py", "saved")
    assert not folder.changed(now)
    (tmp_path / "a.py").unlink()
    assert folder.changed(now)


def test_births_within_one_tick_of_the_clock(tmp_path: Path) -> None:
    """A folder that was touched just now is listed again, though its time stands still."""
    folder = Folder(str(tmp_path), listing)
    date(tmp_path)
    just_now = LONG_AGO / 1e9 + 0.5
    assert not folder.changed(just_now)
    save(tmp_path / "a.py", "")
    date(tmp_path)
    assert folder.changed(just_now)


def test_quiet_folder_is_not_listed(tmp_path: Path) -> None:
    """A folder whose time is old and has not moved costs one stat and no listing."""
    asked = []

    def names(path: str) -> frozenset[str]:
        asked.append(path)
        return listing(path)

    date(tmp_path)
    folder = Folder(str(tmp_path), names)
    later = LONG_AGO / 1e9 + 10
    folder.changed(later)
    del asked[:]
    assert not folder.changed(later) and not folder.changed(later)
    assert asked == []


def test_folder_that_vanishes_and_returns(tmp_path: Path) -> None:
    """A folder that is gone has no names, and has them again when it is back."""
    place = tmp_path / "pkg"
    save(place / "a.py", "")
    folder = Folder(str(place), listing)
    place.rename(tmp_path / "away")
    assert folder.changed(1e9) and not folder.changed(1e9)
    (tmp_path / "away").rename(place)
    assert folder.changed(1e9)


def test_scanner_tells_folders_among_the_files(tmp_path: Path) -> None:
    """A changed folder is told by its own path, beside the files."""
    path = save(tmp_path / "x" / "a.py", "")
    scanner = watched(path)
    scanner.watch_only([str(path)], [Folder(str(tmp_path / "x"), listing)])
    assert scanner.tick() == set()
    save(tmp_path / "x" / "b.py", "")
    assert scanner.tick() == {str(tmp_path / "x")}
    scanner.watch_only([str(path)])
    save(tmp_path / "x" / "c.py", "")
    assert scanner.tick() == set()


# -- contents --------------------------------------------------------------------------------------------------------


def test_same_content_same_digest(tmp_path: Path) -> None:
    """Contents are compared, not times: a touch and a way there and back lead to the same digest."""
    path, digests = save(tmp_path / "a", "one"), Digests()
    first = digests.now(str(path))
    date(path, LONG_AGO)
    assert digests.now(str(path)) == first
    save_atomically(path, "two")
    second = digests.now(str(path))
    save_atomically(path, "one")
    assert digests.now(str(path)) == first != second


def test_same_second_same_size(tmp_path: Path) -> None:
    """Another text of the same size and second has another digest."""
    path, digests = date(save(tmp_path / "a", "one")), Digests()
    first = digests.now(str(path))
    date(save(path, "two"), LONG_AGO + 1)
    assert digests.now(str(path)) != first


def test_content_as_it_was_seen(tmp_path: Path) -> None:
    """The content that belongs to an older signature is known only if it was read at the time."""
    path = str(date(save(tmp_path / "a", "one")))
    seen = signature(path)
    digests, late = Digests(), Digests()
    content = digests.at(path, seen)
    save(tmp_path / "a", "two")
    assert digests.at(path, seen) == content
    assert late.at(path, seen) == UNKNOWN
    assert digests.at(path, None) == MISSING


def test_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A content that was read while it changed belongs to no signature."""
    path = date(save(tmp_path / "a", "one"))
    seen = signature(str(path))
    answers = iter([seen, Signature(1, 2, 3)])
    monkeypatch.setattr("wsgi_reload_hooks.watching.signature.signature", lambda path: next(answers))
    assert Digests().now(str(path)) == UNKNOWN


def test_contents_are_read_once(tmp_path: Path) -> None:
    """As long as the signature stands, the file is not read again; forgotten, it is."""
    path = str(date(save(tmp_path / "a", "one")))
    digests = Digests()
    first = digests.now(path)
    status = os.stat(path)
    with open(path, "r+") as file:
        file.write("two")
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert digests.now(path) == first
    digests.forget([path])
    assert digests.now(path) == first
    digests.forget([])
    assert digests.now(path) != first


def test_missing_and_unknown(tmp_path: Path) -> None:
    """A file that is not there is missing; of a folder, a pipe or a circle of links nobody can say."""
    digests = Digests()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    assert digests.now(str(tmp_path / "nothing")) == MISSING
    assert digests.now(str(tmp_path)) == UNKNOWN
    assert digests.now(str(tmp_path / "loop")) == UNKNOWN
    assert digests.now(str(tmp_path / "pipe")) == UNKNOWN


def test_very_large_files_are_not_read(tmp_path: Path) -> None:
    """A very large file is told by its signature: a touch is a change then."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(20 * 1024 * 1024)
    digests = Digests()
    first = digests.now(str(path))
    assert first not in (UNKNOWN, MISSING) and digests.now(str(path)) == first
    date(path)
    assert digests.now(str(path)) != first
