#!/usr/bin/env python3
"""Who notices a save: this package's engines and the peers' own loops, each in a process of its own.

`detection.py` starts this file once for each contender, in the folder of the project, and talks with it in lines of
JSON. A peer's code is not copied: its loop runs as it is, with `time.sleep` replaced where the loop is measured.
"""

from __future__ import annotations

import importlib
import json
import os
import site
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parent.parent
# Last: where the package is installed, that is what is measured.
sys.path.append(str(TESTS.parent))

from wsgi_reload_hooks.api.code_changed import CodeChanged  # noqa: E402
from wsgi_reload_hooks.api.watch import watch  # noqa: E402
from wsgi_reload_hooks.core.settings import FIELDS, Settings  # noqa: E402
from wsgi_reload_hooks.core.text import under  # noqa: E402
from wsgi_reload_hooks.watching import scanner  # noqa: E402
from wsgi_reload_hooks.watching.modules import loaded_files  # noqa: E402
from wsgi_reload_hooks.watching.scanner import Scanner  # noqa: E402
from wsgi_reload_hooks.watching.signature import known_signature  # noqa: E402

DJANGO = "bench_site"
BARE = "bare loop"
BARE_ALL = "bare loop, all that is loaded"


class Task:
    """What a contender is told, and whom it tells."""

    def __init__(self, pause: Callable[[float], object], notice: Callable[[str], None]) -> None:
        self.pause = pause
        self._notice = notice
        self.files: Callable[[], int] = lambda: 0

    def notice(self, path: object) -> None:
        """It saw that this one changed; a name without folder will do."""
        self._notice(os.path.basename(os.fsdecode(str(path))))

    def clock(self) -> Any:
        """In the place of the module `time`: to sleep is to pause."""
        return SimpleNamespace(sleep=self.pause)


class Contender(NamedTuple):
    """One way to notice a save."""

    name: str
    run: Callable[[Task], None]
    needs: str = ""
    install: str = ""


def missing(contender: Contender) -> str:
    """What is to be done before this contender can run, or nothing."""
    if contender.needs == "engine":
        if "engine" not in FIELDS:
            return "this version of the package has no setting `engine`"
        return missing(contender._replace(needs="watchfiles"))
    try:
        if contender.needs:
            importlib.import_module(contender.needs)
    except ImportError:
        return f"install {contender.install}"
    return ""


def engine_settings(engine: str) -> Settings:
    given: dict[str, Any] = {"engine": engine} if "engine" in FIELDS else {}
    return Settings(**given)


def loaded() -> list[str]:
    """The project's modules, and never a file from elsewhere: a part of the benchmark writes to them."""
    folder = os.getcwd()
    return sorted(path for path in loaded_files() if under(path, folder))


def _bare(task: Task, paths: Sequence[str]) -> None:
    task.files = lambda: len(paths)
    while True:
        for path in paths:
            os.stat(path)
        task.pause(1.0)


def bare_ours(task: Task) -> None:
    _bare(task, loaded())


def bare_all(task: Task) -> None:
    _bare(task, sorted(loaded_files()))


def ours_scanner(task: Task) -> None:
    engine = Scanner()
    for path in loaded():
        engine.watch(path, known_signature(path))
    task.files = lambda: len(engine)
    while True:
        engine.tick()
        task.pause(1.0)


def _code_changed(task: Task, *, third_party: bool) -> None:
    changed = CodeChanged(Settings(third_party=third_party))
    task.files = lambda: len(changed._scanner)
    while True:
        changed()
        task.pause(1.0)


def ours_code_changed(task: Task) -> None:
    _code_changed(task, third_party=False)


def ours_third_party(task: Task) -> None:
    _code_changed(task, third_party=True)


def _ours_watch(task: Task, engine: str, paths: Sequence[str]) -> None:
    for changes in watch(*paths, settings=engine_settings(engine)):
        for path in changes:
            task.notice(path)


def ours_stat(task: Task) -> None:
    _ours_watch(task, "stat", loaded())


def ours_watchfiles(task: Task) -> None:
    _ours_watch(task, "watchfiles", loaded())


def ours_stat_modules(task: Task) -> None:
    _ours_watch(task, "stat", ())


def ours_watchfiles_modules(task: Task) -> None:
    _ours_watch(task, "watchfiles", ())


def gunicorn_poll(task: Task) -> None:
    module: Any = importlib.import_module("gunicorn.reloader")
    module.time = task.clock()
    reloader = module.Reloader(interval=1, callback=task.notice)
    task.files = lambda: len(set(reloader.get_files()))
    reloader.run()


def gunicorn_inotify(task: Task) -> None:
    module: Any = importlib.import_module("gunicorn.reloader")
    module.InotifyReloader(callback=task.notice).run()


def werkzeug_stat(task: Task) -> None:
    module: Any = importlib.import_module("werkzeug._reloader")
    module.time = task.clock()
    loop = module.StatReloaderLoop()

    def trigger(path: str) -> None:
        # A new process would take its baseline now.
        loop.mtimes[path] = os.stat(path).st_mtime
        task.notice(path)

    loop.trigger_reload = trigger
    task.files = lambda: len(loop.mtimes)
    with loop:
        loop.run()


def django_stat(task: Task) -> None:
    module: Any = importlib.import_module("django.utils.autoreload")
    module.time = task.clock()
    reloader = module.StatReloader()
    reloader.notify_file_changed = task.notice
    task.files = lambda: len(set(reloader.watched_files()))
    if module.apps.ready:
        # As `run` does before its loop: the folders of templates and translations.
        module.autoreload_started.send(sender=reloader)
    reloader.run_loop()


def cherrypy_poll(task: Task) -> None:
    module: Any = importlib.import_module("cherrypy.process.plugins")
    told: list[str] = []

    def restart() -> None:
        path = told[0].partition("because ")[2].rpartition(" changed")[0]
        told.clear()
        # A new process would take its baseline now.
        reloader.mtimes[path] = os.stat(path).st_mtime
        task.notice(path)

    reloader = module.Autoreloader(SimpleNamespace(log=told.append, restart=restart))
    reloader.thread = SimpleNamespace(cancel=bool, name="")
    task.files = lambda: len(reloader.mtimes)
    while True:
        reloader.run()
        task.pause(reloader.frequency)


def hupper_poll(task: Task) -> None:
    polling: Any = importlib.import_module("hupper.polling")
    worker: Any = importlib.import_module("hupper.worker")
    monitor = polling.PollingFileMonitor(task.notice, interval=1)
    walker = worker.WatchSysModules(lambda paths: [monitor.add_path(path) for path in paths])
    task.files = lambda: len(monitor.paths)

    def pause(seconds: float) -> None:
        task.pause(seconds)
        # Hupper's other loop, once a second, too.
        walker.update_paths()

    walker.update_paths()
    polling.time = SimpleNamespace(sleep=pause)
    monitor.run()


def watchfiles_bare(task: Task) -> None:
    module: Any = importlib.import_module("watchfiles")
    # Its defaults are a step of 50 ms and a debounce of 1600 ms; said here, should they change.
    for changes in module.watch(os.getcwd(), step=50, debounce=1600):
        for _, path in changes:
            task.notice(path)


def watchdog_observer(task: Task) -> None:
    module: Any = importlib.import_module("watchdog.observers")

    class Handler:
        def dispatch(self, event: Any) -> None:
            task.notice(event.src_path)
            task.notice(event.dest_path)

    observer = module.Observer()
    observer.schedule(Handler(), os.getcwd(), recursive=True)
    observer.start()
    observer.join()


GUNICORN = ("gunicorn.reloader", "gunicorn")
WATCHFILES = ("watchfiles", "watchfiles")
WATCHDOG = ("watchdog.observers", "watchdog")
TICKS = (
    Contender(BARE, bare_ours),
    Contender("ours, Scanner.tick()", ours_scanner),
    Contender("ours, code_changed()", ours_code_changed),
    Contender("ours, code_changed(), third_party", ours_third_party),
    Contender(BARE_ALL, bare_all),
    Contender("hupper, polling", hupper_poll, "hupper", "hupper"),
    Contender("gunicorn, poll", gunicorn_poll, *GUNICORN),
    Contender("cherrypy, Autoreloader", cherrypy_poll, "cherrypy.process.plugins", "cherrypy"),
    Contender("werkzeug, stat", werkzeug_stat, "werkzeug._reloader", "werkzeug"),
    Contender("django, StatReloader", django_stat, "django.utils.autoreload", "django"),
)
LATENCIES = (
    Contender("ours, stat", ours_stat),
    Contender("ours, watchfiles", ours_watchfiles, "engine", "watchfiles"),
    Contender("watchfiles, bare", watchfiles_bare, *WATCHFILES),
    Contender("watchdog, Observer", watchdog_observer, *WATCHDOG),
    Contender("gunicorn, inotify", gunicorn_inotify, "inotify.adapters", "gunicorn inotify"),
    *TICKS[5:],
)
STARTS = (
    Contender("ours, stat", ours_stat_modules),
    Contender("ours, watchfiles", ours_watchfiles_modules, "engine", "watchfiles"),
    Contender("watchfiles, bare", watchfiles_bare, *WATCHFILES),
    Contender("watchdog, Observer", watchdog_observer, *WATCHDOG),
)
ROLES = {"tick": TICKS, "latency": LATENCIES, "start": STARTS}


class Line:
    """JSON to and from `detection.py`; what a contender prints goes elsewhere."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def say(self, **values: Any) -> None:
        with self._lock:
            print(json.dumps(values), file=self._out, flush=True)

    def hear(self) -> Any:
        """The next order; without one it is over."""
        text = sys.stdin.readline()
        return json.loads(text) if text else os._exit(0)


class Meter:
    """Stands where a loop sleeps: what lies between two sleeps is a tick."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._left = 0
        self._seconds: list[float] = []
        self._began: float | None = None
        self.task = Task(self.pause, lambda path: line.say(error=f"{path} did not change"))

    def pause(self, _: float) -> None:
        now = time.perf_counter()
        if self._began is None:
            self._line.say(files=self.task.files())
        else:
            self._seconds.append(now - self._began)
            self._left -= 1
            if not self._left:
                self._line.say(seconds=self._seconds)
        if not self._left:
            self._seconds = []
            self._left = self._line.hear()
        self._began = time.perf_counter()


def tick(contender: Contender, line: Line) -> None:
    contender.run(Meter(line).task)


def latency(contender: Contender, line: Line) -> None:
    def notice(name: str) -> None:
        line.say(name=name, at=time.monotonic())

    threading.Thread(target=contender.run, args=[Task(time.sleep, notice)], daemon=True).start()
    line.say(files=0)
    line.hear()


def start(contender: Contender, line: Line) -> None:
    """Save one module after the other until one is noticed: from the save of that one on, it watches."""
    first = threading.Event()
    noticed: set[str] = set()

    def notice(name: str) -> None:
        if name in saved:
            noticed.add(name)
            first.set()

    saved: dict[str, float] = {}
    paths = loaded()
    line.say(files=len(paths))
    line.hear()
    before = resident()
    began = time.monotonic()
    threading.Thread(target=contender.run, args=[Task(time.sleep, notice)], daemon=True).start()
    while not first.is_set():
        # Each path once, so that it is known which of its saves was noticed.
        saved.clear()
        for number, path in enumerate(paths):
            saved[os.path.basename(path)] = time.monotonic()
            save(path)
            # Longer than the longest debounce, and finer in the beginning.
            if first.wait(0.002 if number < 100 else 0.01):
                break
        first.wait(3.0)
    # All that came with the first.
    time.sleep(0.2)
    line.say(seconds=min(saved[name] for name in noticed) - began, kb=resident() - before)


def resident() -> int:
    """The memory of this process and of those it started, in kB; what they share counts once."""
    pids = [os.getpid()]
    for pid in pids:
        # It grows while we go through it.
        for task in Path(f"/proc/{pid}/task").iterdir():
            pids += map(int, (task / "children").read_text().split())
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(line.split()[1]) for text in rollups for line in text.splitlines() if line.startswith("Pss:"))


def save(path: str) -> float:
    """As editors do it: a sibling, renamed over. When that was done."""
    sibling = f"{path}.new"
    with open(sibling, "w") as file:
        file.write(f"VALUE = {time.monotonic_ns()}\n")
    os.rename(sibling, path)
    return time.monotonic()


def load(folder: str) -> None:
    """Import the project; sys.path is what a server would have."""
    sys.path[0] = folder
    if os.path.isdir(DJANGO):
        os.environ["DJANGO_SETTINGS_MODULE"] = f"{DJANGO}.settings"
        importlib.import_module("django").setup()
        importlib.import_module(f"{DJANGO}.urls")
        return
    for package in sorted(Path().glob("pkg_*")):
        for path in sorted(package.glob("*.py")):
            importlib.import_module(package.name if path.stem == "__init__" else f"{package.name}.{path.stem}")


def main() -> None:
    """`contenders.py ROLE NAME`, in the folder of the project."""
    role, name = sys.argv[1:]
    line = Line()
    contender = next(each for each in ROLES[role] if each.name == name)
    if not name.startswith("ours"):
        # Werkzeug walks it: not the checkouts of this package.
        package = os.path.dirname(os.path.dirname(os.path.abspath(scanner.__file__)))
        known = {str(TESTS.parent), package} - set(map(os.path.abspath, site.getsitepackages()))
        sys.path[:] = [each for each in sys.path if each not in known]
    load(os.getcwd())
    {"tick": tick, "latency": latency, "start": start}[role](contender, line)


if __name__ == "__main__":
    main()
