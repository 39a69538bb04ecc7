"""Edits as editors and tools make them, and code run in a fresh interpreter."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import wsgi_reload_hooks

PACKAGE_ROOT = Path(wsgi_reload_hooks.__file__).parent.parent
LONG_AGO = 1_600_000_000_000_000_000


def save(path: Path, text: str) -> Path:
    """Write *path* in place, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def save_atomically(path: Path, text: str) -> None:
    """Write a sibling and rename it over *path*."""
    sibling = path.with_name(path.name + ".new")
    sibling.write_text(text)
    os.replace(sibling, path)


def save_all(paths: Iterable[Path], text: str, how: Callable[[Path, str], object] = save) -> float:
    """Write all *paths*, one after the other; the longest time between two of them, in seconds: a machine that stands
    still makes two bursts of one.
    """
    times = []
    for path in paths:
        how(path, text)
        times.append(time.monotonic())
    return max(after - before for before, after in itertools.pairwise(times))


def date(path: Path, mtime_ns: int = LONG_AGO) -> Path:
    """Set the time of the last modification."""
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


PREAMBLE = """
import importlib, importlib.util, os, sys, threading, time, types, zipfile
from pathlib import Path
sys.path.insert(0, os.getcwd())
from wsgi_reload_hooks import FILE_MODIFIED, I18N_MODIFIED, Settings, SettingsError, code_changed
from wsgi_reload_hooks.api.code_changed import CodeChanged

def save(name, text):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)

def date(name, ns=1_600_000_000_000_000_000):
    os.utime(name, ns=(ns, ns))
"""


def python(code: str, folder: Path, *options: str, preamble: str = PREAMBLE, **environment: str) -> str:
    """Run *code* in a fresh interpreter that stands in *folder*, warnings being errors; what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WSGI_RELOAD_", "PYTHOND"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", preamble + textwrap.dedent(code)],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(PACKAGE_ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def without_rights(check: Callable[[], bool]) -> bool:
    """What *check* answers where permissions count: for root that is a child process with an ordinary user's rights."""
    if os.geteuid() != 0:
        return check()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setuid(65534)
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0
