"""The worker classes, each with what this interpreter has for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import pytest

from .project import Project
from .server import GUNICORN

UVICORN = "uvicorn_worker.UvicornWorker"
NEEDS = {"gevent": "gevent", "tornado": "tornado", UVICORN: "uvicorn_worker"}
ALL = ("sync", "gthread", "gevent", "tornado", "asgi", UVICORN)


def is_asgi(worker_class: str) -> bool:
    """Does it take an ASGI application?"""
    return worker_class in ("asgi", UVICORN)


def project_for(worker_class: str, root: Path, *, import_seconds: float = 0.2, imports: str = "") -> Project:
    """A project that makes the best of the worker class: its own kind of application, many requests at a time."""
    return Project(
        root,
        asgi=is_asgi(worker_class),
        tornado=worker_class == "tornado" and not one_at_a_time(worker_class),
        import_seconds=import_seconds,
        imports=imports,
    )


def one_at_a_time(worker_class: str) -> bool:
    """A worker answers one request after the other, so sixteen clients make a queue of it."""
    return worker_class == "sync"


def _reason_to_skip(worker_class: str) -> str:
    if worker_class == "asgi" and GUNICORN < (25, 0):
        return "gunicorn's own asgi worker came with 25.0"
    module = NEEDS.get(worker_class)
    if module is not None and importlib.util.find_spec(module) is None:
        return f"{module} is not installed"
    return ""


def each(names: Iterable[str] = ALL, **marks: Iterable[str]) -> pytest.MarkDecorator:
    """Run a test once per worker class; *marks*: the name of a mark -> the classes that get it."""
    cases = []
    for name in names:
        reason = _reason_to_skip(name)
        its = [getattr(pytest.mark, mark) for mark, classes in marks.items() if name in classes]
        if reason:
            its.append(pytest.mark.skip(reason=reason))
        cases.append(pytest.param(name, marks=its, id=name.partition(".")[0]))
    return pytest.mark.parametrize("worker_class", cases)
