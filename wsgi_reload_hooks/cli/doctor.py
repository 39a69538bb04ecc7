"""List what gets in the way of reloads in a gunicorn or uWSGI set-up, each with what to do."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from ..control import client
from ..control.channel import remotes
from ..core.errors import ERROR, USAGE, Failure
from ..core.finding import Finding
from ..core.settings import Settings, SettingsError
from ..core.streams import say
from ..core.text import printable
from ..doctor.command_line import GUNICORN, parse
from ..doctor.gunicorn_setup import GunicornSetup, from_command, from_configuration
from ..doctor.process import (
    ServerProcess,
    approach,
    check_command_line,
    check_process,
    has_control_socket,
    main_process,
)
from ..doctor.project import Project, examine, this_system
from ..gunicorn.setting_checks import ENVIRONMENT
from ..process.sockets import somaxconn

HELP = "list what gets in the way of reloads in a gunicorn or uWSGI set-up, with what to do"
EPILOG = """\
examples:
  wsgi-reload doctor 1234
  wsgi-reload doctor
  wsgi-reload doctor gunicorn.conf.py
  wsgi-reload doctor -- gunicorn -c conf.py app:app

A running server with the hooks answers itself; of one without them the command line is
examined (Linux; as root, with the rights of its user). For a command line or a file no
server is started and no application imported; gunicorn's configuration is Python, and
gunicorn runs it. uWSGI reads its options only when it runs: start it, and name its pid.

exit codes: 0 nothing found, 1 something found or it could not look, 2 wrong arguments
"""
_ANSWERS_WITHIN = 2.0
_UWSGI = "uWSGI's options are known only when it runs: start it, then wsgi-reload doctor PID"
_BOLD, _YELLOW, _PLAIN = "\033[1m", "\033[33m", "\033[0m"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "what",
        metavar="PID | CONFIG",
        nargs="?",
        help="a running server, or its configuration file (default: what is in the working directory)",
    )
    parser.add_argument("--json", action="store_true", help="a list of objects with id, where, trap and fix")
    parser.usage = "wsgi-reload doctor [--json] [PID | CONFIG | -- COMMAND LINE]"


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own words, and the command line behind ``--``."""
    place = words.index("--") if "--" in words else len(words)
    return list(words[:place]), list(words[place:])


class Examined(NamedTuple):
    """*what* was examined, for a line, and the *findings*."""

    what: str
    findings: list[Finding]


def main(options: argparse.Namespace) -> int:
    """Print the findings; 1 where there is one. Raises `Failure`."""
    examined = _examined(options.what, options.command)
    findings = list(dict.fromkeys(map(Finding.printable, examined.findings)))
    if options.json:
        say(json.dumps([finding._asdict() for finding in findings], indent=2))
    elif findings:
        say("\n".join(_lines(findings)))
    else:
        say(printable(examined.what))
    return ERROR if findings else 0


def _examined(what: str | None, words: list[str]) -> Examined:
    folder = os.getcwd()
    if words:
        if what is not None:
            raise Failure("name a process, a configuration or a command line, not two of them", USAGE)
        return _command(words[1:], folder)
    if what is None:
        return _folder(folder)
    if re.fullmatch(r"[0-9]+", what):
        return _process(int(what))
    path = what.removeprefix("file:")
    if not what.startswith("python:") and not os.path.exists(path):
        raise Failure(f"{printable(what)}: there is no such file, and it is no number of a process")
    if path.endswith((".ini", ".json", ".xml", ".yaml", ".yml")):
        raise Failure(_UWSGI)
    if not path.endswith(".py") and not what.startswith("python:"):
        raise Failure(
            f"{printable(what)}: no configuration of gunicorn (.py); name what starts the server: "
            "wsgi-reload doctor -- gunicorn ...",
            USAGE,
        )
    return _configuration(path, what, folder)


def _folder(folder: str) -> Examined:
    """gunicorn's default configuration in *folder*; where there is none, the project alone."""
    default = os.path.exists(os.path.join(folder, "gunicorn.conf.py"))
    if default or os.environ.get(ENVIRONMENT):
        return _configuration(None, "gunicorn.conf.py" if default else ENVIRONMENT, folder)
    hint = "name the pid of a server, or what starts it: wsgi-reload doctor -- gunicorn ..."
    found = _with_project(folder, Project(folder, folder, dict(os.environ)), lambda _: ())
    return found._replace(what=f"nothing found: {folder}, where gunicorn is not configured; {hint}")


# -- a command line or a configuration ---------------------------------------------------------------------------------


def _command(words: list[str], folder: str) -> Examined:
    command = parse(words)
    if command is None:
        shown = printable(shlex.join(words)) or "an empty command line"
        raise Failure(f"{shown}: starts neither gunicorn nor uWSGI; name it as in -- gunicorn app:app", USAGE)
    if command.kind != GUNICORN:
        raise Failure(_UWSGI)
    return _setup(from_command(command, dict(os.environ), folder))


def _configuration(name: str | None, place: str, folder: str) -> Examined:
    return _setup(from_configuration(name, dict(os.environ), folder, place))


def _setup(setup: GunicornSetup) -> Examined:
    return _with_project(setup, setup.project, lambda settings: setup.findings(settings, somaxconn()))


# -- a running server --------------------------------------------------------------------------------------------------


def _process(pid: int) -> Examined:
    server, process = _server(pid), None
    try:
        process = main_process(pid)
    except Failure:
        if server is None:
            raise
    if server is None and process is not None:
        approach(process)
        server = _awaited_server(process.pid)
    if server is not None:
        return _running(server, process)
    assert process is not None
    if has_control_socket(process.pid):
        raise Failure(
            f"the hooks run in {process}, but its control socket cannot be reached from here: run this in its container"
        )
    project = Project(process.place, process.folder, process.environ)
    return _with_project(process, project, partial(check_process, process))


def _server(pid: int) -> client.Server | None:
    """The server with the hooks whose arbiter or master is *pid*."""
    return client.running([pid])[0] if any(each.pid == pid for each in remotes()) else None


def _awaited_server(pid: int) -> client.Server | None:
    # While uWSGI reloads, no process owns the control socket for a moment.
    until = time.monotonic() + _ANSWERS_WITHIN
    while (found := _server(pid)) is None and time.monotonic() < until:
        time.sleep(0.1)
    return found


def _running(server: client.Server, process: ServerProcess | None) -> Examined:
    told = server.ask("examine")["examined"]
    project = Project(
        place=f"process {server.pid}",
        folder=told["folder"],
        environ=told["environ"],
        application=told["application"],
        path=told["path"],
        watchfiles=told["watchfiles"],
    )
    own = [Finding(**each) for each in told["findings"]]
    second = [] if process is None else check_command_line(process)
    return _with_project(server, project, lambda _: [*second, *own])


# -- in common ---------------------------------------------------------------------------------------------------------


def _with_project(what: object, project: Project, own: Callable[[Settings], Iterable[Finding]]) -> Examined:
    """The server's *own* findings by its settings, and those about its project."""
    settings, wrong = _settings(project)
    findings = [*wrong, *own(settings), *examine(project, settings, this_system())]
    return Examined(f"nothing found that gets in the way of reloads: {what}", findings)


def _settings(project: Project) -> tuple[Settings, list[Finding]]:
    """The settings that the hooks have there; the defaults and a finding where one is wrong."""
    try:
        return _loaded(project), []
    except SettingsError as error:
        fix = "correct it: the hooks do not start with it"
        return Settings(), [Finding("settings", project.place, str(error), fix)]


def _loaded(project: Project) -> Settings:
    try:
        settings = Settings.load(project.folder, project.environ)
    except SettingsError:
        if not project.watchfiles:
            raise
        # What is missing may be our own watchfiles, the server has one.
        return Settings.load(project.folder, project.environ, engine="auto")
    if settings.engine == "watchfiles" and project.watchfiles is False:
        source = settings.sources["engine"]
        raise SettingsError(f"setting engine = 'watchfiles' (from {source}): the server's Python has no watchfiles")
    return settings


def _lines(findings: Iterable[Finding]) -> Iterator[str]:
    coloured = sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    bold, yellow, plain = (_BOLD, _YELLOW, _PLAIN) if coloured else ("", "", "")
    for finding in findings:
        yield f"{bold}{finding.where}{plain}: {yellow}{finding.trap}{plain}"
        yield f"  fix: {finding.fix}"
