"""Whatever is done to the files: `watch` tells what has another content, once, and nothing else. Both engines."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import logging
import os
import shutil
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from unittest import mock

import pytest
from edits import LONG_AGO, date, save, save_all
from harness.waiting import wait_until
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wsgi_reload_hooks import Settings, watch
from wsgi_reload_hooks.watching.engines import Engine
from wsgi_reload_hooks.watching.engines import engine as real_engine
from wsgi_reload_hooks.watching.event_engine import EventEngine
from wsgi_reload_hooks.watching.stat_engine import StatEngine

pytestmark = pytest.mark.unit

STEP = 0.02
LIMIT = 8.0
# What takes no longer cannot be told in two: half of the step, the clocks of file systems tick in 10 ms at most.
QUICK = STEP / 2
SENTINEL = "sentinel/beat"

Operation = tuple[str, ...]
Contents = dict[str, "bytes | None"]

both_engines = pytest.mark.parametrize(
    "engine",
    [
        "stat",
        pytest.param(
            "watchfiles",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("watchfiles") is None, reason="watchfiles is not installed"
            ),
        ),
    ],
)


# -- the watcher in a thread -----------------------------------------------------------------------------------------


class Watching:
    """`watch` in a thread, over *names* in the project *root* and a sentinel beside them; ready when entered.

    *handle* is called with each set in the thread that watches: the consumer. *expected*: what it may warn of.
    """

    def __init__(
        self,
        engine: str,
        root: Path,
        names: list[str],
        step: float = STEP,
        debounce: float = 0.2,
        handle: Callable[[set[str]], object] = lambda told: None,
        expected: str = "grants no watch",
    ) -> None:
        self.sets: list[tuple[float, frozenset[str]]] = []
        self.engine: Engine | None = None
        self._kind = engine
        self._root = root
        self._names = names
        # The budget would have it look less often.
        self._settings = Settings(engine=engine, interval=0.02, step=step, debounce=debounce, budget=1.0)
        self._handle = handle
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._beats = itertools.count()
        self._failed = ""
        self._warnings: list[str] = []
        self._log = logging.getLogger("wsgi_reload_hooks")
        self._handler = logging.Handler(logging.WARNING)
        # A folder that is gone at this moment, or closed, cannot be listened to; it may say so and look instead.
        known = {"grants no watch", expected}
        self._handler.addFilter(lambda record: not any(words in record.getMessage() for words in known))
        self._handler.emit = lambda record: self._warnings.append(record.getMessage())  # type: ignore[method-assign]

    def __enter__(self) -> Watching:
        save(self._root / SENTINEL, "first")
        self._log.addHandler(self._handler)
        environ = {name: value for name, value in os.environ.items() if name != "WATCHFILES_FORCE_POLLING"}
        with (
            mock.patch("wsgi_reload_hooks.api.watch.engine", self._made),
            mock.patch.dict(os.environ, environ, clear=True),
        ):
            self._thread.start()
            try:
                self._begin()
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if kind is None:
            assert not self._failed and not self._warnings

    def _begin(self) -> None:
        wait_until(lambda: self._alive() and self.engine is not None, "an engine", LIMIT)
        assert isinstance(self.engine, EventEngine if self._kind == "watchfiles" else StatEngine)

        beaten = 0.0

        def first() -> bool:
            # The baseline is that of the first `next()`: beat until one is after it, and leave time to tell it.
            nonlocal beaten
            if time.monotonic() - beaten > 2 * self._settings.step + 0.2:
                self._beat()
                beaten = time.monotonic()
            return self._alive() and bool(self.sets)

        wait_until(first, "the first set", LIMIT)
        if isinstance(self.engine, EventEngine):
            # Else it looks all the time, and nothing would depend on the events.
            ready = self.engine
            wait_until(lambda: self._alive() and ready._hears, "proof that events come", LIMIT)
        self.quiet()
        self.sets.clear()

    def _end(self) -> None:
        self._stop.set()
        self._thread.join(LIMIT)
        self._log.removeHandler(self._handler)

    def _made(self, *arguments: object) -> Engine:
        self.engine = real_engine(*arguments)  # type: ignore[arg-type]
        return self.engine

    def _run(self) -> None:
        paths = [str(self._root / name) for name in [*self._names, SENTINEL]]
        try:
            for told in watch(*paths, settings=self._settings, stop_event=self._stop):
                self.sets.append((time.monotonic(), frozenset(os.path.relpath(path, self._root) for path in told)))
                self._handle(told)
        except BaseException:
            self._failed = traceback.format_exc()

    def _alive(self) -> bool:
        assert self._thread.is_alive() and not self._failed, f"the watcher has ended: {self._failed}"
        return True

    def _beat(self) -> None:
        (self._root / SENTINEL).write_text(f"beat {next(self._beats)}")

    def counts(self) -> Counter[str]:
        """How often each name was told since the last `quiet`."""
        return Counter(name for _, told in list(self.sets) for name in told)

    def until_told(self, names: set[str]) -> None:
        """Wait until all of *names* have been told. Nothing is written meanwhile that could have it look."""
        wait_until(
            lambda: self._alive() and names <= set(self.counts()),
            lambda: f"{sorted(names - set(self.counts()))} told; {self}",
            LIMIT,
        )

    def quiet(self) -> None:
        """Wait until it has nothing more to tell: what it told is in `sets` then.

        The second beat comes after all that was noticed with the first one, files that are gone for two ticks too.
        """
        for _ in range(2):
            before = self.counts()[SENTINEL]
            self._beat()
            wait_until(
                lambda before=before: self._alive() and self.counts()[SENTINEL] > before,  # type: ignore[misc]
                "the sentinel told",
                LIMIT,
            )

    def group(self) -> list[set[str]]:
        """The sets told since the last call, without the sentinel, once it is quiet."""
        self.quiet()
        found = [set(told) - {SENTINEL} for _, told in self.sets]
        self.sets.clear()
        assert not self._warnings
        return [told for told in found if told]

    def __str__(self) -> str:
        told = [(f"{when:.3f}", sorted(names)) for when, names in self.sets]
        return f"told {told}, warned {self._warnings}"


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """The working directory is *folder*, that of a project."""
    before = os.getcwd()
    save(folder / "pyproject.toml", "")
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


# -- the model -------------------------------------------------------------------------------------------------------

FILES = ["app/main.py", "app/views.py", "app/deep/one.py", "app/deep/two.py", "app/deep/later.py"]
FILES += ["linked.py", "current/mod.py", "current/same.py"]
FOLDERS = ["app", "app/deep", "release1", "release2", "../elsewhere"]


class Disk:
    """The project on disk, what can be done to it, and what its files had in them meanwhile.

    An operation that makes no sense as things are does nothing.
    """

    def __init__(self, base: Path) -> None:
        self.root = base / "project"
        self._dates = itertools.count(LONG_AGO, 1_000_000_000)
        for number, name in enumerate(FILES[:4]):
            save(self.root / name, f"file{number}")
        for release in ("release1", "release2"):
            save(self.root / release / "mod.py", release)
            save(self.root / release / "same.py", "same")
        (self.root / "current").symlink_to("release1")
        for name in ("target.py", "other.py"):
            save(base / "elsewhere" / name, name)
        (self.root / "linked.py").symlink_to(base / "elsewhere" / "target.py")
        self.begin()

    def begin(self) -> None:
        """A group of operations begins."""
        self.before = self.contents()
        self.disturbed: set[str] = set()
        """The files that had another content at some time in the group."""

    def contents(self) -> Contents:
        return {name: _content(self.root / name) for name in FILES}

    def do(self, operation: Operation) -> None:
        what, *arguments = operation
        getattr(self, what)(*arguments)
        self._note()

    def _note(self) -> None:
        self.disturbed |= {name for name, content in self.contents().items() if content != self.before[name]}

    # -- files

    def write(self, name: str, content: str) -> None:
        """In place, or born."""
        path = self.root / name
        if Path(os.path.realpath(path)).parent.is_dir():
            # Empty for a moment.
            self.disturbed.add(name)
            path.write_text(content)

    def write_atomically(self, name: str, content: str, past: str = "") -> None:
        """A sibling renamed over it; *past*: with an old date."""
        path = self.root / name
        if path.parent.is_dir():
            sibling = path.with_name(path.name + ".tmp")
            sibling.write_text(content)
            if past:
                date(sibling, next(self._dates))
            os.replace(sibling, path)

    def write_back_dated(self, name: str, content: str) -> None:
        self.write(name, content)
        if (self.root / name).exists():
            date(self.root / name, next(self._dates))

    def write_and_undo(self, name: str, content: str) -> None:
        before = _content(self.root / name)
        self.write(name, content)
        self._note()
        if before is None:
            self.delete(name)
        else:
            self.write(name, before.decode())

    def delete(self, name: str) -> None:
        if os.path.lexists(self.root / name):
            os.unlink(self.root / name)

    def touch(self, name: str) -> None:
        if (self.root / name).exists():
            os.utime(self.root / name)

    def chmod(self, name: str) -> None:
        path = self.root / name
        if path.exists():
            mode = path.stat().st_mode
            path.chmod(0o600)
            path.chmod(mode)

    def rename_away(self, name: str) -> None:
        if os.path.lexists(self.root / name):
            os.replace(self.root / name, self.root / (name + ".away"))

    def rename_back(self, name: str) -> None:
        if os.path.lexists(self.root / (name + ".away")):
            os.replace(self.root / (name + ".away"), self.root / name)

    def rename_away_and_back(self, name: str) -> None:
        self.rename_away(name)
        self._note()
        self.rename_back(name)

    def rename_over(self, name: str, other: str) -> None:
        if os.path.lexists(self.root / name) and (self.root / other).parent.is_dir():
            os.replace(self.root / name, self.root / other)

    # -- links

    def switch(self, release: str) -> None:
        """`current` becomes another release in one go."""
        os.symlink(release, self.root / "next")
        os.replace(self.root / "next", self.root / "current")

    def switch_roughly(self, release: str) -> None:
        """As `ln -sfn` of old: it is gone for a moment."""
        os.unlink(self.root / "current")
        self._note()
        os.symlink(release, self.root / "current")

    def switch_and_undo(self) -> None:
        before = os.readlink(self.root / "current")
        self.switch("release2" if before == "release1" else "release1")
        self._note()
        self.switch(before)

    def retarget(self, target: str) -> None:
        """`linked.py` leads to another file."""
        os.symlink(self.root.parent / "elsewhere" / target, self.root / "link.tmp")
        os.replace(self.root / "link.tmp", self.root / "linked.py")

    # -- folders

    def folder_away(self, name: str) -> None:
        folder, away = self.root / name, self.root / (name + ".away")
        if folder.is_dir() and not away.exists():
            os.rename(folder, away)

    def folder_back(self, name: str) -> None:
        folder, away = self.root / name, self.root / (name + ".away")
        if away.is_dir() and not folder.exists() and away.parent.is_dir():
            os.rename(away, folder)

    def folder_away_and_back(self, name: str) -> None:
        self.folder_away(name)
        self._note()
        self.folder_back(name)

    def folder_copied(self, name: str) -> None:
        """A copy takes its place."""
        folder, copy, old = self.root / name, self.root / (name + ".copy"), self.root / (name + ".old")
        if folder.is_dir():
            shutil.copytree(folder, copy, symlinks=True)
            os.rename(folder, old)
            self._note()
            os.rename(copy, folder)
            shutil.rmtree(old)

    # -- what is nobody's business

    def write_beside(self, name: str, suffix: str) -> None:
        path = self.root / (name + suffix)
        if path.parent.is_dir():
            path.write_text("unrelated")

    def make_folder_beside(self, name: str) -> None:
        folder = (self.root / name).parent / "unrelated"
        if folder.parent.is_dir():
            folder.mkdir(exist_ok=True)
            (folder / "x.py").write_text("")
            shutil.rmtree(folder)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


names = st.sampled_from(FILES)
folders = st.sampled_from(FOLDERS)
# Mostly of one size: what tells these apart is not the size.
contents = st.sampled_from(["aaaa", "bbbb", "cccc", "same", "longer than these", ""])
releases = st.sampled_from(["release1", "release2"])


def _operation(what: str, *arguments: st.SearchStrategy[str]) -> st.SearchStrategy[Operation]:
    return st.tuples(st.just(what), *arguments)


operations = st.one_of(
    _operation("write", names, contents),
    _operation("write_atomically", names, contents, st.sampled_from(["", "past"])),
    _operation("write_back_dated", names, contents),
    _operation("write_and_undo", names, contents),
    _operation("delete", names),
    _operation("touch", names),
    _operation("chmod", names),
    _operation("rename_away", names),
    _operation("rename_back", names),
    _operation("rename_away_and_back", names),
    _operation("rename_over", names, names),
    _operation("switch", releases),
    _operation("switch_roughly", releases),
    _operation("switch_and_undo"),
    _operation("retarget", st.sampled_from(["target.py", "other.py"])),
    _operation("folder_away", folders),
    _operation("folder_back", folders),
    _operation("folder_away_and_back", folders),
    _operation("folder_copied", folders),
    _operation("write_beside", names, st.sampled_from([".tmp", "~", ".txt"])),
    _operation("make_folder_beside", names),
)
histories = st.lists(st.lists(operations, min_size=1, max_size=5), min_size=4, max_size=12)


def check(disk: Disk, watching: Watching, group: list[Operation]) -> None:
    """Do a *group* of operations at once, and compare what is told of it with the model."""
    disk.begin()
    began = time.monotonic()
    for operation in group:
        disk.do(operation)
    took = time.monotonic() - began
    after = disk.contents()
    changed = {name for name in FILES if after[name] != disk.before[name]}
    about = f"{group} in {took * 1000:.1f} ms, from {disk.before} to {after}"
    try:
        watching.until_told(changed)
    except AssertionError as error:
        raise AssertionError(f"{about}: {error}") from None
    sets = watching.group()
    counts = Counter(name for told in sets for name in told)
    about = f"{about}: told {sets}"
    assert set(counts) <= disk.disturbed, f"told what never changed: {about}"
    if took < QUICK:
        assert counts == Counter(changed), about
    else:
        # In two sets or more, what came between may be told as well: then what followed it, too.
        undone = set(counts) - changed
        assert all(counts[name] > 1 for name in undone), f"told, but not that it is as before: {about}"


@both_engines
def test_told_what_changed_and_nothing_else(engine: str, tmp_path: Path) -> None:
    """Random histories of edits, renames, switched links and moved folders: told is what differs, each file once."""
    examples = itertools.count()

    @hypothesis_settings(
        max_examples=10,
        deadline=None,
        database=None,
        # A failing example is told as it is: each try for a smaller one would wait for what does not come.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(histories)
    def run(history: list[list[Operation]]) -> None:
        base = tmp_path / str(next(examples))
        disk = Disk(base)
        with standing_in(disk.root), Watching(engine, disk.root, FILES) as watching:
            for group in history:
                check(disk, watching, group)
        shutil.rmtree(base)

    run()


# What has been wrong once, or would be hit by chance too seldom.
HISTORIES: dict[str, list[list[Operation]]] = {
    "a folder replaced by its copy is heard": [
        [("folder_copied", "app/deep")],
        [("write", "app/deep/one.py", "aaaa")],
        [("folder_copied", "app")],
        [("write", "app/deep/one.py", "bbbb")],
        [("write", "app/main.py", "cccc")],
    ],
    "a folder moved away and back is heard": [
        [("folder_away_and_back", "app")],
        [("write", "app/deep/one.py", "aaaa")],
        [("folder_away", "app")],
        [("folder_back", "app")],
        [("write", "app/deep/later.py", "bbbb")],
    ],
    "the folder behind a link replaced": [
        [("folder_copied", "release1")],
        [("write", "current/mod.py", "aaaa")],
        [("switch", "release2")],
        [("write", "current/mod.py", "bbbb")],
        [("switch", "release1")],
    ],
    "the target of a link": [
        [("write", "linked.py", "aaaa")],
        [("retarget", "other.py")],
        [("write_back_dated", "linked.py", "bbbb")],
        [("write_and_undo", "linked.py", "cccc")],
        [("write_atomically", "linked.py", "bbbb", "")],
        [("write", "linked.py", "aaaa")],
    ],
    "the folder of a link's target replaced": [
        [("folder_copied", "../elsewhere")],
        [("write", "linked.py", "aaaa")],
        [("folder_away", "../elsewhere")],
        [("folder_back", "../elsewhere")],
        [("write", "linked.py", "bbbb")],
    ],
    "a link there and back": [[("switch_and_undo",)]] * 20,
    "a folder there and back": [[("folder_away_and_back", "app")]] * 20,
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
@both_engines
def test_told_what_changed_in_these(engine: str, history: list[list[Operation]], tmp_path: Path) -> None:
    """The same for histories that are worth a test of their own."""
    disk = Disk(tmp_path)
    with standing_in(disk.root), Watching(engine, disk.root, FILES) as watching:
        for group in history:
            check(disk, watching, group)


# -- single cases ----------------------------------------------------------------------------------------------------


@both_engines
def test_500_files_at_once(engine: str, tmp_path: Path) -> None:
    """A checkout that rewrites 500 files is one set."""
    files = [f"package{number % 10}/module{number}.py" for number in range(500)]
    for name in files:
        save(tmp_path / name, "before")
    with standing_in(tmp_path), Watching(engine, tmp_path, files, step=0.4, debounce=30.0) as watching:
        for number in range(10):
            quick = save_all([tmp_path / name for name in files], f"behind {number}") < 0.2
            watching.until_told(set(files))
            told = watching.group()
            if quick:
                break
        assert quick and told == [set(files)]


@both_engines
def test_the_whole_root_gone_and_back(engine: str, tmp_path: Path) -> None:
    """All files are told as gone, then as back, and the watcher lives on."""
    root = tmp_path / "project"
    files = ["main.py", "app/a.py", "app/deep/b.py"]

    def make() -> None:
        for name in [*files, SENTINEL]:
            save(root / name, "the same")

    make()
    with standing_in(root), Watching(engine, root, files) as watching:
        for _ in range(3):
            shutil.rmtree(root)
            watching.until_told({*files, SENTINEL})
            make()
            wait_until(
                lambda: all(watching.counts()[name] > 1 for name in files), lambda: f"told as back; {watching}", LIMIT
            )
            watching.quiet()
            counts = watching.counts()
            assert {name: counts[name] for name in files} == dict.fromkeys(files, 2)
            watching.sets.clear()
            for name in files:
                save(root / name, "other")
                watching.until_told({name})
                assert watching.group() == [{name}]
                save(root / name, "the same")
                watching.until_told({name})
                assert watching.group() == [{name}]


@both_engines
def test_rights_to_a_folder_taken_away_and_given_back(engine: str, tmp_path: Path) -> None:
    """A folder that nobody may look into is no news. What was changed there meanwhile is, once one may again."""
    if os.geteuid() != 0:
        _rights_taken_away_and_given_back(engine, tmp_path)
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("root may do everything, but for what Linux can take from it")
    report = tmp_path / "report"
    pid = os.fork()
    if pid == 0:
        try:
            _as_others()
            (tmp_path / "closed").mkdir(0)
            with pytest.raises(PermissionError):
                os.listdir(tmp_path / "closed")
            _rights_taken_away_and_given_back(engine, tmp_path)
        except BaseException:
            report.write_text(traceback.format_exc())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert not report.exists(), report.read_text()


def _as_others() -> None:
    """Take from this process, and from those it starts, what lets root read where the owner may not.

    To become another user would be too much: that one may not reach the interpreter.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert libc.prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP
        for each in range(3):
            sets[each] &= ~(1 << capability)
    assert libc.capset(header, sets) == 0


def _rights_taken_away_and_given_back(engine: str, base: Path) -> None:
    root, folder = base / "project", base / "project" / "app"
    save(folder / "a.py", "before")
    save(folder / "b.py", "before")
    try:
        with (
            standing_in(root),
            Watching(engine, root, ["app/a.py", "app/b.py"], expected="cannot be looked at") as watching,
        ):
            for text in ("behind", "before"):
                folder.chmod(0)
                assert watching.group() == []
                folder.chmod(0o755)
                assert watching.group() == []
                with open(folder / "a.py", "r+") as opened:
                    folder.chmod(0)
                    opened.write(text)
                    opened.flush()
                    assert watching.group() == []
                folder.chmod(0o755)
                watching.until_told({"app/a.py"})
                assert watching.group() == [{"app/a.py"}]
                save(folder / "b.py", text)
                watching.until_told({"app/b.py"})
                assert watching.group() == [{"app/b.py"}]
    finally:
        folder.chmod(0o755)


@both_engines
def test_a_change_while_a_set_is_handled(engine: str, tmp_path: Path) -> None:
    """What changes while the consumer is busy with a set is told in the next one, also for a file of that set."""
    a, b, c = (save(tmp_path / name, "before") for name in ("a.py", "b.py", "c.py"))

    def handle(told: set[str]) -> None:
        if str(a) in told and a.read_text() == "behind":
            save(a, "again")
            save(b, "behind")
            # Undone before anybody looks.
            save(c, "behind")
            save(c, "before")

    with standing_in(tmp_path), Watching(engine, tmp_path, ["a.py", "b.py", "c.py"], handle=handle) as watching:
        save(a, "behind")
        watching.until_told({"a.py", "b.py"})
        assert watching.group() == [{"a.py"}, {"a.py", "b.py"}]
