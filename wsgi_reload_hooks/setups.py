"""What the doctor looks at: a set-up of gunicorn or uWSGI, from a command line or from a configuration file."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from .console import USAGE, Failure
from .files import printable
from .invocation import GUNICORN, UWSGI, Command, command
from .uwsgi_files import kind_of
from .uwsgi_options import COMMAND_LINE, Options, Unreadable, read

INTERVIEW = os.path.join(os.path.dirname(os.path.abspath(__file__)), "interview.py")
_CONFIGURATION_AT_MOST = 30.0
_VERSION_AT_MOST = 10.0


class Broken(Exception):
    """A configuration does not load: *place* and *reason*."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is known of a server: nothing but where it works, in this class."""

    place: str
    """What was looked at, for a line: ``command line``, the name of a file, the number of a process."""
    folder: str
    """Where the server works."""
    environ: Mapping[str, str]
    broken: Optional[Broken] = None
    application: str = ""
    """As it is named; nothing where it is not known."""
    source: Optional[str] = None
    """The file of it, where that can be known."""
    watchfiles: Optional[bool] = None
    """Whether the server can import watchfiles; None where that is not known."""
    hooks: bool = False
    """Whether its configuration loads the hooks."""
    hooks_run: Optional[bool] = None
    """Whether they run in it; None where that is not known."""

    def __str__(self) -> str:
        return self.place


@dataclasses.dataclass(frozen=True)
class Gunicorn(Setup):
    """*settings* as gunicorn has them, *places*: where those that are no defaults come from. *configs*,
    *variable_configs*: each ``-c`` of the command line and of ``GUNICORN_CMD_ARGS``."""

    version: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
    configs: Sequence[str] = ()
    variable_configs: Sequence[str] = ()

    def __str__(self) -> str:
        return f"gunicorn {self.version}, {self.place}".replace(" ,", ",")


@dataclasses.dataclass(frozen=True)
class Uwsgi(Setup):
    """*version*: () where it is not known. *bound*: it is pyuwsgi of a virtual environment. *files*: how many files it may
    open."""

    options: Options = dataclasses.field(default_factory=lambda: Options(()))
    version: tuple[int, ...] = ()
    bound: bool = False
    files: int = 0

    def __str__(self) -> str:
        return f"uWSGI {'.'.join(map(str, self.version))}, {self.place}".replace(" ,", ",")


# -- from a command line ---------------------------------------------------------------------------------------------


def setup(command: Command, environ: Mapping[str, str], folder: str, place: str = COMMAND_LINE) -> Setup:
    """What *command* starts in *folder* with *environ*. Raises `Failure` where that cannot be looked at."""
    if command.server == GUNICORN:
        return _gunicorn(command, environ, folder, place)
    return _uwsgi(command, environ, folder, place)


# -- from a file -----------------------------------------------------------------------------------------------------


def from_file(name: str, environ: Mapping[str, str], folder: str) -> Setup:
    """What a server makes of the configuration *name* alone, started in *folder*. Raises `Failure`."""
    path = name[len("file:") :] if name.startswith("file:") else name
    if kind_of(path):
        return setup(_plain_command(UWSGI, [f"--{kind_of(path)}", path], environ, folder), environ, folder, name)
    if path.endswith(".py") or path.startswith("python:"):
        return setup(_plain_command(GUNICORN, ["-c", path], environ, folder), environ, folder, name)
    raise Failure(
        f"{printable(name)}: neither gunicorn's configuration (.py) nor uWSGI's (.ini, .json, .xml, .yaml); "
        "name what starts the server: wsgi-reload doctor -- gunicorn ...",
        USAGE,
    )


def from_folder(environ: Mapping[str, str], folder: str) -> list[Setup]:
    """What is configured in *folder*, each server's default; where there is nothing, the folder itself."""
    found: list[Setup] = []
    default = os.path.exists(os.path.join(folder, "gunicorn.conf.py"))
    if default or environ.get("GUNICORN_CMD_ARGS"):
        place = "gunicorn.conf.py" if default else "GUNICORN_CMD_ARGS"
        found.append(setup(_plain_command(GUNICORN, [], environ, folder), environ, folder, place))
    if os.path.exists(os.path.join(folder, "uwsgi.ini")):
        found.append(from_file("uwsgi.ini", environ, folder))
    return found or [Setup(folder, folder, environ)]


def _plain_command(server: str, words: Sequence[str], environ: Mapping[str, str], folder: str) -> Command:
    found = command([server, *words], environ, folder)
    assert found is not None
    return dataclasses.replace(found, named=False)


# -- gunicorn --------------------------------------------------------------------------------------------------------


def _gunicorn(command: Command, environ: Mapping[str, str], folder: str, place: str) -> Setup:
    how = "-" if not command.named else "-m" if command.module else command.program
    python = command.python or (sys.executable,)
    answer = _interview([*python, INTERVIEW, how, *command.words], environ, folder)
    if "missing" in answer:
        raise Failure(
            f"{printable(python[0])} cannot import gunicorn ({printable(answer['missing'])}): name the interpreter that "
            "can, wsgi-reload doctor -- venv/bin/python -m gunicorn ..."
        )
    failed = answer.get("error")
    version = answer.get("version", "")
    if failed is not None:
        where = failed["path"] and _shown(failed["path"], folder)
        at = place if not where else f"{where}, line {failed['line']}" if failed["line"] else where
        broken = Broken(printable(at), printable(failed["reason"]))
        return Gunicorn(place, folder, environ, broken=broken, version=version)
    return Gunicorn(
        place=place,
        folder=os.path.join(folder, answer["settings"]["chdir"]),
        environ={**{k: v for k, v in environ.items() if not k.startswith("WSGI_RELOAD_")}, **answer["environ"]},
        application=answer["application"],
        source=answer["source"],
        watchfiles=answer["watchfiles"],
        hooks=answer["hooks"],
        version=version,
        settings=answer["settings"],
        places={name: _shown(where, folder) for name, where in answer["places"].items()},
        configs=answer["configs"],
        variable_configs=answer["variable_configs"],
    )


def _interview(words: Sequence[str], environ: Mapping[str, str], folder: str) -> dict[str, Any]:
    """What the program says. Raises `Failure` where it cannot be run."""
    # A file: what a configuration starts may keep a pipe open.
    with tempfile.TemporaryFile() as told:
        try:
            asked = subprocess.Popen(
                words,
                cwd=folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise Failure(f"{printable(words[0])}: cannot be run: {error.strerror}") from None
        try:
            status = asked.wait(_CONFIGURATION_AT_MOST)
            how = f"it ends gunicorn, exit code {status}"
        except subprocess.TimeoutExpired:
            how = f"it did not load within {_CONFIGURATION_AT_MOST:g} s"
        finally:
            if asked.returncode is None:
                os.killpg(asked.pid, signal.SIGKILL)
                asked.wait()
        told.seek(0)
        try:
            answer: dict[str, Any] = json.loads(told.read())
        except ValueError:
            return {"error": {"reason": how, "path": None, "line": None}}
        return answer


# -- uWSGI -----------------------------------------------------------------------------------------------------------


def _uwsgi(command: Command, environ: Mapping[str, str], folder: str, place: str) -> Setup:
    version = _version(command, environ, folder)
    try:
        options = read(command.words, environ, folder)
    except Unreadable as error:
        return Uwsgi(place, folder, environ, broken=Broken(error.place, error.reason), version=version)
    if options.find("emperor") is not None:
        raise Failure("an Emperor serves nothing itself: look at the configuration of a vassal")
    here = os.path.join(folder, options.value("chdir") or "")
    pairs = [each.partition("=") for each in options.values("env")]
    limit = options.number("max-fd", default=resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return Uwsgi(
        place=place,
        folder=here,
        environ={**environ, **{name: value for name, equals, value in pairs if equals}},
        application=options.value("module", "wsgi") or "",
        source=_source(options, environ, here),
        hooks=_has_hooks(options),
        options=options,
        version=version,
        bound=command.virtual,
        files=limit or 0,
    )


def _has_hooks(options: Options) -> bool:
    names = [
        f"{shared}{name}" for shared in ("", "shared-") for name in ("import", "pyimport", "py-import", "python-import")
    ]
    # Under lazy-apps the master imports what is shared, and no worker does.
    return "wsgi_reload_hooks.uwsgi_timer" in options.values(*(names[:4] if options.lazy else names))


def _source(options: Options, environ: Mapping[str, str], folder: str) -> Optional[str]:
    file = options.value("wsgi-file", "file")
    module = (options.value("module", "wsgi") or "").partition(":")[0]
    if not module:
        return os.path.join(folder, file) if file and os.path.isfile(os.path.join(folder, file)) else None
    paths = [*options.values("pythonpath", "python-path", "pp"), *environ.get("PYTHONPATH", "").split(os.pathsep)]
    for entry in ["", *filter(None, paths)]:
        start = os.path.join(folder, entry, *module.split("."))
        for path in (start + ".py", os.path.join(start, "__init__.py")):
            if os.path.isfile(path):
                return os.path.abspath(path)
    return None


def _version(command: Command, environ: Mapping[str, str], folder: str) -> tuple[int, ...]:
    words = [*command.python, *(["-m"] if command.module else []), command.program, "--version"]
    # With its options in the environment it would do more than tell its version.
    plain = {name: value for name, value in environ.items() if not name.startswith("UWSGI_")}
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            env=plain,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_VERSION_AT_MOST,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.match(rb"\s*(\d+(?:\.\d+)+)", done.stdout)
    return tuple(map(int, found[1].split(b"."))) if found else ()


def _shown(path: str, folder: str) -> str:
    return os.path.relpath(path, folder) if path.startswith(folder.rstrip(os.sep) + os.sep) else path
