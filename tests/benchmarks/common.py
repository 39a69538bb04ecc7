"""What the benchmarks have in common: what can be chosen, and what somebody needs who wants to compare."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from importlib import metadata
from typing import TypeVar

from harness import PACKAGE, Answer, Load

LIMIT = 10.0
BUSY = """
_end = time.process_time() + {seconds}
while time.process_time() < _end:
    pass
"""

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser, *, import_seconds: float, broken: bool = True) -> None:
    """The load, the project and the saves; *broken*: among them are some that do not load."""
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--saves", type=int, default=5, help="good saves in a round (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--clients", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--import-seconds", type=float, default=import_seconds, help="(default: %(default)s)")
    parser.add_argument(
        "--cpu-bound", action=argparse.BooleanOptionalAction, default=False, help="the import computes, else it waits"
    )
    parser.add_argument("--handler-seconds", type=float, default=0.02, help="(default: %(default)s)")
    parser.add_argument("--quiet", type=float, default=2.0, help="seconds without a save before (default: %(default)s)")
    if broken:
        parser.add_argument("--part", choices=("all", "good", "broken"), default="all", help="(default: %(default)s)")
        parser.add_argument(
            "--broken-seconds",
            type=float,
            default=4.0,
            help="from the broken save to its repair (default: %(default)s)",
        )


def chosen(parser: argparse.ArgumentParser, what: str, text: str, known: Collection[str]) -> list[str]:
    """The names in a list with commas."""
    names = text.split(",")
    unknown = set(names) - set(known)
    if unknown:
        parser.error(f"unknown {what} {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    return names


def top(options: argparse.Namespace) -> str:
    """What the application does first when it is imported."""
    return BUSY.format(seconds=options.import_seconds) if options.cpu_bound else ""


def sleep_at_import(options: argparse.Namespace) -> float:
    return 0.0 if options.cpu_bound else float(options.import_seconds)


def turns(ways: Sequence[T], number: int) -> list[T]:
    """Another one begins in each round."""
    first = number % len(ways)
    return [*ways[first:], *ways[:first]]


def circumstances(options: argparse.Namespace, packages: Sequence[str]) -> str:
    """What somebody needs who wants to compare."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    kind = "CPU-bound" if options.cpu_bound else "waiting"
    return (
        f"{time.strftime('%Y-%m-%d')}, {versions}, wsgi-reload-hooks {version('wsgi-reload-hooks')}\n"
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores\n"
        f"{options.workers} worker{'' if options.workers == 1 else 's'}, {options.clients} clients, {options.handler_seconds * 1000:g} ms handlers, "
        f"{options.import_seconds:g} s import ({kind}), {options.saves} saves x {options.rounds} rounds"
    )


def version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return f"({PACKAGE})" if distribution == "wsgi-reload-hooks" else "-"


def longest_gap(load: Load, since: float) -> float:
    """The longest time in which not one client was answered."""
    ends = sorted(answer.end for answer in load.answers if answer.end > since and not answer.error)
    over = max(since, *(answer.end for answer in load.answers))
    return max(after - before for before, after in zip([since, *ends], [*ends, over], strict=False))


def longest_request(load: Load, since: float) -> float:
    """0 when visitors had given up by then."""
    return max((answer.duration for answer in load.answers if answer.start >= since), default=0.0)


def all_new(answers: Sequence[Answer], version: str, workers: int) -> float | None:
    """When so many workers had answered that version and nobody was answered another one any more; None: not yet."""
    if not answers or any(answer.version != version for answer in answers[-100:]):
        return None
    first: dict[int, float] = {}
    for answer in answers:
        if answer.version == version:
            first[answer.pid] = min(answer.end, first.get(answer.pid, answer.end))
    if len(first) < workers:
        return None
    last_old = max((answer.end for answer in answers if answer.version not in ("", version)), default=0.0)
    return max(last_old, sorted(first.values())[workers - 1])


def quietly(answer: Callable[[], float | bool]) -> float | None:
    """None when it did not come in time."""
    try:
        return answer()
    except AssertionError:
        return None


def median(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s" if seconds else "never"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
