#!/usr/bin/env python3
"""What one import for all workers saves: these hooks with `--preload` and without it, and gunicorn's own ways.

Real servers under load, two applications: one that computes while it is imported, and Django with pandas and
SQLAlchemy. Good saves, each seen through to the new code; then one more, during which the memory is looked at. The
contenders take turns in every round, so a machine that changes its mood is the same to all of them.
`python tests/benchmarks/preload.py --help` tells what can be chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))
# Last: where the package is installed, that is what is measured.
sys.path.append(str(TESTS.parent))

from benchmarks.common import (  # noqa: E402
    LIMIT,
    add_arguments,
    all_new,
    chosen,
    circumstances,
    longest_request,
    median,
    quietly,
    row,
    sleep_at_import,
    top,
    turns,
)
from harness import CONFIGURATION, Answer, Gunicorn, Project, processes, wait_until  # noqa: E402
from harness.frameworks import DJANGO, MARK, Framework, Site  # noqa: E402

# What gunicorn has loaded by then, its workers need not load.
ALONE = """
import time
import gunicorn.app.wsgiapp, gunicorn.workers.sync
began = time.monotonic()
import {modules}
print(time.monotonic() - began)
"""


class Computing(Project):
    """It uses the processor while it is imported."""

    def __init__(self, root: Path, options: argparse.Namespace) -> None:
        super().__init__(root, import_seconds=sleep_at_import(options), handler_seconds=options.handler_seconds)
        self._top = top(options)
        self.release()

    def release(self, *, top: str = "", bottom: str = "") -> float:
        return super().release(top=self._top + top, bottom=bottom)


class Shop(Site):
    """A Django project with a model on SQLite and a template; its views import pandas and SQLAlchemy."""

    def __init__(self, root: Path, options: argparse.Namespace) -> None:
        super().__init__(root, shop(options.handler_seconds))
        self.release()
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--run-syncdb", "--verbosity", "0"], cwd=root, check=True
        )

    def release(self, *, top: str = "", bottom: str = "") -> float:
        self.version = self.next_version()
        views = self.framework.views
        return self.save(views, top + self.framework.files[views].replace(MARK, self.version) + bottom)


def shop(handler_seconds: float) -> Framework:
    """The Django of the tests, with heavy libraries and a front page that asks the database and fills a template."""
    views = DJANGO.files[DJANGO.views]
    for old, new in (
        ("import os\n", "import os\nimport pandas\nimport sqlalchemy\n"),
        ("sleep(0.02)", f"sleep({handler_seconds})"),
        (
            "return say(request, VERSION)",
            'return render(request, "catalog/home.txt", {"text": page(VERSION), "products": Product.objects.all()})',
        ),
    ):
        assert old in views
        views = views.replace(old, new)
    template = "{{ text }}\n{% for product in products %}{{ product.name }}\n{% endfor %}"
    return dataclasses.replace(
        DJANGO, files={**DJANGO.files, DJANGO.views: views, "catalog/templates/catalog/home.txt": template}
    )


class Application(NamedTuple):
    """What is served. *modules*: what a worker has imported when it is ready."""

    title: str
    project: Callable[[Path, argparse.Namespace], Project]
    name: str
    modules: str
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


APPLICATIONS = {
    "cpu": Application("A module that computes at import", Computing, "app:app", "app"),
    "django": Application(
        "Django with pandas and SQLAlchemy",
        Shop,
        DJANGO.application,
        "shop.wsgi, shop.urls",
        ("django", "pandas", "sqlalchemy"),
    ),
}


class Contender(NamedTuple):
    """One way to bring a save into service. *share*: that setting of these hooks, None without them."""

    title: str
    words: tuple[str, ...] = ()
    share: str | None = None
    hup: bool = False


CONTENDERS = {
    "hup": Contender("gunicorn, HUP at the save", hup=True),
    "reload": Contender("gunicorn `--reload`", ("--reload", "--reload-engine", "poll")),
    "preload-hup": Contender("gunicorn `--preload`, HUP at the save", ("--preload",), hup=True),
    "roll": Contender("these hooks, `share = never`", share="never"),
    "zygote": Contender("these hooks, `--preload`", ("--preload",), share="auto"),
}


class Memory(NamedTuple):
    """In kB: PSS of all processes of a server, what of it is the zygote's, and what the zygote shares with nobody."""

    total: int
    zygote: int
    alone: int

    @classmethod
    def of(cls, server: Gunicorn) -> Memory:
        pids = server.processes()
        zygotes = list(filter(processes.is_zygote, pids))
        return cls(
            sum(memory(pid, "Pss") for pid in pids),
            sum(memory(pid, "Pss") for pid in zygotes),
            sum(memory(pid, "Private_Clean", "Private_Dirty") for pid in zygotes),
        )


def memory(pid: int, *names: str) -> int:
    """One that has just ended has none."""
    with contextlib.suppress(OSError):
        return processes.memory_kb(pid, *names)
    return 0


class Save(NamedTuple):
    """What visitors saw of one save; None: never."""

    failed: int
    quiet: float
    longest: float
    first_new: float | None
    all_new: float | None


class Seen(NamedTuple):
    """One contender, in one round. *extra*: the failed requests of the save during which *peak* was looked for."""

    saves: list[Save]
    extra: int
    before: Memory
    peak: Memory
    after: Memory


MOMENTS = ("before", "peak", "after")


class Run:
    """One application, one contender, one server."""

    def __init__(self, options: argparse.Namespace, application: Application, contender: Contender) -> None:
        self._options = options
        self._application = application
        self._contender = contender
        self._patience = LIMIT + options.import_seconds * options.workers

    def measure(self) -> Seen:
        """Save, see the new code in every worker, and again; look at the memory before, during one more, and after."""
        with self._serving() as (project, server):
            self._settle(server)
            before = Memory.of(server)
            saves: list[Save] = []
            for _ in range(self._options.saves):
                saves.append(self._save(project, server))
                if [save.all_new for save in saves[-2:]] == [None, None]:
                    break
            peak = before

            def look() -> None:
                nonlocal peak
                peak = max(peak, Memory.of(server))

            # Of its own: whoever looks at memory takes time from those who serve.
            extra = self._save(project, server, look)
            self._settle(server)
            return Seen(saves, extra.failed, before, peak, Memory.of(server))

    def _save(self, project: Project, server: Gunicorn, look: Callable[[], None] = lambda: None) -> Save:
        with server.load(self._options.clients) as load:
            # At least a second after the save before: byte code is known by whole seconds.
            quiet = load.measure(max(1.1, self._options.quiet))
            known = len(load.answers)
            saved = project.release()
            if self._contender.hup:
                server.hup()

            def done() -> float | None:
                look()
                return self._everyone(project, load.answers[known:])

            everywhere = quietly(lambda: wait_until(done, "all workers answer it", self._patience))
            # What the old ones may still do to visitors when they leave.
            wait(0.5)
            load.stop()
            first = None if everywhere is None else load.first(project.version) - saved
            everywhere = None if everywhere is None else everywhere - saved
            return Save(len(load.failed), quiet, longest_request(load, saved - 1.0), first, everywhere)

    @contextmanager
    def _serving(self) -> Iterator[tuple[Project, Gunicorn]]:
        share = self._contender.share
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            project = self._application.project(Path(folder) / "project", self._options)
            server = Gunicorn(
                project,
                *self._contender.words,
                workers=self._options.workers,
                configuration=None if share is None else CONFIGURATION,
                environment=None if share is None else {"WSGI_RELOAD_SHARE": share},
                application=self._application.name,
            )
            with server:
                with server.load(self._options.clients) as load:
                    wait_until(lambda: self._everyone(project, load.answers), "all workers answer", self._patience)
                yield project, server
                # What a way leaves behind is not this benchmark's question.
                server.kill()
                server.forget()

    def _everyone(self, project: Project, answers: Sequence[Answer]) -> float | None:
        return all_new(answers, project.version, self._options.workers)

    def _settle(self, server: Gunicorn) -> None:
        """Those who are to leave have left."""
        server.wait_for_workers(self._options.workers)
        wait(1.0)


def wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, "time passes", seconds + LIMIT)


def import_alone(options: argparse.Namespace, application: Application) -> float:
    """How long one import takes while nothing else runs."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        project = application.project(Path(folder) / "project", options)
        command = [sys.executable, "-c", ALONE.format(modules=application.modules)]
        return float(subprocess.run(command, cwd=project.root, check=True, stdout=subprocess.PIPE).stdout)


def table(runs: dict[str, list[Seen]]) -> Iterator[str]:
    """A line per contender; times: medians of the saves; longest requests and memory: medians of the rounds."""
    yield row(
        (
            "way",
            "failed",
            "longest request",
            "the same without a reload",
            "save to new",
            "all workers new",
            *(f"PSS {moment}" for moment in MOMENTS),
            "of that the zygote (shared with nobody)",
        )
    )
    yield row(("---", *["---:"] * 9))
    for name, seen in runs.items():
        saves = [save for run in seen for save in run.saves]
        zygote, alone = (megabytes([getattr(run.after, part) for run in seen]) for part in ("zygote", "alone"))
        yield row(
            (
                CONTENDERS[name].title + remark(saves),
                str(sum(save.failed for save in saves) + sum(run.extra for run in seen)),
                median([max(save.longest for save in run.saves) for run in seen]),
                median([max(save.quiet for save in run.saves) for run in seen]),
                median(first_new(seen)),
                median([save.all_new for save in saves if save.all_new is not None]),
                *(f"{total(seen, moment):.0f} MB" for moment in MOMENTS),
                f"{zygote:.0f} MB ({alone:.0f} MB)" if zygote else "-",
            )
        )


def remark(saves: Sequence[Save]) -> str:
    never = sum(save.all_new is None for save in saves)
    return f" ({never} of {len(saves)} saves never served by all)" if never else ""


def first_new(seen: Sequence[Seen]) -> list[float]:
    return [save.first_new for run in seen for save in run.saves if save.first_new is not None]


def total(seen: Sequence[Seen], moment: str) -> float:
    """The memory at one of the moments, in MB."""
    return megabytes([getattr(run, moment).total for run in seen])


def megabytes(kilobytes: Sequence[int]) -> float:
    return statistics.median(kilobytes) / 1024


def verdict(alone: Sequence[float], runs: dict[str, list[Seen]]) -> Iterator[str]:
    """What the zygote is to keep: the time of one import, and half of the memory."""
    took = statistics.median(alone)
    yield f"one import alone: {took:.2f} s"
    zygote, roll = runs.get("zygote", []), runs.get("roll", [])
    if first_new(zygote):
        yield f"zygote: save to new is one import {statistics.median(first_new(zygote)) - took:+.2f} s"
    if zygote and roll:
        parts = (f"{moment} {total(zygote, moment) / total(roll, moment):.2f}" for moment in MOMENTS)
        yield f"zygote: PSS as a part of that without sharing: {', '.join(parts)}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--apps", default=",".join(APPLICATIONS), help="(default: %(default)s)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="(default: %(default)s)")
    add_arguments(parser, import_seconds=1.0, broken=False)
    parser.set_defaults(saves=3, cpu_bound=True)
    options = parser.parse_args()
    options.apps = chosen(parser, "application", options.apps, APPLICATIONS)
    options.contenders = chosen(parser, "contender", options.contenders, CONTENDERS)
    return options


def main() -> None:
    """Every round: every application, every contender, in turn."""
    options = parse()
    # Told to end, it takes its servers along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    here = [name for name in options.apps if not APPLICATIONS[name].missing]
    alone: dict[str, list[float]] = {name: [] for name in here}
    runs: dict[str, dict[str, list[Seen]]] = {name: {way: [] for way in options.contenders} for name in here}
    for number in range(options.rounds):
        for name in here:
            alone[name].append(import_alone(options, APPLICATIONS[name]))
            for way in turns(list(runs[name]), number):
                print(f"round {number + 1}: {name}, {way}", file=sys.stderr, flush=True)
                runs[name][way].append(Run(options, APPLICATIONS[name], CONTENDERS[way]).measure())
    print(circumstances(options, ("gunicorn", "django", "pandas", "sqlalchemy", "watchfiles")))
    for name in options.apps:
        application = APPLICATIONS[name]
        print(f"\n{application.title}:\n")
        if application.missing:
            print(f"left out: {', '.join(application.missing)} not installed")
        else:
            print(*table(runs[name]), "", *verdict(alone[name], runs[name]), sep="\n")


if __name__ == "__main__":
    main()
