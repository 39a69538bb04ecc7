"""``wsgi-reload``: the command line. Each command is a module with `HELP`, `arguments(parser)` and `main(options)`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import wsgi_reload_hooks

from ..core.errors import USAGE, Failure
from ..core.settings import SettingsError
from ..core.text import printable

PROGRAM = "wsgi-reload"
# Name of the command -> module.
COMMANDS = {
    "run": "run",
    "serve": "serve",
    "hup": "hup",
    "check": "check",
    "doctor": "doctor",
    "status": "status",
    "reload": "reload",
    "pause": "pause",
    "resume": "resume",
    "explain": "explain",
}
_INTERRUPTED = 130
_COMPLETING = "_ARGCOMPLETE"
_EPILOG = """\
gunicorn and uWSGI load the hooks themselves, and are started without wsgi-reload:
  gunicorn -c python:wsgi_reload_hooks.gunicorn_conf app:app
  uwsgi --master --lazy-apps ... --import wsgi_reload_hooks.uwsgi_timer

wsgi-reload COMMAND --help has examples.

exit codes: 0 all is well, 1 something went wrong, 2 wrong arguments or settings,
130 interrupted; a command's --help tells what else it ends with
"""


class _Parser(argparse.ArgumentParser):
    """argparse's, with complaints of one line that say where to read on."""

    def error(self, message: str) -> NoReturn:
        raise Failure(f"{message}; see {self.prog} --help", USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line *arguments* (default: those of the process); the exit code. Raises nothing but SystemExit
    for ``--help``."""
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else list(arguments))
        finally:
            if sys.stdout is not None:
                # While it can still be told that it failed.
                sys.stdout.flush()
    except (Failure, SettingsError) as error:
        _complain(str(error))
        return error.status if isinstance(error, Failure) else USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output has closed it.
        _print_no_more()
        return 0
    except OSError as error:
        _complain(_reason(error))
        _print_no_more()
        return 1


def _run(arguments: list[str]) -> int:
    words, program = _split(arguments)
    completing = _COMPLETING in os.environ
    # Of the named command alone: the others would import all that the package has.
    parser = _parser(words[:1] if words and words[0] in COMMANDS and not completing else COMMANDS)
    if completing:
        _complete(parser)
    options, unknown = parser.parse_known_args(words)
    if unknown:
        raise Failure(f"unrecognized arguments: {' '.join(unknown)}; see {options.prog} --help", USAGE)
    options.command = program
    status: int = options.main(options)
    return status


def _complete(parser: _Parser) -> None:
    """A shell asks what could come next: argcomplete answers, where it is installed."""
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser)


def _print_no_more() -> None:
    """What Python would still flush at its end goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _parser(names: Iterable[str]) -> _Parser:
    parser = _Parser(
        prog=PROGRAM,
        description="Reload code when it changes: any script, any server.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {wsgi_reload_hooks.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in names:
        module = _module(name)
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__.partition("\n")[0],
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(command)
        command.set_defaults(main=module.main, prog=command.prog)
    return parser


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """What is ours to read, and the program that a command is given to run."""
    if not words or words[0] not in COMMANDS:
        return words, []
    split = getattr(_module(words[0]), "split", None)
    if split is None:
        return words, []
    ours, program = split(words[1:])
    return [words[0], *ours], program


def _module(command: str) -> Any:
    return importlib.import_module(f"{__package__}.{COMMANDS[command]}")


def _reason(error: OSError) -> str:
    if error.filename:
        return f"{error.filename}: {error.strerror}"
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the working directory is not there any more: change to another one"
    except OSError:
        pass
    return error.strerror or str(error)


def _complain(text: str) -> None:
    try:
        os.write(2, f"{PROGRAM}: {printable(' '.join(text.splitlines()))}\n".encode(errors="backslashreplace"))
    except OSError:
        pass
