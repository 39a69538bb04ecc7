#!/usr/bin/env python3
"""What a restart costs visitors while one writes code: `wsgi-reload serve`, Bottle, Werkzeug, and Waitress under hupper.

Real servers under load, each a process of its own, as its users start it. First good saves, each seen through to the
new code, and then SIGKILL to the parent; then a save that does not load (an ImportError) and its repair. The contenders
take turns in every round, so a machine that changes its mood is the same to all of them.
`python tests/benchmarks/serve_restart.py --help` tells what can be chosen.
"""

from __future__ import annotations

import argparse
import errno
import http.client
import importlib.util
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
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
    longest_gap,
    longest_request,
    median,
    quietly,
    row,
    sleep_at_import,
    top,
    turns,
)
from harness import Load, Project, Server, wait_until  # noqa: E402

# Who was not answered comes back so much later, as a proxy does.
PAUSE = 0.02
REFUSED = f"connect: {os.strerror(errno.ECONNREFUSED)}"

BOTTLE = """\
import sys

import bottle

from app import app

if __name__ == "__main__":
    bottle.run(app=app, host="127.0.0.1", port=int(sys.argv[1]), reloader=True, quiet=True)
"""
WERKZEUG = """\
import logging
import sys

from werkzeug.serving import run_simple

from app import app

if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    run_simple("127.0.0.1", int(sys.argv[1]), app, use_reloader=True, reloader_type="stat", threaded=True)
"""
HUPPER = """\
import sys

import hupper
import waitress


def main():
    from app import app

    waitress.serve(app, listen="127.0.0.1:" + sys.argv[1], _quiet=True)


if __name__ == "__main__":
    hupper.start_reloader("run.main")
    main()
"""


class Contender(NamedTuple):
    """One way to serve and to restart. *script*: what its user writes as `run.py`; *words*: else its command line."""

    title: str
    needs: tuple[str, ...] = ()
    script: str = ""
    words: tuple[str, ...] = ()


SERVE = ("-m", "wsgi_reload_hooks", "serve", "app:app", "--bind", "127.0.0.1:{port}")
CONTENDERS = {
    "serve": Contender("`serve`", ("gunicorn",), words=SERVE),
    "bottle": Contender("Bottle, `run(reloader=True)`", ("bottle",), BOTTLE),
    "werkzeug": Contender("Werkzeug, `run_simple(use_reloader=True)`", ("werkzeug",), WERKZEUG),
    "hupper": Contender("hupper and Waitress", ("hupper", "waitress"), HUPPER),
}


@dataclass
class Good:
    """What visitors saw of one run of good saves, and what SIGKILL to the parent left."""

    requests: int = 0
    refused: int = 0
    failed: int = 0
    gaps: list[float] = field(default_factory=list)
    longest: list[float] = field(default_factory=list)
    first_new: list[float] = field(default_factory=list)
    never: int = 0
    left: int = 0


@dataclass
class Broken:
    """What visitors saw of a save that does not load, and of its repair."""

    refused: int
    failed: int
    gap: float
    after: str
    repaired: float | None


class Running(Server):
    """One contender in the project's folder."""

    def __init__(self, project: Project, contender: Contender) -> None:
        self.name = contender.title
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        if contender.script:
            project.save("run.py", contender.script)
        words = [word.format(port=port) for word in contender.words] or ["run.py", str(port)]
        # Byte code is known by whole seconds: whoever saves and restarts faster than that would meet the old one.
        super().__init__(project, [sys.executable, *words], environment={"PYTHONDONTWRITEBYTECODE": "1"})
        self.use_port(port)

    @property
    def port(self) -> int:
        return self._port


class Run:
    """One contender, in one round."""

    def __init__(self, options: argparse.Namespace, contender: Contender) -> None:
        self._options = options
        self._contender = contender

    def good(self) -> Good:
        """Save, see the new code, and again; then end the parent."""
        seen = Good()
        with self._serving() as (project, server):
            missed = 0
            for _ in range(self._options.saves):
                missed = 0 if self._one_save(project, server, seen) else missed + 1
                seen.never += bool(missed)
                if missed == 2:
                    break
            server.send(signal.SIGKILL)
            self._pass(1.0)
            seen.left = len(server.processes())
        return seen

    def _one_save(self, project: Project, server: Running, seen: Good) -> bool:
        with self._load(server) as load:
            # At least a second after the save before: some know whole seconds only.
            self._pass(max(1.1, self._options.quiet))
            saved = project.release(top=top(self._options))
            limit = self._options.import_seconds + LIMIT
            new = quietly(lambda: load.wait_for(project.version, limit))
            # What comes right after the first answer.
            self._pass(0.5)
            load.stop()
            if new is not None:
                seen.first_new.append(new - saved)
            seen.requests += len(load.answers)
            seen.refused += refused(load)
            seen.failed += len(load.failed) - refused(load)
            seen.gaps.append(longest_gap(load, saved))
            seen.longest.append(longest_request(load, saved - 1.0))
        return new is not None

    def broken(self) -> Broken:
        """Save what does not load, look on for a while, repair it."""
        with self._serving() as (project, server), self._load(server) as load:
            self._pass(self._options.quiet)
            broken = project.broken(top=top(self._options), bottom="import no_such_module")
            self._pass(self._options.broken_seconds)
            after = state(server)
            gap = longest_gap(load, broken)
            saved = project.release(top=top(self._options))
            repaired = quietly(lambda: load.wait_for(project.version, self._options.import_seconds + LIMIT))
            load.stop()
            few = refused(load)
            return Broken(few, len(load.failed) - few, gap, after, None if repaired is None else repaired - saved)

    @contextmanager
    def _serving(self) -> Iterator[tuple[Project, Running]]:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            project = Project(
                Path(folder) / "project",
                import_seconds=sleep_at_import(self._options),
                handler_seconds=self._options.handler_seconds,
            )
            project.release(top=top(self._options))
            with Running(project, self._contender) as server:
                # Who takes its first look at the files late must not miss the first save.
                self._pass(2.0)
                yield project, server
                # What a way leaves behind is counted, and ended by its number.
                server.kill()
                server.forget()

    def _load(self, server: Running) -> Load:
        return Load(server.port, keep_alive=False, clients=self._options.clients, pause=PAUSE)

    def _pass(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > end, "time passes", seconds + LIMIT)


def refused(load: Load) -> int:
    return sum(answer.error == REFUSED for answer in load.failed)


def state(server: Running) -> str:
    """What a visitor meets now, and who is still there."""
    try:
        answer = f"answers {server.ask(timeout=2.0)[0]}"
    except (OSError, http.client.HTTPException):
        answer = "no answer"
    left = [pid for pid in server.processes() if pid != server.pid]
    if not server.exited():
        return answer if left else f"{answer}, the parent alone is left"
    return f"{answer}, " + ("an orphan is left" if left else "dead")


def good_table(runs: dict[str, list[Good]]) -> Iterator[str]:
    """A line per contender; gap and request: the longest of all saves."""
    yield row(
        (
            "contender",
            "requests",
            "refused",
            "other failures",
            "longest gap",
            "longest request",
            "save to new",
            "orphans",
        )
    )
    yield row(("---", *["---:"] * 7))
    for name, seen in runs.items():
        never = sum(run.never for run in seen)
        tried = never + sum(len(run.first_new) for run in seen)
        yield row(
            (
                CONTENDERS[name].title + (f" ({never} of {tried} saves never served)" if never else ""),
                str(sum(run.requests for run in seen)),
                str(sum(run.refused for run in seen)),
                str(sum(run.failed for run in seen)),
                f"{max(gap for run in seen for gap in run.gaps):.2f} s",
                f"{max(each for run in seen for each in run.longest):.2f} s",
                median([seconds for run in seen for seconds in run.first_new]),
                f"{statistics.median(run.left for run in seen):g}",
            )
        )


def broken_table(runs: dict[str, list[Broken]]) -> Iterator[str]:
    """A line per contender."""
    yield row(("contender", "refused", "other failures", "longest gap", "before the repair", "repair to new"))
    yield row(("---", "---:", "---:", "---:", "---", "---:"))
    for name, seen in runs.items():
        yield row(
            (
                CONTENDERS[name].title,
                str(sum(run.refused for run in seen)),
                str(sum(run.failed for run in seen)),
                f"{statistics.median(run.gap for run in seen):.2f} s",
                "; ".join(sorted({run.after for run in seen})),
                median([run.repaired for run in seen if run.repaired is not None]),
            )
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    here = [name for name, each in CONTENDERS.items() if all(map(importlib.util.find_spec, each.needs))]
    parser.add_argument("--contenders", default=",".join(here), help="(default: %(default)s)")
    add_arguments(parser, import_seconds=0.5)
    parser.set_defaults(saves=10, clients=8, workers=1, quiet=1.0)
    options = parser.parse_args()
    options.contenders = chosen(parser, "contender", options.contenders, here)
    return options


def main() -> None:
    """Every round: every contender, in turn."""
    options = parse()
    # Told to end, it takes its servers along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    good: dict[str, list[Good]] = {name: [] for name in options.contenders}
    broken: dict[str, list[Broken]] = {name: [] for name in options.contenders}
    for number in range(options.rounds):
        for name in turns(options.contenders, number):
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
            run = Run(options, CONTENDERS[name])
            if options.part != "broken":
                good[name].append(run.good())
            if options.part != "good":
                broken[name].append(run.broken())
    print(circumstances(options, ("gunicorn", "waitress", "bottle", "werkzeug", "hupper")))
    if options.part != "broken":
        print("\nGood saves:\n", *good_table(good), sep="\n")
    if options.part != "good":
        print("\nA save that does not load, and its repair:\n", *broken_table(broken), sep="\n")


if __name__ == "__main__":
    main()
