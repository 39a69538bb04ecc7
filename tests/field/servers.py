"""The servers and commands that faults of the field are shown on, all behind one set of functions."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest
from harness import HAVE_UWSGI, Gunicorn, Hup, LittleServer, Project, Script, Serve, Server, Uwsgi, wait_until
from harness.waiting import LIMIT

APPS = Path(__file__).resolve().parents[1] / "apps"
SERVERS = ("gunicorn", "preload", "uwsgi", "run", "serve")
FACES = (*SERVERS, "hup")
# Loose on purpose: the words around these change.
WATCHING = r"watching \d+ files?"
REFUSED = r"(?i)\brefused\b"
BLAMED = REFUSED + r"|\berror in the hooks\b"
TOLD = BLAMED + r"|\bcannot\b"
RELOADED = r"\b(?:reloaded|restarted) in "
SENT = r"\bHUP sent to \d+"


class Run(Script):
    """`wsgi-reload run -- python app.py`, where app.py serves at the port in the environment."""

    def __init__(self, project: Project, environment: Mapping[str, str]) -> None:
        # Bound as long as the program lives, so that no other process gets this port.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self._at = int(self._reserved.getsockname()[1])
        super().__init__(project.root, "app.py", environment={"PORT": str(self._at), **environment})

    @property
    def port(self) -> int:
        return self._at

    def _remove(self) -> None:
        super()._remove()
        self._reserved.close()


_BUILD: dict[str, Callable[[Project, Mapping[str, str]], Server]] = {
    "gunicorn": lambda project, environment: Gunicorn(project, workers=2, environment=environment, wait=False),
    "preload": lambda project, environment: Gunicorn(
        project, "--preload", workers=2, environment=environment, wait=False
    ),
    "uwsgi": lambda project, environment: Uwsgi(project, workers=2, environment=environment, wait=False),
    "run": Run,
    "serve": lambda project, environment: Serve(project, environment=environment, wait=False),
    "hup": lambda project, environment: Hup(
        project, "server.pid", "--app", "app:app", environment=environment, wait=False
    ),
}


@contextmanager
def unready(
    face: str, project: Project, environment: Mapping[str, str] | None = None, launcher: Sequence[str] = ()
) -> Iterator[Server]:
    """Start *face* in the project's folder; do not wait. *launcher*: a program of `tests/apps/launch` that starts it."""
    with ExitStack() as stack:
        if face == "hup":
            stack.enter_context(LittleServer(project.root))
        server = _BUILD[face](project, {"WSGI_RELOAD_ENGINE": "stat", **(environment or {})})
        if launcher:
            server._command[:0] = [sys.executable, *(str(APPS / "launch" / name) for name in launcher)]
        yield stack.enter_context(server)


@contextmanager
def started(
    face: str, project: Project, environment: Mapping[str, str] | None = None, launcher: Sequence[str] = ()
) -> Iterator[Server]:
    """The same; wait until it serves `v1` and watches."""
    with unready(face, project, environment, launcher) as server:
        server.wait_for_log(WATCHING)
        if isinstance(server, Script):
            server.quiet()
        if face != "hup":
            wait_until(lambda: answered(server) == "v1", "v1 is served")
        yield server


def project_of(app: str, folder: Path) -> Project:
    """A copy of the program *app* in a project's folder."""
    shutil.copytree(APPS / app, folder / "project", ignore=shutil.ignore_patterns("__pycache__"))
    return Project(folder / "project")


def save(project: Project, version: str = "v2", name: str = "app.py") -> None:
    """Save *name* with another version in it."""
    text = (project.root / name).read_text()
    project.save(name, text.replace('VERSION = "v1"', f'VERSION = "{version}"'))


def answered(server: Server, path: str = "/") -> str:
    """The version that a client gets; the status where it is not 200, nothing where no server answers."""
    try:
        status, text = server.ask(path)
    except (OSError, HTTPException):
        return ""
    return text.partition(" ")[0] if status == 200 else str(status)


def in_service(server: Server, version: str = "v2", path: str = "/") -> bool:
    """Whether clients get *version*; of `hup`: whether the server was told to load it."""
    if isinstance(server, Hup):
        return server.count(SENT) > 0
    return answered(server, path) == version


def wait_for_outcome(server: Server, version: str = "v2", limit: float = LIMIT) -> None:
    """Wait until *version* is in service, or refused."""
    wait_until(lambda: in_service(server, version) or server.count(REFUSED), f"{version} is served or refused", limit)


def each(faces: Iterable[str], fails: Iterable[str] = (), reason: str = "") -> pytest.MarkDecorator:
    """Run a test once per face. *fails*: those that have the fault today."""
    failing, cases = set(fails), []
    for name in faces:
        marks = []
        if name in failing:
            marks.append(pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason))
        if name == "uwsgi" and not HAVE_UWSGI:
            marks = [pytest.mark.skip(reason="uWSGI is not installed")]
        cases.append(pytest.param(name, marks=marks, id=name))
    return pytest.mark.parametrize("face", cases)
