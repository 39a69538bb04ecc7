"""Serve an application with gunicorn, the reload hooks and defaults for development."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence

from ..core.errors import USAGE, Failure
from ..core.settings import Settings
from ..core.streams import Console
from ..process.linux import NO_ORPHANS, end_with
from ..trial.trial import FLAG
from ..trial.warmup import is_asgi3

HELP = "serve an application with gunicorn and the reload hooks, for development"
EPILOG = """\
examples:
  wsgi-reload serve app:app
  wsgi-reload serve --bind 0.0.0.0:8080 --workers 2 shop.wsgi
  wsgi-reload serve 'shop:create_app()' -- --access-logfile - --reuse-port

This process becomes gunicorn: one worker with 8 threads, or an ASGI worker where the
application is ASGI, and no timeout, so that a debugger may wait. Options after -- are
gunicorn's own, and win; so do those of gunicorn.conf.py where nothing here sets them.

exit codes: those of gunicorn (0 after Ctrl-C and SIGTERM); 1 gunicorn is not installed,
2 wrong arguments or settings
"""
_HOOKS = "python:wsgi_reload_hooks.gunicorn_conf"
_THREADS = ("--worker-class", "gthread", "--threads", "8")
_PROBE = "import sys; from wsgi_reload_hooks.cli.serve import probe; probe(int(sys.argv.pop(1)))"
_WSGI, _ASGI = 70, 71


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("app", metavar="MODULE[:NAME]", help="the application; NAME: application, if not given")
    parser.add_argument(
        "--bind", metavar="ADDRESS", action="append", default=[], help="where to listen (default: 127.0.0.1:8000)"
    )
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="how many workers (default: 1)")
    parser.usage = "wsgi-reload serve [OPTION...] MODULE[:NAME] [-- GUNICORN-OPTION...]"


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split *words* at the first ``--``: our own options, and those of gunicorn."""
    place = words.index("--") if "--" in words else len(words)
    return list(words[:place]), list(words[place + 1 :])


def main(options: argparse.Namespace) -> int:
    """Become gunicorn; does not return. Raises `Failure`, `SettingsError`."""
    module = options.app.partition(":")[0]
    if module.endswith(".py") and os.path.isfile(module):
        raise Failure(f"{options.app!r} names a file: name its module, as in shop.wsgi:application", USAGE)
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\(.*\))?)?", options.app):
        raise Failure(f"{options.app!r} names no application: use MODULE or MODULE:NAME, as in shop.wsgi", USAGE)
    if any(re.match(r"-c|--conf", word) for word in options.command):
        raise Failure("-c would replace the hooks: name the file gunicorn.conf.py, it is loaded beside them", USAGE)
    if importlib.util.find_spec("gunicorn") is None:
        raise Failure("gunicorn is not installed: pip install 'wsgi-reload-hooks[serve]'")
    settings = Settings.load()
    given = [f"--bind={address}" for address in options.bind] + [f"--workers={options.workers}", *options.command]
    words = ["-c", _HOOKS, options.app, "--timeout", "0"]
    if not any(re.match(r"-k|--worker-class", word) for word in options.command):
        words += _worker_class([*words, *given], options.app, settings.boot_timeout)
    # An exec keeps the pid: systemd's LISTEN_PID stays right.
    os.environ[NO_ORPHANS] = str(os.getpid())
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *words, *given])


def _worker_class(words: Sequence[str], app: str, timeout: float) -> Sequence[str]:
    """Return gunicorn's options for the kind of application that *words*, its command line, would load."""
    kind = _kind(words, timeout)
    if kind == _ASGI:
        return ("--worker-class", _asgi_worker(app))
    if kind != _WSGI:
        Console().warning(
            "%s does not load now: served as WSGI; for an ASGI application, start again after the repair", app
        )
    return _THREADS


def _asgi_worker(app: str) -> str:
    """Return the name of the ASGI worker class that is installed. Raises `Failure`."""
    if importlib.util.find_spec("gunicorn.workers.gasgi") is not None:
        return "asgi"
    if importlib.util.find_spec("uvicorn_worker") is not None:
        return "uvicorn_worker.UvicornWorker"
    raise Failure(f"{app} is an ASGI application: pip install 'gunicorn>=25', or uvicorn-worker")


def _kind(words: Sequence[str], timeout: float) -> int:
    """Run `probe` in a child for *timeout* seconds at most: `_WSGI`, `_ASGI`, or another number if nothing was loaded."""
    child = subprocess.Popen(
        [sys.executable, "-c", _PROBE, str(os.getpid()), *words],
        env={**os.environ, FLAG: "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return child.wait(timeout)
    except subprocess.TimeoutExpired:
        return -1
    finally:
        # The group outlives its leader while the application has left programs running.
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()


def probe(parent: int) -> None:
    """Load the application as gunicorn would, with gunicorn's options in ``sys.argv``, and exit with its kind.

    Runs in a child of *parent*, whose process stays free of the application.
    """
    end_with(parent)
    from gunicorn.app.wsgiapp import WSGIApplication

    app = WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn").wsgi()
    # Threads of the application and its exit handlers are not waited for.
    os._exit(_ASGI if is_asgi3(app) else _WSGI)
