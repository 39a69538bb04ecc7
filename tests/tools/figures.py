#!/usr/bin/env python3
"""Figures of the package's structure: files and lines per folder, the longest of each kind, CPU time of importing.

`python tests/tools/figures.py [FOLDER]`; FOLDER: the `wsgi_reload_hooks` of another checkout, for a comparison.
"""

from __future__ import annotations

import argparse
import ast
import resource
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parents[2] / "wsgi_reload_hooks"
# What a process imports for each face, besides the server itself.
FACES = {
    "code_changed": "from wsgi_reload_hooks import code_changed",
    "gunicorn": "import {gunicorn}",
    "uwsgi": "import {uwsgi}",
    "run": "from wsgi_reload_hooks import run_with_reloader",
}
FLAT = {"gunicorn": "wsgi_reload_hooks.attach", "uwsgi": "wsgi_reload_hooks.leader"}
FOLDERS = {"gunicorn": "wsgi_reload_hooks.gunicorn.attach", "uwsgi": "wsgi_reload_hooks.uwsgi.leader"}


class Longest(NamedTuple):
    """*lines* of the longest one, and *where* it is."""

    lines: int
    where: str


def definitions(package: Path, kinds: tuple[type[ast.AST], ...]) -> Iterator[Longest]:
    """Each definition of these *kinds*."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and isinstance(node, kinds):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield Longest(lines, f"{path.relative_to(package)}:{node.name}")


def import_seconds(package: Path, code: str, runs: int) -> float:
    """CPU seconds that *code* adds to a bare interpreter: the difference of two medians."""

    def median(program: str) -> float:
        return statistics.median(cpu_seconds([sys.executable, "-c", program], package.parent) for _ in range(runs))

    return median(code) - median("pass")


def cpu_seconds(command: list[str], folder: Path) -> float:
    """CPU seconds of one run of *command*."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("package", nargs="?", type=Path, default=HERE)
    parser.add_argument("--runs", type=int, default=20, help="imports of each face (default: %(default)s)")
    options = parser.parse_args()
    package: Path = options.package.resolve()
    folders: dict[str, list[int]] = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        folder = path.relative_to(package).parts[0] if path.parent != package else "(top)"
        folders[folder].append(len(path.read_text().splitlines()))
    print(f"{'folder':<12} files  lines  longest")
    for folder, sizes in sorted(folders.items()):
        print(f"{folder:<12} {len(sizes):>5} {sum(sizes):>6} {max(sizes):>8}")
    print(f"{'all':<12} {sum(map(len, folders.values())):>5} {sum(map(sum, folders.values())):>6}")
    for name, kinds in (("class", (ast.ClassDef,)), ("function", (ast.FunctionDef,))):
        longest = max(definitions(package, kinds))
        print(f"longest {name}: {longest.lines} lines, {longest.where}")
    modules = FOLDERS if (package / "gunicorn").is_dir() else FLAT
    for face, code in FACES.items():
        try:
            seconds = import_seconds(package, code.format(**modules), options.runs)
        except subprocess.CalledProcessError:
            print(f"import of {face}: not without its server")
        else:
            print(f"import of {face}: {seconds * 1000:.0f} ms of CPU")


if __name__ == "__main__":
    main()
