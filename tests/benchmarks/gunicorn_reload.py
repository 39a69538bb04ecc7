#!/usr/bin/env python3
"""What a reload costs visitors: these hooks, gunicorn's HUP and gunicorn's --reload, side by side.

Real servers under load. First good saves, each seen through to the new code; then a save that does not load
(an ImportError) and its repair. The three ways take turns in every round, so a machine that changes its mood is
the same to all of them. `python tests/benchmarks/gunicorn_reload.py --help` tells what can be chosen.
"""

from __future__ import annotations

import argparse
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
    chosen,
    circumstances,
    sleep_at_import,
    top,
    turns,
)
from harness import CONFIGURATION, UVICORN, Gunicorn, Load, Project, is_asgi, wait_until  # noqa: E402

CLASSES = {"sync": "sync", "gthread": "gthread", "gevent": "gevent", "asgi": "asgi", "uvicorn": UVICORN}


class Way(NamedTuple):
    """One way to bring a save into service."""

    name: str
    configuration: Path | None
    options: tuple[str, ...] = ()
    hup: bool = False


WAYS = (
    Way("these hooks", CONFIGURATION),
    Way("gunicorn HUP", None, hup=True),
    Way("gunicorn --reload", None, ("--reload", "--reload-engine", "poll")),
)


@dataclass
class Good:
    """What visitors saw of one run of good saves."""

    requests: int = 0
    failed: int = 0
    quiet: float = 0.0
    longest: float = 0.0
    first_new: list[float] = field(default_factory=list)
    old_after_new: list[float] = field(default_factory=list)
    never: int = 0


@dataclass
class Broken:
    """What visitors saw of a save that does not load, and of its repair."""

    requests: int
    failed: int
    alive: bool
    repaired: float | None


class Run:
    """One server, one way, one worker class."""

    def __init__(self, options: argparse.Namespace, way: Way, worker_class: str) -> None:
        self._options = options
        self._way = way
        self._class = worker_class

    def good(self) -> Good:
        """Save, see the new code everywhere, and again."""
        seen = Good()
        with self._serving() as (project, server, load):
            seen.quiet = load.measure(self._options.quiet)
            began = time.monotonic()
            for _ in range(self._options.saves):
                old = project.version
                saved = self._save(project, server)
                if self._arrives(server, load, project.version):
                    server.wait_for_workers(self._options.workers)
                    seen.first_new.append(load.first(project.version) - saved)
                    if old in load.versions(0.0):
                        seen.old_after_new.append(load.last(old) - load.first(project.version))
                else:
                    seen.never += 1
                    if server.exited():
                        break
            load.stop()
            seen.requests, seen.failed, seen.longest = len(load.answers), len(load.failed), load.longest(began)
        return seen

    def broken(self) -> Broken:
        """Save what does not load, look on for a while, repair it."""
        with self._serving() as (project, server, load):
            self._save(project, server, bottom="import no_such_module")
            end = time.monotonic() + self._options.broken_seconds
            wait_until(lambda: server.exited() or time.monotonic() > end, "time passes", 2 * LIMIT)
            alive = not server.exited()
            repaired = None
            if alive:
                saved = self._save(project, server)
                if self._arrives(server, load, project.version):
                    repaired = load.first(project.version) - saved
            load.stop()
            return Broken(len(load.answers), len(load.failed), alive, repaired)

    @contextmanager
    def _serving(self) -> Iterator[tuple[Project, Gunicorn, Load]]:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            project = self._project(Path(folder) / "project")
            server = Gunicorn(
                project,
                *self._way.options,
                worker_class=CLASSES[self._class],
                workers=self._options.workers,
                configuration=self._way.configuration,
            )
            with server:
                with server.load(self._options.clients) as load:
                    # The first worker answers; so much later the others do, too.
                    load.measure(self._options.import_seconds)
                    yield project, server, load
                # What a way leaves behind is not this benchmark's question.
                server.kill()
                server.forget()

    def _project(self, root: Path) -> Project:
        project = Project(
            root,
            asgi=is_asgi(CLASSES[self._class]),
            import_seconds=sleep_at_import(self._options),
            handler_seconds=self._options.handler_seconds,
        )
        project.release(top=top(self._options))
        return project

    def _save(self, project: Project, server: Gunicorn, bottom: str = "") -> float:
        first = top(self._options)
        saved = project.broken(top=first, bottom=bottom) if bottom else project.release(top=first)
        if self._way.hup:
            server.hup()
        return saved

    def _arrives(self, server: Gunicorn, load: Load, version: str) -> bool:
        """Whether all visitors come to see that version."""

        def all_see_it() -> bool:
            recent = load.answers[-100:]
            return server.exited() or all(answer.version == version for answer in recent)

        try:
            wait_until(all_see_it, "all see it", self._options.import_seconds * self._options.workers + LIMIT)
        except AssertionError:
            return False
        return not server.exited()


def good_table(runs: dict[str, list[Good]]) -> Iterator[str]:
    """A line per way; times are medians over the rounds (first two) or over all saves."""
    columns = ("way", "requests", "failed", "quiet", "longest", "x ours", "save to new", "x ours", "old after new")
    yield row(columns)
    reference: tuple[float, float] | None = None
    for name, seen in runs.items():
        saves = [seconds for run in seen for seconds in run.first_new]
        longest = statistics.median(run.longest for run in seen)
        first = statistics.median(saves) if saves else float("nan")
        reference = reference or (longest, first)
        never = sum(run.never for run in seen)
        yield row(
            (
                name,
                str(sum(run.requests for run in seen)),
                str(sum(run.failed for run in seen)),
                f"{statistics.median(run.quiet for run in seen):.3f} s",
                f"{longest:.3f} s",
                f"{longest / reference[0]:.1f}",
                f"{first:.3f} s" if saves else "-",
                f"{first / reference[1]:.1f}" if saves else "-",
                f"{statistics.median(each for run in seen for each in run.old_after_new):+.3f} s" if saves else "-",
            )
        ) + (f"  {never} saves never served by all workers" if never else "")


def broken_table(runs: dict[str, list[Broken]]) -> Iterator[str]:
    """A line per way."""
    yield row(("way", "requests", "failed", "server", "repair to new"))
    for name, seen in runs.items():
        repaired = [run.repaired for run in seen if run.repaired is not None]
        alive = sum(run.alive for run in seen)
        yield row(
            (
                name,
                str(sum(run.requests for run in seen)),
                str(sum(run.failed for run in seen)),
                "alive" if alive == len(seen) else f"gone {len(seen) - alive}/{len(seen)}",
                f"{statistics.median(repaired):.3f} s" if repaired else "never",
            )
        )


def row(cells: Sequence[str]) -> str:
    first, *others = cells
    return f"  {first:<20}" + "".join(f"{cell:>14}" for cell in others)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--classes", default="sync,gthread,gevent,asgi", help=f"of {','.join(CLASSES)} (default: %(default)s)"
    )
    add_arguments(parser, import_seconds=1.0)
    options = parser.parse_args()
    options.classes = chosen(parser, "worker class", options.classes, CLASSES)
    return options


def main() -> None:
    """Every round: every worker class, every way, in turn."""
    options = parse()
    good: dict[str, dict[str, list[Good]]] = {name: {way.name: [] for way in WAYS} for name in options.classes}
    broken: dict[str, dict[str, list[Broken]]] = {name: {way.name: [] for way in WAYS} for name in options.classes}
    for number in range(options.rounds):
        for name in options.classes:
            for way in turns(WAYS, number):
                print(f"round {number + 1}: {name}, {way.name}", file=sys.stderr, flush=True)
                run = Run(options, way, name)
                if options.part != "broken":
                    good[name][way.name].append(run.good())
                if options.part != "good":
                    broken[name][way.name].append(run.broken())
    print(circumstances(options, ("gunicorn", "gevent", "uvicorn", "uvicorn-worker")))
    for name in options.classes:
        if options.part != "broken":
            print(f"\n{name}: good saves", *good_table(good[name]), sep="\n")
        if options.part != "good":
            print(f"\n{name}: a save that does not load, and its repair", *broken_table(broken[name]), sep="\n")


if __name__ == "__main__":
    main()
