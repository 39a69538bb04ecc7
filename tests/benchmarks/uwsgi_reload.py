#!/usr/bin/env python3
"""What a reload of uWSGI costs visitors: these hooks, py-autoreload, the @timer recipe and touch-chain-reload.

Real servers under load. First good saves, each seen through to the new code in every worker; then a save that does
not load (an ImportError) and its repair. The ways take turns in every round, so a machine that changes its mood is
the same to all of them. `python tests/benchmarks/uwsgi_reload.py --help` tells what can be chosen; pyuwsgi is
measured by an environment that has it.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    longest_gap,
    longest_request,
    median,
    quietly,
    row,
    sleep_at_import,
    top,
    turns,
)
from harness import HAVE_UWSGI, IS_PYUWSGI, Load, Project, Uwsgi, wait_until  # noqa: E402

# The load client gives up at so many failures: from there on the number means "always".
ALWAYS = 1000
# So many answers come from more than one lucky worker.
LOOKS = 20
# As it stands in many a project.
RECIPE = """\
import os
import sys

import uwsgi
from uwsgidecorators import timer

_mtimes = {}


def code_changed():
    for module in list(sys.modules.values()):
        filename = getattr(module, "__file__", None)
        if not filename:
            continue
        if filename.endswith((".pyc", ".pyo")):
            filename = filename[:-1]
        if not os.path.exists(filename):
            continue
        mtime = os.stat(filename).st_mtime
        if filename not in _mtimes:
            _mtimes[filename] = mtime
            continue
        if mtime != _mtimes[filename]:
            _mtimes.clear()
            return True
    return False


@timer(1)
def check(signum):
    if code_changed():
        uwsgi.reload()
"""


class Setup(NamedTuple):
    """One way to run uWSGI."""

    title: str
    lazy: bool
    router: bool = False
    one: bool = False


SETUPS = {
    "lazy": Setup("lazy-apps, http-socket", lazy=True),
    "lazy-router": Setup("lazy-apps, http (router)", lazy=True, router=True),
    "plain": Setup("without lazy-apps, http-socket", lazy=False),
    "plain-router": Setup("without lazy-apps, http (router)", lazy=False, router=True),
    "lazy-1": Setup("lazy-apps, http-socket, one worker", lazy=True, one=True),
}


class Way(NamedTuple):
    """One way to bring a save into service."""

    title: str
    options: tuple[str, ...] = ()
    hooks: bool = False
    touched: bool = False


WAYS = {
    "ours": Way("these hooks", hooks=True),
    "py-autoreload": Way("py-autoreload=1", ("--py-autoreload", "1")),
    "timer": Way("@timer recipe", ("--import", "recipe")),
    "touch-chain": Way("touch-chain-reload", ("--touch-chain-reload", "trigger"), touched=True),
}


@dataclass
class Good:
    """What visitors saw of one run of good saves."""

    requests: int = 0
    failed: list[int] = field(default_factory=list)
    gap: float = 0.0
    longest: float = 0.0
    first_new: list[float] = field(default_factory=list)
    all_new: list[float] = field(default_factory=list)
    never: int = 0
    gone: bool = False
    action: str = "-"


@dataclass
class Broken:
    """What visitors saw of a save that does not load, and of its repair."""

    requests: int
    failed: int
    after: str
    repaired: float | None


class Run:
    """One server, one set-up, one way."""

    def __init__(self, options: argparse.Namespace, setup: Setup, way: Way) -> None:
        self._options = options
        self._setup = setup
        self._way = way
        self._workers = 1 if setup.one else options.workers
        self._patience = options.patience + self._workers * options.import_seconds

    def good(self) -> Good:
        """Save, see the new code in every worker, and again."""
        seen = Good()
        with self._serving() as (project, server):
            workers = server.workers()
            missed = 0
            for _ in range(self._options.saves):
                served = self._one_save(project, server, seen)
                missed = 0 if served else missed + 1
                if server.exited() or missed == 2:
                    break
            seen.gone = server.exited()
            seen.action = action(server, workers)
        return seen

    def _one_save(self, project: Project, server: Uwsgi, seen: Good) -> bool:
        # Visitors of its own: their failures end at a thousand, and not those of the next save.
        with server.load(self._options.clients) as load:
            # In quiet times, and at least a second after the save before: a .pyc and a trigger know whole seconds only.
            self._pass(server, max(1.1, self._options.quiet))
            known = len(load.answers)
            saved = self._save(project)
            done = self._everywhere(server, load, project.version, known)
            if done is None:
                seen.never += 1
            else:
                seen.first_new.append(load.first(project.version) - saved)
                seen.all_new.append(done - saved)
            # What the last of a roll may still do to visitors.
            self._pass(server, 0.5)
            load.stop()
            seen.requests += len(load.answers)
            seen.failed.append(len(load.failed))
            seen.gap = max(seen.gap, longest_gap(load, saved))
            seen.longest = max(seen.longest, longest_request(load, saved - 1.0))
        return done is not None

    def broken(self) -> Broken:
        """Save what does not load, look on for a while, repair it."""
        with self._serving() as (project, server), server.load(self._options.clients) as load:
            self._pass(server, self._options.quiet)
            self._save(project, bottom="import no_such_module")
            self._pass(server, self._options.broken_seconds)
            after = state(server)
            saved = self._save(project)
            repaired = self._repaired(server, project.version)
            load.stop()
            return Broken(
                len(load.answers), len(load.failed), after, None if repaired is None else max(0.0, repaired - saved)
            )

    @contextmanager
    def _serving(self) -> Iterator[tuple[Project, Uwsgi]]:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            project = self._project(Path(folder) / "project")
            server = Uwsgi(
                project,
                # A line for each request is work, and not what is measured.
                "--disable-logging",
                *self._way.options,
                workers=self._workers,
                hooks=self._way.hooks,
                lazy=self._setup.lazy,
                router=self._setup.router,
            )
            with server:
                # The first worker answers; so much later the others do, too.
                self._pass(server, self._options.import_seconds)
                yield project, server
                # What a way leaves behind is not this benchmark's question.
                server.kill()
                server.forget()

    def _project(self, root: Path) -> Project:
        project = Project(
            root, import_seconds=sleep_at_import(self._options), handler_seconds=self._options.handler_seconds
        )
        project.save("recipe.py", RECIPE)
        project.save("trigger", "")
        project.release(top=top(self._options))
        return project

    def _save(self, project: Project, bottom: str = "") -> float:
        first = top(self._options)
        saved = project.broken(top=first, bottom=bottom) if bottom else project.release(top=first)
        if self._way.touched:
            os.utime(project.root / "trigger")
        return saved

    def _everywhere(self, server: Uwsgi, load: Load, version: str, known: int) -> float | None:
        """When every worker answered that version and nobody was answered another one any more; None: never."""

        def done() -> float | None:
            if server.exited() or len(load.failed) >= ALWAYS:
                return -1.0
            return all_new(load.answers[known:], version, self._workers)

        found = quietly(lambda: wait_until(done, "all workers answer it", self._patience))
        return None if found is None or found < 0 else found

    def _repaired(self, server: Uwsgi, version: str) -> float | None:
        """Since when new visitors are answered that version."""
        since = 0.0
        in_a_row = 0

        def served() -> bool:
            nonlocal since, in_a_row
            began = time.monotonic()
            status, text = look(server)
            good = status == 200 and text.startswith(f"{version} ")
            since = since if good and in_a_row else began
            in_a_row = in_a_row + 1 if good else 0
            return in_a_row >= LOOKS or server.exited()

        found = quietly(lambda: wait_until(served, "the repair is served", self._patience))
        return since if found and in_a_row >= LOOKS else None

    def _pass(self, server: Uwsgi, seconds: float) -> None:
        end = time.monotonic() + seconds
        wait_until(lambda: server.exited() or time.monotonic() > end, "time passes", seconds + LIMIT)


def look(server: Uwsgi) -> tuple[int, str]:
    """Status and text, 0 when there is no answer."""
    try:
        return server.ask(timeout=2.0)
    except (OSError, http.client.HTTPException):
        return 0, ""


def state(server: Uwsgi) -> str:
    """What visitors meet now."""
    if server.exited():
        return "gone"
    met = {look(server)[0] for _ in range(LOOKS)}
    return ", ".join("no answer" if status == 0 else str(status) for status in sorted(met))


def action(server: Uwsgi, before: Sequence[int]) -> str:
    """How the workers were replaced: all at once by a new uWSGI, or one after the other."""
    if server.execs():
        return "exec"
    return "roll" if set(before) - set(server.workers()) else "-"


def good_table(runs: dict[str, list[Good]]) -> Iterator[str]:
    """A line per way; longest: medians of the rounds; save to ...: medians of the saves."""
    yield row(
        ("way", "action", "requests", "failed", "longest gap", "longest request", "save to new", "save to all new")
    )
    yield row(("---", "---", *["---:"] * 6))
    for name, seen in runs.items():
        yield row(
            (
                WAYS[name].title + remark(seen),
                ", ".join(sorted({run.action for run in seen})),
                str(sum(run.requests for run in seen)),
                failures([failed for run in seen for failed in run.failed]),
                f"{statistics.median(run.gap for run in seen):.3f} s",
                f"{statistics.median(run.longest for run in seen):.3f} s",
                median([seconds for run in seen for seconds in run.first_new]),
                median([seconds for run in seen for seconds in run.all_new]),
            )
        )


def remark(seen: Sequence[Good]) -> str:
    never = sum(run.never for run in seen)
    tried = never + sum(len(run.all_new) for run in seen)
    gone = ", server gone" if any(run.gone for run in seen) else ""
    return f" ({never} of {tried} saves never served by all{gone})" if never or gone else ""


def broken_table(runs: dict[str, list[Broken]]) -> Iterator[str]:
    """A line per way."""
    yield row(("way", "requests", "failed", "before the repair", "repair to served"))
    yield row(("---", "---:", "---:", "---", "---:"))
    for name, seen in runs.items():
        yield row(
            (
                WAYS[name].title,
                str(sum(run.requests for run in seen)),
                failures([run.failed for run in seen]),
                ", ".join(sorted({run.after for run in seen})),
                median([run.repaired for run in seen if run.repaired is not None]),
            )
        )


def failures(numbers: Sequence[int]) -> str:
    return f"{sum(numbers)}{'+' if max(numbers) >= ALWAYS else ''}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--setups", default=",".join(SETUPS), help="(default: %(default)s)")
    parser.add_argument("--contenders", default=",".join(WAYS), help="(default: %(default)s)")
    add_arguments(parser, import_seconds=0.5)
    parser.add_argument(
        "--patience",
        type=float,
        default=20.0,
        help="so long after a save, and an import for each worker, it is called never (default: %(default)s)",
    )
    options = parser.parse_args()
    options.setups = chosen(parser, "set-up", options.setups, SETUPS)
    options.contenders = chosen(parser, "contender", options.contenders, WAYS)
    if not HAVE_UWSGI:
        parser.error("this environment has neither uwsgi nor pyuwsgi")
    return options


def main() -> None:
    """Every round: every set-up, every way, in turn."""
    options = parse()
    # Told to end, it takes its servers along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    good: dict[str, dict[str, list[Good]]] = {name: {way: [] for way in options.contenders} for name in options.setups}
    broken: dict[str, dict[str, list[Broken]]] = {
        name: {way: [] for way in options.contenders} for name in options.setups
    }
    for number in range(options.rounds):
        for name in options.setups:
            for way in turns(options.contenders, number):
                print(f"round {number + 1}: {name}, {way}", file=sys.stderr, flush=True)
                run = Run(options, SETUPS[name], WAYS[way])
                if options.part != "broken":
                    good[name][way].append(run.good())
                if options.part != "good":
                    broken[name][way].append(run.broken())
    print(circumstances(options, ("pyuwsgi" if IS_PYUWSGI else "uwsgi",)))
    for name in options.setups:
        title = SETUPS[name].title
        if options.part != "broken":
            print(f"\n{title}: good saves\n", *good_table(good[name]), sep="\n")
        if options.part != "good":
            print(f"\n{title}: a save that does not load, and its repair\n", *broken_table(broken[name]), sep="\n")


if __name__ == "__main__":
    main()
