"""Runs any script under a supervisor, from a call in the script or from the command line.

Werkzeug's `run_with_reloader`, Bottle's `run(reloader=True)`: the program calls it, and is its own parent and child.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..core.errors import USAGE, Failure
from ..core.settings import Settings
from ..core.streams import Console
from ..process.sockets import AddressError, NoAddressError, bind, inherited, remove
from ..trial.plan import Target
from ..trial.trial import FLAG
from .backend import Program
from .child import LISTENING_AT_MOST, LISTENING_FROM
from .ending import die_of
from .reporter import command_line, is_supervised
from .supervisor import Supervisor

T = TypeVar("T")
NOT_FOUND = 127
NOT_RUNNABLE = 126


def run_with_reloader(
    main: Callable[..., T],
    *,
    app: str | None = None,
    listen: str | None = None,
    **settings: Any,
) -> T | None:
    """Run *main* in a child process that is started again when its code changes; call it where the program begins.

    Returns what *main* returns, in the child; None, and runs nothing, where the program is only being imported to see
    whether it can be (see `trial.FLAG`). In the parent it does not return: SystemExit with the child's exit code,
    or the death by the same signal. The child is started as this process was: the same interpreter with the same options
    and arguments. Exit code 3 asks for another start.

    *app*: ``MODULE`` or ``MODULE:NAME`` that has to be importable before the child is replaced; without it, what is
    found to be importable while the code is good. *listen*: an address (see `sockets.bind`): the parent listens on it,
    and *main* is called with the socket. *settings*: as for `Settings.load`.

    Raises `SettingsError`, and `Failure` for an address or a name that cannot be used; RuntimeError in another than the
    main thread. (Bottle, Django, Werkzeug.)
    """
    if FLAG in os.environ:
        return None
    if is_supervised():
        given = () if listen is None else (_given_socket(),)
        return main(*given)
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run_with_reloader belongs into the main thread, where signals arrive")
    loaded = Settings.load(**settings)
    if not loaded.enabled:
        return main(*(() if listen is None else (listen_on(listen),)))
    command = own_command()
    status = supervise(command, os.environ, loaded, app=app, listen=listen)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                # Closed, or without a reader: the exit code stays that of the program.
                stream.flush()
    raise SystemExit(die_of(status))


def supervise(
    command: Sequence[str],
    environ: Mapping[str, str],
    settings: Settings,
    *,
    app: str | None = None,
    listen: str | None = None,
    console: Console | None = None,
) -> int:
    """Run *command* until it ends: its exit code, or its signal below 0. Raises `Failure`."""
    runs = (runnable(command[0]), *command[1:])
    script, arguments = script_of(command)
    own = None if listen is None else listen_on(listen)
    numbers = inherited(environ) if own is None else [own.fileno()]
    if len(numbers) > LISTENING_AT_MOST:
        raise Failure(f"{len(numbers)} sockets are handed over, {LISTENING_AT_MOST} can be")
    program = Program(
        command=runs,
        environ={name: value for name, value in environ.items() if name not in ("LISTEN_PID", "LISTEN_FDS")},
        listening=tuple(numbers),
        targets=() if app is None else (target(app),),
        script=script,
        arguments=arguments,
    )
    try:
        return Supervisor(program, settings, console or Console()).run()
    except OSError as error:
        raise Failure(f"{shlex.join(command)}: cannot be run: {error.strerror or error}", NOT_RUNNABLE) from None
    finally:
        if own is not None:
            remove(own)


def own_command() -> list[str]:
    """How this process was started: the interpreter, its options, and the program with its arguments."""
    given = command_line()
    if len(given) > 1:
        return [sys.executable, *given[1:]]
    # Where there is no /proc.
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return [sys.executable, *options, *sys.argv]
    name = spec.parent if spec.name.endswith(".__main__") else spec.name
    return [sys.executable, *options, "-m", name, *sys.argv[1:]]


def script_of(command: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """The script that *command* names, absolute, and that with what follows it; None where there is none."""
    for place, word in enumerate(command):
        if word in ("-m", "-c", "--"):
            break
        if word.endswith((".py", ".pyw")) and os.path.isfile(word):
            return os.path.abspath(word), tuple(command[place:])
    return None, ("",)


def target(app: str) -> Target:
    """``MODULE`` or ``MODULE:NAME``. Raises `Failure`."""
    module, colon, name = app.partition(":")
    if module.endswith(".py") and os.path.isfile(module):
        raise Failure(f"{app!r} names a file: name its module, as in shop.wsgi:application", USAGE)
    if not all(part.isidentifier() for part in module.split(".")) or (colon and not name.isidentifier()):
        raise Failure(f"{app!r} names no application: use MODULE or MODULE:NAME, as in shop.wsgi:application", USAGE)
    return Target("module", module, name, anything=True)


def runnable(program: str) -> str:
    """The path of *program*, found as a shell does. Raises `Failure`."""
    found = shutil.which(program)
    if found is None:
        # A bare name is looked for in PATH only.
        there = os.sep in program and os.path.exists(program)
        what = "is not executable: chmod +x it, or name an interpreter" if there else "there is no such program"
        raise Failure(f"{program}: {what}", NOT_RUNNABLE if there else NOT_FOUND)
    return found


def listen_on(address: str) -> socket.socket:
    """`sockets.bind`, with `Failure` for what it raises."""
    try:
        return bind(address)
    except NoAddressError as error:
        raise Failure(str(error), USAGE) from None
    except AddressError as error:
        raise Failure(str(error)) from None


def _given_socket() -> socket.socket:
    """The first of the sockets that this program was given."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise Failure("no socket was handed over: the supervisor of this program was not told to listen")
    given = socket.socket(fileno=LISTENING_FROM)
    # It is the same socket for one program after the other: whatever the one before made of it.
    given.setblocking(True)
    return given
