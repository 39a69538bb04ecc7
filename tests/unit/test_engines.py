"""Both engines mean the same; the event engine proves that it hears, and looks where it does not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from edits import PACKAGE_ROOT, save, save_all, save_atomically, without_rights
from harness.waiting import holds, wait_until

from wsgi_reload_hooks import Settings, SettingsError
from wsgi_reload_hooks.process.counters import TEMPLATES, TRANSLATIONS
from wsgi_reload_hooks.process.native import Native
from wsgi_reload_hooks.watching.checkout import Checkout
from wsgi_reload_hooks.watching.debounce import Debouncer, settled
from wsgi_reload_hooks.watching.engines import Engine, engine
from wsgi_reload_hooks.watching.event_engine import EventEngine
from wsgi_reload_hooks.watching.listener import Listener, extension
from wsgi_reload_hooks.watching.mounts import Mount
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.watching.scanner import Scanner
from wsgi_reload_hooks.watching.signature import known_signature
from wsgi_reload_hooks.watching.stat_engine import StatEngine
from wsgi_reload_hooks.watching.watch_plan import watch_plan

pytestmark = pytest.mark.unit

WATCHFILES = extension()
needs_watchfiles = pytest.mark.skipif(WATCHFILES is None, reason="watchfiles is not installed")
ENGINES = [pytest.param("watchfiles", marks=needs_watchfiles), "stat"]


class Stopped(Exception):
    """The block is over."""


class Watch:
    """An engine at work in a thread of its own: what it told, and the lines it had for the log."""

    def __init__(
        self, root: Path, paths: list[Path], make: Callable[..., Engine] | None = None, **options: Any
    ) -> None:
        settings = Settings(**{"interval": 0.1, "step": 0.02, "debounce": 0.4, **options})
        self.files = Files(settings, str(root))
        self.scanner = Scanner()
        for path in paths:
            self.scanner.watch(str(path), known_signature(str(path)))
        self.lines: list[str] = []
        self.told: list[set[str]] = []
        self.engine = (make or engine)(settings, self.files, self.scanner, self.lines.append)
        self._debouncer = Debouncer(settings.step, settings.debounce, Checkout(str(root)).unfinished)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            for changed in settled(self.engine, self._debouncer, self._pause):
                self.told.append(changed)
        except Stopped:
            self.engine.close()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        native = Native()
        while not self._stop.is_set() and time.monotonic() < until and self.engine.pause() > 0:
            reader = self.engine.reader
            if native.ready([] if reader is None else [reader], 0.01):
                return
        if self._stop.is_set():
            raise Stopped

    def __enter__(self) -> Watch:
        self._thread.start()
        if isinstance(self.engine, EventEngine):
            wait_until(lambda: self.engine.pause() > 1.0 or self.lines, "it hears, or says why not")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def expect(self, *names: str) -> None:
        """These have been told since the last call, each once, and nothing else."""

        def told() -> list[str]:
            return sorted(Path(path).name for changed in self.told for path in changed)

        wait_until(lambda: told() == sorted(names), lambda: f"{sorted(names)} told; it told {self.told}, {self.lines}")
        self.told.clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


# -- one meaning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_every_way_of_changing_a_file(name: str, root: Path) -> None:
    """In place, by rename, with an older time, gone, and there again."""
    path = save(root / "app.py", "1")
    with Watch(root, [path], engine=name) as watch:
        save(path, "12")
        watch.expect("app.py")
        save_atomically(path, "123")
        watch.expect("app.py")
        sibling = save(root / ".old", "321")
        os.utime(sibling, (1000000000, 1000000000))
        os.replace(sibling, path)
        watch.expect("app.py")
        path.unlink()
        watch.expect("app.py")
        save(path, "1")
        watch.expect("app.py")
        assert watch.lines == []


@pytest.mark.parametrize("name", ENGINES)
def test_what_is_not_watched_is_not_told(name: str, root: Path) -> None:
    """Other files of the folder, and its subfolders."""
    path = save(root / "app.py", "1")
    with Watch(root, [path], engine=name) as watch:
        save(root / "other.py", "1")
        save(root / "sub" / "app.py", "1")
        save(path, "12")
        watch.expect("app.py")


@pytest.mark.parametrize("name", ENGINES)
def test_a_link_and_what_it_leads_to(name: str, root: Path) -> None:
    """A watched file that is a link changes when its target does, and when it leads elsewhere."""
    elsewhere = root.parent / "elsewhere"
    target, other = save(elsewhere / "one.py", "1"), save(elsewhere / "two.py", "12")
    link = root / "app.py"
    link.symlink_to(target)
    with Watch(root, [link], engine=name) as watch:
        save(target, "123")
        watch.expect("app.py")
        (root / "new").symlink_to(other)
        os.replace(root / "new", link)
        watch.expect("app.py")
        save(other, "1234")
        watch.expect("app.py")


@pytest.mark.parametrize("name", ENGINES)
def test_a_release_that_is_switched_by_a_link(name: str, root: Path) -> None:
    """`current -> releases/1` led to `releases/2`: every file of it is another one, and later ones are seen, too."""
    releases = root / "releases"
    for number in "12":
        save(releases / number / "package" / "app.py", "release " + number)
    current = root / "current"
    current.symlink_to(releases / "1")
    with Watch(root, [current / "package" / "app.py"], engine=name) as watch:
        (root / "next").symlink_to(releases / "2")
        os.replace(root / "next", current)
        watch.expect("app.py")
        save(releases / "2" / "package" / "app.py", "a repair")
        watch.expect("app.py")


@pytest.mark.parametrize("name", ENGINES)
def test_folders_that_move_vanish_and_come_back(name: str, root: Path) -> None:
    """Also the whole project, and one whose folder is not there yet."""
    path, later = save(root / "package" / "app.py", "1"), root / "later" / "deep" / "new.py"
    with Watch(root, [path, later], engine=name) as watch:
        save(later, "1")
        watch.expect("new.py")
        os.rename(root / "package", root / "package.old")
        watch.expect("app.py")
        os.rename(root / "package.old", root / "package")
        watch.expect("app.py")
        shutil.rmtree(root)
        watch.expect("app.py", "new.py")
        save(path, "1")
        watch.expect("app.py")
        save_atomically(path, "12")
        watch.expect("app.py")


def test_rights_that_are_taken_away_and_given_back() -> None:
    """One line while a file cannot be asked; what has changed by then is told when it can be."""

    def told() -> bool:
        package = folder / "package"
        package.mkdir()
        os.rename(folder / "app.py", package / "app.py")
        with watch:
            watch.expect("app.py")
            package.chmod(0)
            wait_until(lambda: watch.lines, "it is told")
            package.chmod(0o755)
            save_atomically(package / "app.py", "12")
            watch.expect("app.py")
            return watch.lines == ["package/app.py: cannot be looked at now (Permission denied), so taken as unchanged"]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o777)
        save(folder / "app.py", "1")
        watch = Watch(folder, [folder / "package" / "app.py"], engine="stat")
        assert without_rights(told)


@pytest.mark.parametrize("name", ENGINES)
def test_a_folder_that_takes_the_place_of_another(name: str, root: Path) -> None:
    """`mv package old; mv new package`: at once, and what is saved in it after that is told, too."""
    path = save(root / "package" / "app.py", "1")
    save(root / "new" / "app.py", "12")
    with Watch(root, [path], engine=name) as watch:
        os.rename(root / "package", root / "old")
        os.rename(root / "new", root / "package")
        watch.expect("app.py")
        save(path, "123")
        watch.expect("app.py")
        shutil.rmtree(root / "package")
        save(path, "1")
        watch.expect("app.py")
        save(path, "12")
        watch.expect("app.py")
        assert watch.lines == []


@pytest.mark.parametrize("name", ENGINES)
def test_a_name_that_is_no_text(name: str, root: Path) -> None:
    """A file whose name is not UTF-8 takes no ear away."""
    path = save(root / "app.py", "1")
    with Watch(root, [path], engine=name) as watch:
        save(Path(os.fsdecode(os.fsencode(root) + b"/f\xff")), "1")
        save(path, "12")
        watch.expect("app.py")
        save(path, "123")
        watch.expect("app.py")
        assert watch.lines == []


MOUNTED = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from edits import save
from unit.test_engines import Watch
package = Path(sys.argv[1]) / "package"
def mount():
    assert os.system("mount -t tmpfs none package") == 0
package.mkdir()
mount()
path = save(package / "app.py", "1")
with Watch(package.parent, [path], engine={engine!r}) as watch:
    save(path, "12")
    watch.expect("app.py")
    assert os.system("umount package") == 0
    watch.expect("app.py")
    mount()
    save(path, "123")
    watch.expect("app.py")
    save(path, "1")
    watch.expect("app.py")
    print(watch.lines)
"""


@pytest.mark.parametrize("name", ENGINES)
def test_a_file_system_that_is_unmounted_and_mounted(name: str, root: Path) -> None:
    """Its files are gone, and there again; no watch of the kernel's tells of either."""
    if subprocess.run(
        ["unshare", "-U", "-r", "-m", "mount", "-t", "tmpfs", "none", "."], cwd=root, check=False
    ).returncode:
        pytest.skip("nothing can be mounted here")
    paths = [str(PACKAGE_ROOT), str(Path(__file__).parents[1]), *sys.path]
    script = save(root / "script", MOUNTED.format(path=paths, engine=name))
    command = ["unshare", "-U", "-r", "-m", sys.executable, "-W", "ignore", str(script), str(root)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.parametrize("name", ENGINES)
def test_globs_are_live(name: str, root: Path) -> None:
    """A file that a glob finds later, in a folder that is made later, is told; so is its end."""
    save(root / "templates" / "a.html", "1")
    with Watch(root, [], engine=name, extra_files=("templates/**/*.html",)) as watch:
        save(root / "templates" / "new" / "b.html", "1")
        watch.expect("b.html")
        save(root / "templates" / "new" / "b.html", "12")
        watch.expect("b.html")
        (root / "templates" / "new" / "b.html").unlink()
        watch.expect("b.html")


def test_line_of_gitignore_that_is_not_used_is_told_once(root: Path) -> None:
    """A line that would hang the search is told with its place, once as long as it stands there; saves are seen."""
    save(root / ".gitignore", "*a*a*a*a*a*a*a*b\n")
    save(root / ("a" * 200 + ".html"), "1")
    with Watch(root, [], engine="stat", extra_files=("*.html",)) as watch:
        save(root / "b.html", "1")
        watch.expect("b.html")
        save(root / "c.html", "1")
        watch.expect("c.html")
    (line,) = watch.lines
    assert line.startswith("line 1 of .gitignore is not used: too many asterisks")


@pytest.mark.parametrize("name", ENGINES)
def test_folders_of_assets_are_live(name: str, root: Path) -> None:
    """Folders of assets, there or not: births at any depth, edits and deaths are told."""
    page = save(root / "templates" / "page.html", "1")
    watch = Watch(root, [save(root / "app.py", "1"), page], engine=name)
    watch.files.add_assets(TEMPLATES, [str(page.parent)])
    watch.files.add_assets(TRANSLATIONS, [str(root / "locale")])
    assert watch.files.assets() == {str(page)}
    with watch:
        save(page, "22")
        watch.expect("page.html")
        german = save(root / "locale" / "de" / "LC_MESSAGES" / "django.mo", "1")
        watch.expect("django.mo")
        inner = save(root / "templates" / "shop" / "inner" / "cart.html", "1")
        watch.expect("cart.html")
        save_atomically(inner, "22")
        save_atomically(german, "22")
        watch.expect("cart.html", "django.mo")
        shutil.rmtree(root / "templates" / "shop")
        save(root / "locale" / "de" / "LC_MESSAGES" / "django.po", "1")
        save(root / "templates" / "page.html~", "1")
        watch.expect("cart.html")


@pytest.mark.parametrize("name", ENGINES)
def test_five_hundred_files_are_one_change(name: str, root: Path) -> None:
    """A formatter that is at work for longer than `step` at a time, but never quiet for it."""
    paths = [save(root / f"m{number}.py", "1") for number in range(500)]
    with Watch(root, paths, engine=name, step=0.3, debounce=20.0) as watch:
        for number in range(2, 12):
            quick = save_all(paths, "1" * number, save_atomically) < 0.15
            wait_until(lambda: sum(map(len, watch.told)) >= 500, "they are told")
            told = [len(changed) for changed in watch.told]
            watch.told.clear()
            if quick:
                break
        assert quick and told == [500]


@pytest.mark.parametrize("name", ENGINES)
def test_git_in_the_middle_of_something_is_waited_for(name: str, root: Path) -> None:
    """While git holds its lock nothing is told; then all of it is, at once."""
    paths = [save(root / each, "1") for each in ("a.py", "b.py")]
    lock = save(root / ".git" / "index.lock", "")
    with Watch(root, paths, engine=name) as watch:
        save(paths[0], "12")
        holds(lambda: not watch.told, "nothing is told", seconds=0.6)
        save(paths[1], "12")
        lock.unlink()
        watch.expect("a.py", "b.py")


# -- the event engine proves that it hears ---------------------------------------------------------------------------


@needs_watchfiles
def test_idle_it_does_not_look(root: Path) -> None:
    """Once it hears, the next look is far away; the one that an event brings is not."""
    path = save(root / "app.py", "1")
    with Watch(root, [path], engine="watchfiles") as watch:
        assert isinstance(watch.engine, EventEngine) and watch.engine.pause() > 10.0
        assert watch.engine.describe() == "by events (watchfiles engine)"
        assert sorted(os.listdir(root)) == ["app.py"], "the probe is gone"


class Deaf(Listener):
    """Hears nothing from `deaf_from` on: the file system of another machine."""

    deaf = True

    def read(self) -> list[dict[str, Any]]:
        return [message for message in super().read() if not (self.deaf and "heard" in message)]


def made_with(listener: type[Listener], clock: Callable[[], float] = time.monotonic) -> Callable[..., Engine]:
    """An engine like that of `engine`, with another listener."""

    def make(settings: Settings, files: Files, scanner: Scanner, tell: Callable[[str], object]) -> Engine:
        assert WATCHFILES is not None
        stat = StatEngine(settings, files, scanner, tell)
        return EventEngine(stat, files, scanner, listener(sys.executable, WATCHFILES, Native()), tell, clock)

    return make


@needs_watchfiles
def test_where_no_event_comes_it_looks_and_says_so(root: Path) -> None:
    """The probe is not heard: one line, and changes are noticed all the same."""
    path = save(root / "app.py", "1")
    with Watch(root, [path], made_with(Deaf)) as watch:
        save(path, "12")
        watch.expect("app.py")
        wait_until(lambda: watch.lines, "it is told")
        save(path, "123")
        watch.expect("app.py")
        (line,) = watch.lines
        assert line == "no events for . (no event came for a file made there): looking every 0.1 s there"


@needs_watchfiles
def test_a_change_that_came_without_an_event(root: Path) -> None:
    """What hears no more after the probe is found out by the look that is made once in a while."""
    hours = [0.0]
    path = save(root / "app.py", "1")

    class Deafened(Deaf):
        deaf = False

    with Watch(root, [path], made_with(Deafened, lambda: time.monotonic() + hours[0])) as watch:
        Deafened.deaf = True
        save(path, "12")
        holds(lambda: not watch.told, "nobody heard of it", seconds=0.3)
        hours[0] = 3600.0
        watch.expect("app.py")
        wait_until(lambda: watch.lines, "it is told")
        assert watch.lines == ["no events for . (a change came without an event): looking every 0.1 s there"]
        save(path, "123")
        watch.expect("app.py")


@needs_watchfiles
def test_a_file_system_of_others_is_not_even_tried(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS events of this machine would arrive, and prove nothing."""
    path = save(root / "app.py", "1")
    monkeypatch.setattr(
        "wsgi_reload_hooks.watching.event_engine.mounts", lambda: [Mount("/", "ext4"), Mount(str(root), "nfs4")]
    )
    with Watch(root, [path], engine="watchfiles") as watch:
        wait_until(lambda: watch.lines, "it is told")
        assert watch.lines == ["no events for . (file system nfs4): looking every 0.1 s there"]
        save(path, "12")
        watch.expect("app.py")


@needs_watchfiles
@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_a_deaf_file_in_a_folder_that_is_not_there_yet(
    relative: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a deaf file system what is looked at is looked at by whatever name it was given."""
    monkeypatch.chdir(root)
    save(root / "app.py", "1")
    paths = [Path("app.py") if relative else root / "app.py", root / "conf" / "later.ini"]
    monkeypatch.setattr("wsgi_reload_hooks.watching.event_engine.mounts", lambda: [Mount(str(root), "nfs4")])
    with Watch(root, paths, engine="watchfiles") as watch:
        wait_until(lambda: watch.lines, "it is told")
        save(root / "app.py", "12")
        watch.expect("app.py")
        save(root / "conf" / "later.ini", "1")
        watch.expect("later.ini")


LIMITED = """
import sys, threading, time
sys.path[:0] = {path!r}
from wsgi_reload_hooks import Settings, watch
import logging
logging.basicConfig(format="%(message)s", stream=sys.stdout)
stop = threading.Event()
for changed in watch(*sys.argv[1:], settings=Settings(interval=0.1)):
    print(sorted(changed), flush=True)
"""


@needs_watchfiles
@pytest.mark.parametrize(
    ("limit", "number", "words"),
    [("watches", 4, "fs.inotify.max_user_watches"), ("instances", 0, "fs.inotify.max_user_instances")],
)
def test_what_the_system_does_not_grant_is_looked_at(limit: str, number: int, words: str, root: Path) -> None:
    """Too few watches or none at all: one line with the setting of the system, and no change is missed."""
    if subprocess.run(["unshare", "-U", "-r", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespace can be made here")
    paths = [save(root / f"p{each}" / "app.py", "1") for each in range(6)]
    script = save(root / "script", LIMITED.format(path=[str(PACKAGE_ROOT), *sys.path]))
    line = f'echo {number} > /proc/sys/user/max_inotify_{limit} && exec "$0" "$@"'
    command = ["unshare", "-U", "-r", "sh", "-c", line, sys.executable, "-u", str(script), *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = process.stdout.readline()
            assert told.startswith("the system grants no watch for ") and words in told, told
            for path in paths:
                save(path, "12")
                assert process.stdout.readline() == f"['{path}']\n"
        finally:
            process.send_signal(signal.SIGKILL)


@needs_watchfiles
def test_a_listener_that_is_killed(root: Path) -> None:
    """One line, and it goes on looking."""
    path = save(root / "app.py", "1")
    with Watch(root, [path], engine="watchfiles") as watch:
        assert isinstance(watch.engine, EventEngine) and watch.engine._listener is not None
        os.kill(watch.engine._listener._pid, signal.SIGKILL)
        wait_until(lambda: watch.lines, "it is told")
        assert watch.lines == ["the process that listens for events has ended (it is gone): looking instead"]
        assert watch.engine.describe() == "every 0.1 s (stat engine)"
        save(path, "12")
        watch.expect("app.py")


# -- which one -------------------------------------------------------------------------------------------------------


def chosen(root: Path, **options: Any) -> Iterator[str]:
    lines: list[str] = []
    settings = Settings(**options)
    made = engine(settings, Files(settings, str(root)), Scanner(), lines.append)
    made.close()
    yield type(made).__name__
    yield from lines


@needs_watchfiles
def test_auto_is_events_where_they_can_be_had(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """watchfiles where it is installed, unless its own variable says that nobody hears."""
    monkeypatch.delenv("WATCHFILES_FORCE_POLLING", raising=False)
    assert [*chosen(root)] == ["EventEngine"]
    assert [*chosen(root, engine="stat")] == ["StatEngine"]
    for value, name in {"1": "StatEngine", "true": "StatEngine", "": "StatEngine", "false": "EventEngine"}.items():
        monkeypatch.setenv("WATCHFILES_FORCE_POLLING", value)
        assert [*chosen(root)] == [name], value


@needs_watchfiles
def test_no_process_to_be_had(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that cannot be run: it looks, and says so."""
    monkeypatch.setattr(sys, "executable", str(root / "no python"))
    name, line = chosen(root)
    assert name == "StatEngine"
    assert line == "no process for watchfiles can be had (No such file or directory): every 0.2 s (stat engine)"


def test_without_watchfiles(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` looks; who insists is told what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert [*chosen(root)] == ["StatEngine"]
    with pytest.raises(SettingsError, match="pip install watchfiles"):
        Settings.load(str(root), {"WSGI_RELOAD_ENGINE": "watchfiles"})


# -- beside forks ----------------------------------------------------------------------------------------------------


FORKS = """
import logging, os, sys, threading, time
sys.path[:0] = {path!r}
from pathlib import Path
from harness.waiting import wait_until
from unit.test_engines import Watch
root = Path(sys.argv[1])
logging.basicConfig()
with Watch(root, [root / "app.py", root / "last.py"], engine={engine!r}) as watch:
    def save():
        for number in range(10**9):
            if done.is_set():
                return
            (root / "app.py").write_text("1" * (number % 50 + 1))
            time.sleep(0.001)
    done = threading.Event()
    saver = threading.Thread(target=save)
    saver.start()
    for number in range(500):
        pid = os.fork()
        if pid == 0:
            logging.getLogger("child").debug("here")
            import colorsys
            print("", end="", flush=True)
            watch.engine.leave()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    done.set()
    saver.join()
    (root / "last.py").write_text("the last")
    wait_until(lambda: any(str(root / "last.py") in changed for changed in watch.told), "the last one is told")
print("500 forks")
"""


@pytest.mark.matrix
@pytest.mark.parametrize("name", ENGINES)
def test_five_hundred_forks_beside_events(name: str, root: Path) -> None:
    """No child hangs, and the engine hears on: nothing of it is at work in the process that forks but one thread."""
    save(root / "app.py", "1")
    paths = [str(PACKAGE_ROOT), str(Path(__file__).parents[1]), *sys.path]
    script = save(root / "script", FORKS.format(path=paths, engine=name))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("500 forks\n", 0), done.stderr


# -- what to listen to -----------------------------------------------------------------------------------------------


def test_nothing_is_asked_about_files_that_are_not_ours(root: Path) -> None:
    """What is listened to is where the watched files are, whatever else the project holds."""
    for number in range(50):
        save(root / f"assets{number}" / "picture", "1")
    paths = [str(save(root / "package" / "app.py", "1"))]
    found = watch_plan(Files(Settings(), str(root)), paths, [])
    assert sorted(found.names) == sorted([str(root.parent), str(root), str(root / "package")])
    assert found.names[str(root / "package")] == frozenset(["app.py"])
