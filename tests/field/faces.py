"""One application under each server, and as a script: the same questions and the same answers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import GUNICORN, HAVE_UWSGI, Gunicorn, Project, Script, Serve, Server, Uwsgi

APPS = Path(__file__).resolve().parents[1] / "apps"
WATCHING = r"watching \d+ files?"
STAT = {"WSGI_RELOAD_ENGINE": "stat", "WSGI_RELOAD_INTERVAL": "0.05", "WSGI_RELOAD_BUDGET": "1"}

_NEEDS = {
    "gunicorn": pytest.mark.skipif(not GUNICORN, reason="gunicorn is not installed"),
    "uwsgi": pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed"),
}


def cell(face: str, *rest: str, fault: str = "") -> Any:
    """One cell of a table; *fault*: what goes wrong in it today, nothing where it is as it should be."""
    marks = [_NEEDS[face]] if face in _NEEDS else []
    if fault:
        marks.append(pytest.mark.xfail(strict=True, reason=fault))
    return pytest.param(face, *rest, marks=marks)


def copied(app: str, root: Path) -> Project:
    """The program `tests/apps/APP` as a project in the folder *root*."""
    shutil.copytree(APPS / app, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return Project(root)


def release(project: Project, name: str, old: str = "v1", new: str = "v2") -> None:
    """Save the file *name* with another version in it."""
    project.save(name, (project.root / name).read_text().replace(old, new))


class Run(Script):
    """`wsgi-reload run app.py`, for a program that prints which version it serves."""

    def version(self, path: str = "/") -> str:
        """The last version that the program has printed."""
        found = re.findall(r"^serving (\S+)", self.log, re.MULTILINE)
        return found[-1] if found else ""


@contextmanager
def in_service(face: str, project: Project, environment: dict[str, str], limit: float) -> Iterator[Server]:
    """`app.py` of the project in service with version v1, and watched."""
    with _server(face, project, {**STAT, **environment}) as server:
        server.wait_for_version("v1")
        server.wait_for_log(WATCHING, limit=limit)
        yield server


def _server(face: str, project: Project, environment: dict[str, str]) -> Server:
    if face == "gunicorn":
        return Gunicorn(project, workers=1, environment=environment)
    if face == "uwsgi":
        return Uwsgi(project, workers=1, environment=environment)
    if face == "serve":
        return Serve(project, environment=environment)
    return Run(project.root, "app.py", environment=environment)
