"""Kinds of broken code that a worker of gunicorn must never get, each with its report and its repair."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from harness import Gunicorn, Project, holds, patterns, project_for

IMPORT_SECONDS = 0.2
# More than an import takes on a machine that has other things to do for a while.
BOOT_TIMEOUT = {"WSGI_RELOAD_BOOT_TIMEOUT": "3.0"}


def nothing(project: Project) -> None:
    """The repaired `app.py` is all that it takes."""


def delete_helper(project: Project) -> None:
    os.unlink(project.root / "helper.py")


def write_helper(project: Project) -> None:
    project.save("helper.py", "VERSION = 'helper'\n")


def rename_package(project: Project) -> None:
    os.rename(project.root / "parts", project.root / "pieces")


def use_renamed_package(project: Project) -> None:
    project.imports = "import helper\nimport pieces"


class Breakage(NamedTuple):
    """How it breaks, what the report says, and what is repaired beside `app.py`."""

    name: str
    do: Callable[[Project], object]
    why: str
    repair: Callable[[Project], object] = nothing


BREAKAGES = (
    Breakage("syntax error", lambda project: project.broken(bottom="def"), r"app\.py, line \d+: SyntaxError"),
    Breakage(
        "import error in a dependency",
        lambda project: project.save("helper.py", "\nimport no_such_module\n"),
        r"helper\.py, line 2: ModuleNotFoundError: No module named 'no_such_module'",
        write_helper,
    ),
    Breakage(
        "name error",
        lambda project: project.broken(top="undefined_name"),
        r"app\.py, line \d+: NameError: name 'undefined_name' is not defined",
    ),
    Breakage("no callable", lambda project: project.broken(bottom="del app"), r"app"),
    Breakage("sys.exit", lambda project: project.broken(top="import sys; sys.exit(3)"), r"(?i)exit|3"),
    Breakage("os._exit", lambda project: project.broken(top="os._exit(3)"), r"(?i)exit|3"),
    Breakage(
        "segmentation fault",
        lambda project: project.broken(top="import ctypes; ctypes.string_at(0)"),
        r"(?i)SIGSEGV|segmentation|signal 11|crash",
    ),
    Breakage(
        "endless import",
        lambda project: project.broken(top="while True:\n    time.sleep(0.01)"),
        r"3 s",
    ),
    Breakage("file deleted", delete_helper, r"helper", write_helper),
    Breakage("package renamed", rename_package, r"parts", use_renamed_package),
)
LIFESPAN = Breakage(
    "lifespan failure",
    lambda project: project.broken(bottom="FAIL_AT_STARTUP = 'no database today'"),
    r"(?i)lifespan|startup|no database today",
)


def assert_calm(server: Gunicorn, boots: int, reports: int, name: str) -> None:
    """After a refusal nothing more is tried, and nothing more is told."""

    def calm() -> bool:
        return server.count(patterns.BOOTING) <= boots and server.count(patterns.REFUSED) == reports

    holds(calm, f"{name}: {reports} reports, {boots} boots", seconds=0.3)


def project_with_dependencies(root: Path, worker_class: str) -> Project:
    project = project_for(worker_class, root, import_seconds=IMPORT_SECONDS, imports="import helper\nimport parts")
    write_helper(project)
    project.save("parts/__init__.py", "")
    project.release()
    return project
