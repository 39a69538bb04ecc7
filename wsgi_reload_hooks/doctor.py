"""Look at a gunicorn or uWSGI set-up, and list what will bite when code is reloaded, each with what to do."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence

from .console import ERROR, USAGE, Failure, say
from .diagnosis import diagnose
from .files import printable
from .findings import Finding
from .invocation import command
from .project_checks import examine, this_system
from .running import from_pid
from .settings import Settings, SettingsError
from .setups import Setup, from_file, from_folder, setup

HELP = "list what will bite in a gunicorn or uWSGI set-up, with what to do"
EPILOG = """\
examples:
  wsgi-reload doctor
  wsgi-reload doctor gunicorn.conf.py
  wsgi-reload doctor 1234
  wsgi-reload doctor -- gunicorn -c conf.py app:app
  wsgi-reload doctor -- uwsgi --ini uwsgi.ini

The server is not started and the application not imported; gunicorn's configuration is
run, by gunicorn, since it is Python. As root, for a process, with the rights of its user.

exit codes: 0 nothing found, 1 something found or it could not look, 2 wrong arguments
"""
_BOLD, _YELLOW, _PLAIN = "\033[1m", "\033[33m", "\033[0m"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
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


def main(options: argparse.Namespace) -> int:
    """Look and tell; 1 where there is something. Raises `Failure`."""
    setups = _setups(options.what, options.command)
    findings = list(dict.fromkeys(found.printable() for each in setups for found in _findings(each)))
    if options.json:
        say(json.dumps([finding._asdict() for finding in findings], indent=2))
    elif findings:
        say("\n".join(_lines(findings)))
    else:
        say(printable("; ".join(map(_good, setups))))
    return ERROR if findings else 0


def _setups(what: str | None, words: list[str]) -> list[Setup]:
    environ, folder = dict(os.environ), os.getcwd()
    if words:
        if what is not None:
            raise Failure("name a process, a configuration or a command line, not two of them", USAGE)
        started = command(words[1:], environ, folder)
        if started is None:
            shown = printable(shlex.join(words[1:])) or "an empty command line"
            raise Failure(f"{shown}: starts neither gunicorn nor uWSGI; name it as in -- gunicorn app:app", USAGE)
        return [setup(started, environ, folder)]
    if what is None:
        return from_folder(environ, folder)
    if re.fullmatch(r"[0-9]+", what):
        return [from_pid(int(what))]
    if not what.startswith("python:") and not os.path.exists(what.removeprefix("file:")):
        raise Failure(f"{printable(what)}: there is no such file, and it is no number of a process")
    return [from_file(what, environ, folder)]


def _findings(setup: Setup) -> Iterator[Finding]:
    settings = Settings()
    try:
        settings = _settings(setup)
    except SettingsError as error:
        yield Finding("settings", setup.place, str(error), "correct it: with it the hooks do not start")
    system = this_system()
    yield from diagnose(setup, settings, somaxconn=system.somaxconn)
    yield from examine(setup, settings, system)


def _settings(setup: Setup) -> Settings:
    """Those that the hooks would have there. Raises `SettingsError`."""
    try:
        settings = Settings.load(setup.folder, setup.environ)
    except SettingsError:
        if not setup.watchfiles:
            raise
        # What is missing may be our own watchfiles, the server has one.
        return Settings.load(setup.folder, setup.environ, engine="auto")
    if settings.engine == "watchfiles" and setup.watchfiles is False:
        source = settings.sources["engine"]
        raise SettingsError(f"setting engine = 'watchfiles' (from {source}): the server's Python has no watchfiles")
    return settings


def _good(setup: Setup) -> str:
    if type(setup) is Setup:
        return (
            f"nothing found: {setup}, where no server is configured; name its pid, or what starts it: "
            "wsgi-reload doctor -- gunicorn ..."
        )
    return f"nothing found that will bite: {setup}"


def _lines(findings: Iterable[Finding]) -> Iterator[str]:
    coloured = sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    bold, yellow, plain = (_BOLD, _YELLOW, _PLAIN) if coloured else ("", "", "")
    for finding in findings:
        yield f"{bold}{finding.where}{plain}: {yellow}{finding.trap}{plain}"
        yield f"  fix: {finding.fix}"
