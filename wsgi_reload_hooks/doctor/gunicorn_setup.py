"""Examine a gunicorn set-up that need not run: gunicorn itself reads its command line or configuration (`gunicorn_probe`)."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..core.errors import Failure
from ..core.finding import Finding
from ..core.settings import Settings
from ..core.text import printable
from ..gunicorn.setting_checks import (
    ENVIRONMENT,
    check_configurations,
    check_settings,
    configurations,
    hooks_missing,
    hooks_off,
)
from .command_line import GUNICORN, MODULE, CommandLine
from .project import Project

PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gunicorn_probe.py")
_CONFIGURATION_AT_MOST = 30.0
# An installer begins a script with a line of sh where the interpreter's path is too long or has spaces.
_SHEBANG = re.compile(rb"#! *(?:\S*/env +)?([^\s]*python[\d.]*)\s|#!.*\n'''exec' \"?([^\"\n]+?)\"? \"\$0\"")


@dataclasses.dataclass(frozen=True)
class GunicornSetup:
    """What gunicorn reads. *place*: what was examined, for a finding. *settings*: their values; *places*: where those come
    from that are no defaults. *broken*: place and reason of a configuration that does not load."""

    place: str
    version: str
    project: Project
    arguments: Sequence[str] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hooks: bool = False
    broken: tuple[str, str] | None = None

    def __str__(self) -> str:
        return f"gunicorn {self.version}, {self.place}"

    def findings(self, settings: Settings, somaxconn: int | None) -> Iterator[Finding]:
        """Findings about gunicorn's settings; *settings* are ours, *somaxconn* is the system's limit of waiting connections."""
        if self.broken is not None:
            where, reason = self.broken
            text = f"gunicorn's configuration does not load: {reason}"
            yield Finding("configuration", where, text, "repair it: gunicorn does not start")
            return
        if not settings.enabled:
            yield hooks_off(settings)
        elif not self.hooks:
            yield hooks_missing(self.place, GUNICORN)
        variable = shlex.split(self.project.environ.get(ENVIRONMENT, ""))
        yield from check_configurations(configurations(self.arguments), configurations(variable))
        yield from check_settings(
            self.settings,
            lambda name: self.places.get(name, self.place),
            hooks=self.hooks and settings.enabled,
            share=settings.share,
            somaxconn=somaxconn,
        )


def from_command(command: CommandLine, environ: Mapping[str, str], folder: str) -> GunicornSetup:
    """What *command* starts in *folder* with *environ*. Raises `Failure` where its interpreter has no gunicorn."""
    python, program = list(command.python), command.program
    if not python:
        script = shutil.which(os.path.join(folder, program) if os.sep in program else program, path=environ.get("PATH"))
        python = [(script and _interpreter(script, environ)) or sys.executable]
        program = script or MODULE
    elif program != MODULE:
        program = os.path.join(folder, program)
    return _setup(python, program, command.arguments, environ, folder, "command line")


def from_configuration(name: str | None, environ: Mapping[str, str], folder: str, place: str) -> GunicornSetup:
    """What gunicorn reads from the configuration *name*, None for its default, without an application named.

    The gunicorn on ``PATH`` is asked, else that of our own interpreter. Raises `Failure` where there is none.
    """
    arguments = [] if name is None else ["-c", name]
    script = shutil.which(GUNICORN, path=environ.get("PATH"))
    python = (script and _interpreter(script, environ)) or sys.executable
    return _setup([python], "-", arguments, environ, folder, place)


def _interpreter(script: str, environ: Mapping[str, str]) -> str | None:
    """The interpreter that *script* names in its first lines; None where it names no Python."""
    try:
        with open(script, "rb") as file:
            found = _SHEBANG.match(file.read(1000))
    except OSError:
        return None
    named = os.fsdecode(found[1] or found[2]) if found else ""
    return shutil.which(named, path=environ.get("PATH")) if named else None


def _setup(
    python: Sequence[str], how: str, arguments: Sequence[str], environ: Mapping[str, str], folder: str, place: str
) -> GunicornSetup:
    answer = _ask([*python, PROBE, how, *arguments], environ, folder)
    if "missing" in answer:
        raise Failure(
            f"{printable(python[0])} cannot import gunicorn ({printable(answer['missing'])}): name the interpreter that "
            "can, wsgi-reload doctor -- venv/bin/python -m gunicorn ..."
        )
    failed, version = answer.get("error"), answer.get("version", "")
    if failed is not None:
        where = failed["path"] and _shown(failed["path"], folder)
        at = place if not where else f"{where}, line {failed['line']}" if failed["line"] else where
        broken = printable(at), printable(failed["reason"])
        return GunicornSetup(place, version, Project(place, folder, environ), broken=broken)
    project = Project(
        place=place,
        folder=os.path.join(folder, answer["settings"]["chdir"]),
        environ={**{k: v for k, v in environ.items() if not k.startswith("WSGI_RELOAD_")}, **answer["environ"]},
        application=answer["application"],
        path=answer["path"],
        watchfiles=answer["watchfiles"],
    )
    places = {name: _shown(where, folder) for name, where in answer["places"].items()}
    return GunicornSetup(place, version, project, arguments, answer["settings"], places, answer["hooks"])


def _ask(words: Sequence[str], environ: Mapping[str, str], folder: str) -> dict[str, Any]:
    """What the probe answers. Raises `Failure` where it cannot be run."""
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


def _shown(path: str, folder: str) -> str:
    return os.path.relpath(path, folder) if path.startswith(folder.rstrip(os.sep) + os.sep) else path
