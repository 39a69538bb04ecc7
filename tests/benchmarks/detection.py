#!/usr/bin/env python3
"""What noticing a save costs and how fast it is: this package's engines beside the peers, in one run.

Five parts, each a Markdown table or more: the cost of a look with nothing changed, the time from a save until it is
noticed, what an idle server costs, what a switch of branch does, and the start in a folder full of other files.
The contenders take turns in every round. `python tests/benchmarks/detection.py --help` tells what can be chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import itertools
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))
# Last: where the package is installed, that is what is measured.
sys.path.append(str(TESTS.parent))

from benchmarks.common import chosen, turns, version  # noqa: E402
from benchmarks.contenders import BARE, BARE_ALL, DJANGO, LATENCIES, STARTS, TICKS, Contender, missing, save  # noqa: E402
from harness import CONFIGURATION, processes, wait_until  # noqa: E402
from harness.base import NOT_INHERITED  # noqa: E402

from wsgi_reload_hooks.core.settings import FIELDS  # noqa: E402

LIMIT = 120.0
PARTS = ("tick", "latency", "idle", "branch", "start")
PACKAGES = (
    "wsgi-reload-hooks",
    "gunicorn",
    "inotify",
    "werkzeug",
    "django",
    "djangorestframework",
    "cherrypy",
    "hupper",
    "watchdog",
    "watchfiles",
)
# Applications for Django: what is installed of them takes part.
APPLICATIONS = (
    "rest_framework",
    "rest_framework.authtoken",
    "django_filters",
    "django_extensions",
    "corsheaders",
    "debug_toolbar",
    "drf_spectacular",
    "crispy_forms",
    "import_export",
)
IN_A_PACKAGE = 100

APP = """
import importlib, os, time

NAMES = {names!r}


def say(*words):
    with open(os.environ["BENCH_BOOTS"], "a") as file:
        print(os.getpid(), time.monotonic(), *words, file=file)


say("begin")
VERSIONS = "".join(sorted(set(importlib.import_module(name).VALUE for name in NAMES)))
say("end", VERSIONS)


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [VERSIONS.encode()]
"""

SETTINGS = """
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "for a benchmark"
DEBUG = True
ROOT_URLCONF = "{site}.urls"
USE_I18N = True
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *{applications!r},
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {{
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        }},
    }}
]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}}
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""

SITE = {
    f"{DJANGO}/__init__.py": "",
    f"{DJANGO}/urls.py": """
from django.contrib import admin
from django.urls import include, path
from rest_framework.routers import DefaultRouter

from shop.views import Orders

router = DefaultRouter()
router.register("orders", Orders)
urlpatterns = [path("admin/", admin.site.urls), path("api/", include(router.urls))]
""",
    "shop/__init__.py": "",
    "shop/admin.py": "from django.contrib import admin\n\nfrom shop.models import Order\n\nadmin.site.register(Order)\n",
    "shop/models.py": """
from django.db import models


class Order(models.Model):
    number = models.CharField(max_length=20)
    created = models.DateTimeField(auto_now_add=True)
""",
    "shop/serializers.py": """
from rest_framework import serializers

from shop.models import Order


class OrderSerializer(serializers.ModelSerializer):
    class Meta:
        model = Order
        fields = ["number", "created"]
""",
    "shop/views.py": """
from rest_framework import viewsets

from shop.models import Order
from shop.serializers import OrderSerializer


class Orders(viewsets.ModelViewSet):
    queryset = Order.objects.all()
    serializer_class = OrderSerializer
""",
}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_modules(folder: Path, count: int, value: str = "a") -> list[str]:
    """So many modules, a hundred in a package; their names."""
    names = []
    for number in range(count):
        package, inside = divmod(number, IN_A_PACKAGE)
        module = f"mod_{number:05}" if inside else "__init__"
        write(folder / f"pkg_{package:03}" / f"{module}.py", f"VALUE = {value!r}\n")
        names.append(f"pkg_{package:03}.{module}" if inside else f"pkg_{package:03}")
    write(folder / "pyproject.toml", "")
    return names


def write_site(folder: Path) -> int:
    """A Django project as `startproject` lays it out, with what is installed; how many applications that are."""
    found = [name for name in APPLICATIONS if importlib.util.find_spec(name.partition(".")[0])]
    for path, text in SITE.items():
        write(folder / path, text)
    write(folder / DJANGO / "settings.py", SETTINGS.format(site=DJANGO, applications=found))
    write(folder / "pyproject.toml", "")
    (folder / "templates").mkdir()
    return len(found)


def write_others(folder: Path, count: int) -> None:
    """So many files that nobody loads, a hundred in a folder."""
    for number in range(count):
        if number % IN_A_PACKAGE == 0:
            below = folder / "media" / f"{number // IN_A_PACKAGE:05}"
            below.mkdir(parents=True)
        (below / f"{number:07}.txt").touch()


def table(*rows: Sequence[str]) -> None:
    head, *others = rows
    for row in (head, ["---"] + ["---:"] * (len(head) - 1), *others):
        print("| " + " | ".join(row) + " |")


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def able(contenders: Iterable[Contender]) -> list[Contender]:
    """Those that can run here; the others are told."""
    found = []
    for each in contenders:
        lack = missing(each)
        if lack:
            print(f"Skipped: {each.name}: {lack}.\n")
        else:
            found.append(each)
    return found


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)} | more


class Child:
    """A contender in its process."""

    def __init__(self, role: str, contender: Contender, folder: Path) -> None:
        self.name = contender.name
        self.noticed: dict[str, float] = {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the child
        command = [sys.executable, str(TESTS / "benchmarks" / "contenders.py"), role, contender.name]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def tell(self, order: object) -> None:
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)

    def hear(self) -> dict[str, Any]:
        """Its next word. A child that died or hangs is an AssertionError with what it said last."""
        assert self._process.stdout is not None
        guard = threading.Timer(LIMIT, self._process.kill)
        guard.start()
        text = self._process.stdout.readline()
        guard.cancel()
        said: dict[str, Any] = json.loads(text or '{"error": "gone"}')
        if "error" in said:
            self._errors.seek(0)
            raise AssertionError(f"{self.name}: {said['error']}\n{self._errors.read()[-3000:]}")
        return said

    def listen(self) -> None:
        """Write down when it noticed what, from now on, in a thread."""

        def collect() -> None:
            assert self._process.stdout is not None
            for text in self._process.stdout:
                said = json.loads(text)
                self.noticed.setdefault(said["name"], said["at"])

        threading.Thread(target=collect, daemon=True).start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()


# The cost of a look.


def measure_ticks(contenders: Sequence[Contender], folder: Path, ticks: int, rounds: int, base: str) -> None:
    with contextlib.ExitStack() as stack:
        # One after the other: the first one compiles.
        children, files = [], {}
        for each in contenders:
            child = stack.enter_context(Child("tick", each, folder))
            files[each.name] = child.hear()["files"]
            children.append(child)
            child.tell(1)
            child.hear()
        seconds: dict[str, list[float]] = {child.name: [] for child in children}
        for number in range(rounds):
            for child in turns(children, number):
                child.tell(ticks)
                seconds[child.name].append(statistics.median(child.hear()["seconds"]))
    reference = seconds[base]
    rows = []
    for name, found in seconds.items():
        median = statistics.median(found)
        ratio = statistics.median(one / other for one, other in zip(found, reference, strict=False))
        rows.append(
            (
                name,
                str(files[name]),
                f"{median * 1e3:.2f}",
                f"{ratio:.2f}",
                f"{median * 1e6 / max(files[name], 1):.2f}",
            )
        )
    table(("one look, nothing changed", "files", "ms", f"x {base}", "us a file"), *rows)
    print()


def tick(options: argparse.Namespace, folder: Path) -> None:
    print("\n## The cost of a look\n")
    contenders = able(TICKS)
    for size in options.sizes:
        progress(f"tick: {size} modules")
        project = folder / f"tick-{size}"
        write_modules(project, size)
        print(f"{size} generated modules, all loaded\n")
        measure_ticks(contenders, project, max(3, options.ticks * 1000 // size), options.rounds, BARE)
    if not (importlib.util.find_spec("django") and importlib.util.find_spec("rest_framework")):
        print("\nSkipped: the Django project: install django djangorestframework.")
        return
    progress("tick: Django")
    project = folder / "tick-django"
    project.mkdir()
    number = write_site(project)
    print(f"A Django project with {number} installed applications beside Django's own\n")
    measure_ticks(contenders, project, options.ticks, options.rounds, BARE_ALL)


# From a save until it is noticed.


def settle(child: Child, spare: list[Path]) -> None:
    """Save until it notices one."""
    for _ in range(5):
        path = spare.pop()
        save(str(path))
        with contextlib.suppress(AssertionError):
            wait_until(lambda path=path: path.name in child.noticed, "noticed", 3.0)  # type: ignore[misc]
            return
    raise AssertionError(f"{child.name} notices nothing")


def latency(options: argparse.Namespace, folder: Path) -> None:
    print("\n## From a save until it is noticed\n")
    modules = options.saves + 20
    seconds: dict[str, list[float]] = {}
    never: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        spare: dict[str, list[Path]] = {}
        children = []
        for number, each in enumerate(able(LATENCIES)):
            project = folder / f"latency-{number}"
            write_modules(project, modules)
            child = stack.enter_context(Child("latency", each, project))
            child.hear()
            child.listen()
            spare[each.name] = sorted(path for path in project.glob("pkg_*/*.py") if path.name != "__init__.py")
            children.append(child)
        for child in children:
            settle(child, spare[child.name])
            seconds[child.name], never[child.name] = [], 0
        for number in range(options.saves):
            progress(f"latency: save {number + 1}")
            saved: dict[str, tuple[str, float]] = {}
            # The last round ended with somebody's look: without this, the moments were not random.
            time.sleep(random.random())
            for child in turns(children, number):
                time.sleep(random.random() / len(children))
                path = spare[child.name].pop()
                saved[child.name] = path.name, save(str(path))
            with contextlib.suppress(AssertionError):
                wait_until(
                    lambda saved=saved: all(saved[child.name][0] in child.noticed for child in children),  # type: ignore[misc]
                    "all noticed",
                    6.0,
                )
            for child in children:
                name, at = saved[child.name]
                if name in child.noticed:
                    seconds[child.name].append(child.noticed[name] - at)
                else:
                    never[child.name] += 1
    rows = [
        (
            name,
            f"{statistics.median(found) * 1e3:.1f}" if found else "-",
            f"{max(found) * 1e3:.1f}" if found else "-",
            str(never[name]),
        )
        for name, found in seconds.items()
    ]
    table((f"{options.saves} saves, {modules} modules", "median ms", "longest ms", "not noticed in 6 s"), *rows)


# Whole servers.


class Way(NamedTuple):
    """A gunicorn with or without somebody who looks."""

    name: str
    options: tuple[str, ...] = ()
    engine: str = ""
    needs: str = ""

    def lack(self) -> str:
        return missing(Contender(self.name, lambda _: None, self.needs, f"gunicorn {self.needs.partition('.')[0]}"))

    def environment(self) -> dict[str, str]:
        return {"WSGI_RELOAD_ENGINE": self.engine} if self.engine and "engine" in FIELDS else {}


OURS = ("-c", str(CONFIGURATION))
PLAIN = Way("gunicorn, no reload", needs="gunicorn")
WAYS = (
    Way("ours, stat", OURS, "stat", "gunicorn"),
    Way("ours, watchfiles", OURS, "watchfiles", "engine"),
    Way("gunicorn --reload, poll", ("--reload", "--reload-engine", "poll"), needs="gunicorn"),
    Way("gunicorn --reload, inotify", ("--reload", "--reload-engine", "inotify"), needs="inotify.adapters"),
)


def able_ways(ways: Iterable[Way]) -> list[Way]:
    found = []
    for way in ways:
        lack = way.lack()
        if lack:
            print(f"Skipped: {way.name}: {lack}.\n")
        else:
            found.append(way)
    return found


class Boot(NamedTuple):
    """One import of the application; without versions it came to no end."""

    pid: int
    at: float
    versions: str


class Served:
    """A gunicorn for a project, until the block ends."""

    def __init__(self, way: Way, folder: Path, names: list[str], workers: int) -> None:
        self.workers = workers
        self.project = folder / "project"
        write(self.project / "app.py", APP.format(names=names))
        self._boots = folder / "boots"
        self._log = (folder / "log").open("w+")
        socket = f"unix:{folder / 's'}"
        command = [sys.executable, "-m", "gunicorn", *way.options, "--bind", socket, "--workers", str(workers)]
        self._process = subprocess.Popen(
            [*command, "app:app"],
            cwd=self.project,
            env=environment(BENCH_BOOTS=str(self._boots), **way.environment()),
            stdout=self._log,
            stderr=self._log,
        )

    def boots(self) -> list[Boot]:
        found: dict[int, Boot] = {}
        for text in self._boots.read_text().splitlines() if self._boots.exists() else ():
            pid, at, what, *rest = text.split(" ")
            found[int(pid)] = Boot(int(pid), float(at), rest[0] if what == "end" else "")
        return list(found.values())

    def serving(self) -> list[Boot]:
        return [boot for boot in self.boots() if processes.alive(boot.pid)]

    def tree(self) -> list[int]:
        """The master and all below it."""
        found = [self._process.pid]
        for pid in found:
            found += processes.children(pid)
        return found

    def gone(self) -> bool:
        return self._process.poll() is not None

    def tail(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:]

    def wait(self) -> None:
        """Until all workers have loaded the application."""

        def ready() -> bool:
            assert not self.gone(), self.tail()
            return sum(bool(boot.versions) for boot in self.serving()) >= self.workers

        wait_until(ready, lambda: f"all workers are there\n{self.tail()}", 60.0)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        left = self.tree()
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10.0)
        for pid in left:
            if processes.alive(pid):
                processes.kill(pid)
        self._process.wait()
        self._log.close()


class Usage(NamedTuple):
    """What the processes of a server have used so far."""

    schedstat_ns: int
    ticks: int
    rss_kb: int
    pss_kb: int

    @classmethod
    def of(cls, pids: Iterable[int]) -> Usage:
        pids = list(pids)
        every = [Path("/proc") / str(pid) for pid in pids]
        tasks = [task for process in every for task in process.glob("task/*/schedstat")]
        stats = [(process / "stat").read_text().rpartition(")")[2].split() for process in every]
        return cls(
            sum(int(task.read_text().split()[0]) for task in tasks),
            # User and system, and the same of children that ended.
            sum(int(each) for fields in stats for each in fields[11:15]),
            sum(processes.memory_kb(pid, "Rss") for pid in pids),
            sum(processes.memory_kb(pid, "Pss") for pid in pids),
        )


def idle(options: argparse.Namespace, folder: Path) -> None:
    print(f"\n## An idle gunicorn with {options.workers} workers and {options.idle_modules} loaded modules\n")
    ways = able_ways((PLAIN, *WAYS))
    before: dict[str, Usage] = {}
    after: dict[str, Usage] = {}
    count: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        servers = {}
        for number, way in enumerate(ways):
            progress(f"idle: start {way.name}")
            place = folder / f"idle-{number}"
            names = write_modules(place / "project", options.idle_modules)
            servers[way.name] = stack.enter_context(Served(way, place, names, options.workers))
            servers[way.name].wait()
        time.sleep(5.0)
        began = time.monotonic()
        for name, server in servers.items():
            before[name] = Usage.of(server.tree())
        time.sleep(options.idle_seconds)
        for name, server in servers.items():
            after[name] = Usage.of(server.tree())
            count[name] = len(server.tree())
        minute = 60.0 / (time.monotonic() - began)
    rows = []
    hertz = os.sysconf("SC_CLK_TCK")
    plain = 0.0
    for name, end in after.items():
        used = (end.schedstat_ns - before[name].schedstat_ns) / 1e6 * minute
        plain = plain or used
        coarse = (end.ticks - before[name].ticks) / hertz * 1e3 * minute
        rows.append(
            (
                name,
                str(count[name]),
                f"{used:.0f}",
                f"{used - plain:+.0f}",
                f"{coarse:.0f}",
                f"{end.rss_kb / 1024:.0f}",
                f"{end.pss_kb / 1024:.0f}",
            )
        )
    table(
        (
            f"idle for {options.idle_seconds:g} s",
            "processes",
            "CPU ms a minute",
            "above no reload",
            "same by utime+stime",
            "RSS MB",
            "PSS MB",
        ),
        *rows,
    )


# A switch of branch.


class Switch(NamedTuple):
    """What one `git checkout` caused."""

    boots: int
    waves: int
    mixed: int
    failed: int
    left: int
    seconds: float
    checkout: float
    gone: bool


def git(folder: Path, *words: str) -> None:
    command = ["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "gc.auto=0", *words]
    alone = environment(GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull)
    subprocess.run(command, cwd=folder, env=alone, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def write_repository(folder: Path, modules: int, others: int) -> list[str]:
    """Branches a and b; they differ in all modules, and in other files that lie beside these."""
    names: list[str] = []
    folder.mkdir()
    git(folder, "init", "-b", "a")
    write(folder / ".gitignore", "__pycache__\napp.py\n")
    for branch in "ab":
        if branch == "b":
            git(folder, "checkout", "-b", "b")
        names = write_modules(folder, modules, branch)
        packages = sorted(folder.glob("pkg_*"))
        for number in range(others):
            (packages[number % len(packages)] / f"mod_{number:05}.html").write_text(f"<p>{branch}</p>\n" * 50)
        git(folder, "add", "-A")
        git(folder, "commit", "-m", branch)
    git(folder, "checkout", "a")
    return names


def switch(server: Served, branch: str, quiet: float) -> Switch:
    """Check it out and wait until nothing boots any more."""
    known = {boot.pid for boot in server.boots()}
    began = time.monotonic()
    git(server.project, "checkout", branch)
    done = time.monotonic()

    def new() -> list[Boot]:
        return [boot for boot in server.boots() if boot.pid not in known]

    def calm() -> bool:
        found = new()
        last = max([done, *(boot.at for boot in found)])
        return time.monotonic() - last > (quiet if found else 2 * quiet)

    wait_until(calm, "nothing boots any more", 60.0)
    found = sorted(new(), key=lambda boot: boot.at)
    waves = sum(later.at - earlier.at > 0.5 for earlier, later in itertools.pairwise(found)) + bool(found)
    return Switch(
        boots=len(found),
        waves=waves,
        mixed=sum(len(boot.versions) > 1 for boot in found),
        failed=sum(not boot.versions for boot in found),
        left=server.workers if server.gone() else sum(boot.versions != branch for boot in server.serving()),
        seconds=max([done, *(boot.at for boot in found)]) - done,
        checkout=done - began,
        gone=server.gone(),
    )


def branch(options: argparse.Namespace, folder: Path) -> None:
    print(f"\n## A switch of branch that touches {options.branch_modules} loaded files\n")
    ways = able_ways(WAYS)
    for others in options.branch_others:
        place = folder / str(others)
        place.mkdir()
        measure_switches(options, place, ways, others)


def measure_switches(options: argparse.Namespace, folder: Path, ways: Sequence[Way], others: int) -> None:
    found: dict[str, list[Switch]] = {}
    origin = folder / "origin"
    names = write_repository(origin, options.branch_modules, others)
    with contextlib.ExitStack() as stack:
        servers = {}
        for number, way in enumerate(ways):
            progress(f"branch: start {way.name}")
            place = folder / f"branch-{number}"
            git(folder, "clone", str(origin), str(place / "project"))
            servers[way.name] = stack.enter_context(Served(way, place, names, options.workers))
            servers[way.name].wait()
            found[way.name] = []
        time.sleep(3.0)
        for number in range(options.switches):
            for name in turns(list(servers), number):
                if any(each.gone for each in found[name]):
                    continue
                progress(f"branch: switch {number + 1}, {name}")
                found[name].append(switch(servers[name], "ba"[number % 2], options.quiet))
                if found[name][-1].gone:
                    progress(f"branch: {name} is gone:\n{servers[name].tail()}")
    rows = [
        (
            name,
            f"{statistics.median(each.boots for each in seen) / options.workers:g}",
            f"{statistics.median(each.waves for each in seen):g}",
            str(sum(each.boots for each in seen)),
            str(sum(each.mixed for each in seen)),
            str(sum(each.failed for each in seen)),
            str(sum(each.left for each in seen)),
            f"{statistics.median(each.seconds for each in seen):.2f} s",
            f"gone at switch {len(seen)}" if seen[-1].gone else "alive",
        )
        for name, seen in found.items()
    ]
    checkout = statistics.median(each.checkout for seen in found.values() for each in seen)
    table(
        (
            f"{options.switches} switches, {options.workers} workers",
            "boots a worker",
            "waves",
            "all boots",
            "of both versions",
            "failed",
            "workers left without the new code",
            "checkout to last boot",
            "server",
        ),
        *rows,
    )
    print(f"\nThis checkout touches {others} other files, too, and takes {checkout:.2f} s (median).\n")


# The start.


def start(options: argparse.Namespace, folder: Path) -> None:
    print(f"\n## The start with {options.start_modules} loaded modules\n")
    contenders = able(STARTS)
    projects = {}
    for others in (0, options.others):
        progress(f"start: write {others} files")
        project = folder / f"start-{others}"
        write_modules(project, options.start_modules)
        write_others(project, others)
        projects[others] = project
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for number in range(options.rounds):
        for others, project in projects.items():
            for each in turns(contenders, number):
                progress(f"start: round {number + 1}, {others} other files, {each.name}")
                with Child("start", each, project) as child:
                    child.hear()
                    child.tell(1)
                    found.setdefault((each.name, others), []).append(child.hear())

    def median(name: str, others: int, what: str) -> float:
        return statistics.median(float(said[what]) for said in found[name, others])

    rows = [
        (
            each.name,
            *(f"{median(each.name, others, 'seconds') * 1e3:.0f}" for others in projects),
            *(f"{median(each.name, others, 'kb') / 1024:.1f}" for others in projects),
        )
        for each in contenders
    ]
    table(
        (
            f"median of {options.rounds}",
            "ms until it watches",
            f"with {options.others} other files",
            "MB of memory",
            f"with {options.others} other files",
        ),
        *rows,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    number = functools.partial(parser.add_argument, type=int)
    seconds = functools.partial(parser.add_argument, type=float)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas (default: %(default)s)")
    number("--rounds", default=5, help="of looks and of starts (default: %(default)s)")
    parser.add_argument("--sizes", default="1000,10000", help="modules for a look (default: %(default)s)")
    number("--ticks", default=20, help="looks in a round with 1000 modules (default: %(default)s)")
    number("--saves", default=30, help="until noticed (default: %(default)s)")
    number("--workers", default=4, help="(default: %(default)s)")
    seconds("--idle-seconds", default=60.0, help="(default: %(default)s)")
    number("--idle-modules", default=500, help="(default: %(default)s)")
    number("--switches", default=4, help="of branch (default: %(default)s)")
    number("--branch-modules", default=500, help="(default: %(default)s)")
    parser.add_argument(
        "--branch-others", default="0,12000", help="other files a switch touches (default: %(default)s)"
    )
    seconds("--quiet", default=3.0, help="seconds without a boot end a switch (default: %(default)s)")
    number("--start-modules", default=300, help="(default: %(default)s)")
    number("--others", default=100_000, help="other files at the start (default: %(default)s)")
    options = parser.parse_args()
    options.only = chosen(parser, "part", options.only, PARTS)
    options.branch_others = [int(count) for count in options.branch_others.split(",")]
    options.sizes = [int(size) for size in options.sizes.split(",")]
    return options


def circumstances() -> Iterator[str]:
    yield f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, "
    yield f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores\n"
    yield ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def main() -> None:
    """The parts that are wanted, one after the other."""
    options = parse()
    print("".join(circumstances()))
    parts = {"tick": tick, "latency": latency, "idle": idle, "branch": branch, "start": start}
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            parts[name](options, Path(folder).resolve())
        sys.stdout.flush()


if __name__ == "__main__":
    main()
