"""Send HUP to any server when its code has changed, from outside: nothing of this is loaded by the server.

It knows the server by its pid file only. What changed is compiled, or loaded in a fresh interpreter, before the
server hears of it: few servers survive a HUP with code that does not load.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import select
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator

from ..core.errors import USAGE, Failure
from ..core.log import HOOKS_FAILED, ReloadLog
from ..core.patterns import fault
from ..core.settings import Settings, project_root
from ..core.streams import Console
from ..core.text import under
from ..hup.backend import HupBackend, TrialSetup
from ..hup.pidfile import PidFile
from ..hup.sender import COMMAND_AT_MOST, SignalSender
from ..trial.interpreter import add_arguments, given, module_target
from ..watching.rules import Files

HELP = "send HUP to any server when its code has changed"
EPILOG = """\
examples:
  wsgi-reload hup gunicorn.pid
  wsgi-reload hup /run/shop.pid src templates --pattern '*.py' --pattern '*.html'
  wsgi-reload hup uwsgi.pid --app shop.wsgi:application --python venv/bin/python
  wsgi-reload hup gunicorn.pid --exec 'systemctl reload shop'

The settings are those of the project and of the environment (WSGI_RELOAD_...), with
extra_files besides PATH. With --app, WSGI_TRIAL is set where the application is tried.

exit codes: 2 wrong arguments or settings, 1 something went wrong, 130 after Ctrl-C, 143
after SIGTERM, 129 after SIGHUP; it does not end by itself
"""

_PATTERN = "*.py"
_RETRY = 5.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("pidfile", metavar="PIDFILE", help="the file with the server's number; it need not be there yet")
    add(
        "paths",
        metavar="PATH",
        nargs="*",
        # Without one argparse calls it required.
        default=[],
        help="folders and files to watch, right after PIDFILE (default: the working directory)",
    )
    add("--pattern", metavar="GLOB", action="append", help=f"the files that count in folders (default: {_PATTERN})")
    add("--no-recursive", dest="recursive", action="store_false", help="not in the folders of the folders")
    add(
        "--ignore",
        metavar="GLOB",
        action="append",
        default=[],
        help="files that do not count, besides the setting exclude and what git ignores",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--signal", metavar="NAME", type=_signal, help="another signal: USR2, SIGUSR2, 12 (default: HUP)")
    what.add_argument(
        "--exec",
        metavar="COMMAND",
        dest="execute",
        type=_words,
        help=f"run this instead, without a shell, {COMMAND_AT_MOST:g} s at most; {{pid}} is the server's number",
    )
    add(
        "--app",
        metavar="MODULE[:NAME]",
        type=module_target,
        help="load this in a fresh interpreter first; without it changed Python files are only compiled",
    )
    add_arguments(parser, "server")
    add("--verbose", action="store_true", help="say more")


def main(options: argparse.Namespace) -> int:
    """Watch and send until a signal ends the command. Returns the exit code."""
    for path in options.paths:
        if not os.path.exists(path):
            raise Failure(f"{path}: there is no such file or folder", USAGE)
    settings, files = rules(options)
    journal = ReloadLog(Console(options.verbose), files.root, settings.log_format == "json")
    if not settings.enabled:
        journal.info("switched off (%s): nothing is watched", settings.sources["enabled"])
        return 0
    if (options.app or options.python) and not options.user and os.geteuid() == 0:
        raise Failure(
            "new code is not tried with the rights of root: name the user of the server's workers, --user", USAGE
        )
    trial = TrialSetup(files, settings.boot_timeout, options.app, given(options))
    with _ends() as (ends, ended):
        sender = SignalSender(PidFile(options.pidfile), options.signal or signal.SIGHUP, options.execute, journal)
        watcher = HupBackend(settings, files, journal, trial, sender)
        try:
            while not ended():
                try:
                    wait, readers = watcher.step(), watcher.readers
                except Exception as error:
                    journal.failure(HOOKS_FAILED, error)
                    wait, readers = _RETRY, []
                select.select([ends, *readers], [], [], wait)
            return 128 + ended()
        finally:
            watcher.close()


# -- arguments ---------------------------------------------------------------------------------------------------------


def _signal(text: str) -> signal.Signals:
    name = text.upper()
    try:
        return signal.Signals(int(name)) if name.isdecimal() else signal.Signals["SIG" + name.removeprefix("SIG")]
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"there is no signal {text!r}") from None


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} in {text!r}") from None
    if not words:
        raise argparse.ArgumentTypeError("no command")
    return words


def rules(options: argparse.Namespace) -> tuple[Settings, Files]:
    """The settings, and which files are watched. Raises `Failure`, `SettingsError`."""
    if missing := fault(_PATTERN):
        raise Failure(f"hup finds its files by patterns: {missing}", USAGE)
    paths = [os.path.abspath(path) for path in options.paths or [os.curdir]]
    root = _project(paths[0])
    settings = Settings.load(root)
    # What takes back what is deeper comes before what lists that, too.
    listed = [entry for path in sorted(paths) for entry in _listed(path, root, options)]
    ignored = [entry for text in options.ignore for entry in _ignored(text, paths, root)]
    settings = dataclasses.replace(
        settings,
        extra_files=(*listed, *settings.extra_files),
        exclude=(*settings.exclude, *ignored, _plain(os.path.abspath(options.pidfile), root)),
    )
    return settings, Files(settings, root)


def _project(path: str) -> str:
    """The working directory's project where *path* lies in it, else that of *path*."""
    here, there = project_root(), project_root(path if os.path.isdir(path) else os.path.dirname(path))
    # A service may be started anywhere.
    named = os.path.exists(os.path.join(here, "pyproject.toml"))
    better = here == os.sep or os.path.exists(os.path.join(there, "pyproject.toml"))
    return here if under(path, here) and (named or not better) else there


def _listed(path: str, root: str, options: argparse.Namespace) -> Iterator[str]:
    """The entries of ``extra_files`` that stand for *path*."""
    start = _plain(path, root)
    if not os.path.isdir(path):
        yield start
        return
    for pattern in options.pattern or [_PATTERN]:
        yield f"{start}/**/{pattern}" if options.recursive else f"{start}/{pattern}"
    if not options.recursive:
        # A pattern that a folder matches stands for all in it.
        yield f"!{start}/*/**"


def _ignored(text: str, paths: Iterable[str], root: str) -> Iterator[str]:
    """The entries of ``exclude`` that stand for *text*: without a slash, it holds outside of the project, too."""
    yield text
    if "/" not in text:
        takes_back = "!" if text.startswith("!") else ""
        for path in paths:
            if not under(path, root):
                yield f"{takes_back}{_plain(path, root)}/**/{text[len(takes_back) :]}"


def _plain(path: str, root: str) -> str:
    """*path* in a glob, where its characters mean themselves."""
    # Nothing in the way to the project means anything else, if it is not part of the glob.
    plain = os.path.join(os.curdir, os.path.relpath(path, root)) if under(path, root) else path
    return re.sub(r"([][*?!#\\])", r"\\\1", plain)


@contextlib.contextmanager
def _ends() -> Iterator[tuple[int, Callable[[], int]]]:
    """What is readable when a signal wants the end, and what returns which one; 0: none did. The handlers do nothing
    themselves, so that no child of ours is ever between its start and its owner."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    got: list[int] = []
    before = {each: signal.getsignal(each) for each in _ENDING}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        for each, handler in before.items():
            # One that is ignored (nohup, a job in the background) stays so.
            if handler is not signal.SIG_IGN:
                signal.signal(each, lambda number, frame: got.append(number))
        yield reading, lambda: got[0] if got else 0
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(reading)
        os.close(writing)
