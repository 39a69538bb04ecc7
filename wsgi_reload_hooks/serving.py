"""The program that `serve` supervises: loads the application, says that it is ready, serves, and leaves in good manners.

Started with these descriptors: from 3 on the sockets, 8 the reports (see `supervised`), 9 the gate.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn, Optional

from . import frameworks
from .child import GATE_AT, LISTENING_FROM
from .files import Files
from .native import Native
from .proof import Refused
from .reports import Sender
from .settings import Settings, SettingsError, project_root
from .supervised import sender
from .warmup import Failed, is_asgi3, warm_up
from .web import Unfit, WebServer, make_server

_NAMES = ("application", "app")


class Serving:
    """One life: *app* (``MODULE`` or ``MODULE:NAME``) under the web server named *kind*."""

    def __init__(self, app: str, kind: str, way: Sender) -> None:
        self._app = app
        self._kind = kind
        self._way = way
        self._settings = Settings.load()
        self._files = Files(self._settings)
        # gevent cannot patch a process that has started a thread of Python's own making.
        self._native = Native()
        self._main = threading.get_ident()
        self._loading = self._native.lock()
        self._said = self._native.lock()

    def run(self, listening: Sequence[int]) -> None:
        """Load, wait at the gate, serve. Returns the signal that ended it, when all requests are answered."""
        began = time.monotonic()
        self._loading.acquire()
        self._native.start_thread(self._watch, (began,))
        try:
            app = self._load()
            # Not before: gevent may have another idea of what a socket is.
            server = make_server(self._kind, app, [socket.socket(fileno=number) for number in listening])
        except KeyboardInterrupt:
            _die_of(signal.SIGINT)
        except BaseException as error:
            self._refuse(error)
        self._loading.release()
        self._way.send("ready")
        if os.read(GATE_AT, 1):
            _serve(server, self._settings.kill_after)

    def _load(self) -> Any:
        module_name, _, name = self._app.partition(":")
        module = importlib.import_module(module_name)
        where = getattr(module, "__file__", None) or module_name
        found = next((getattr(module, each) for each in ([name] if name else _NAMES) if hasattr(module, each)), None)
        if found is None:
            raise Unfit(
                f"{self._files.relative(where)} has no callable {' and no '.join(map(repr, [name] if name else _NAMES))}"
            )
        if not callable(found):
            raise Unfit(f"{self._app} is no callable: its type is {type(found).__name__}")
        if is_asgi3(found):
            raise Unfit(f"{self._app} is an ASGI application: serve takes WSGI; use gunicorn or uvicorn for it")
        if not _takes_requests(found):
            raise Unfit(
                f"{self._app} cannot be called with environ and start_response: name the application, not what makes it"
            )
        frameworks.finish()
        warm_up(found, self._settings.warmup)
        return found

    def _watch(self, began: float) -> None:
        """In a thread: tell where it hangs, when it does."""
        limit = self._settings.boot_timeout
        if self._loading.acquire(True, max(0.0, limit - (time.monotonic() - began))):
            return
        main = sys._current_frames().get(self._main)
        stack = [each for each in traceback.extract_stack(main) if not _is_ours(each.filename)]
        self._say(Refused.from_stack(f"it did not load within {limit:g} s", stack, self._files.ours))

    def _refuse(self, error: BaseException) -> NoReturn:
        if isinstance(error, (Unfit, Failed)):
            module = sys.modules.get(self._app.partition(":")[0])
            path = getattr(module, "__file__", None)
            self._say(Refused(str(error), path, files=(path,) if path else ()))
        hidden = [os.path.dirname(os.path.abspath(each)) for each in (__file__, importlib.__file__) if each]
        self._say(Refused.from_exception(error, hidden, self._files.ours))

    def _say(self, why: Refused) -> NoReturn:
        with self._said:
            self._way.send("refused", **vars(why))
            # Neither threads of the application nor what it has registered for the end may keep it.
            os._exit(1)


def _serve(server: WebServer, patience: float) -> None:
    """Until a signal comes; then what was begun is finished, for *patience* seconds at most."""
    told: list[int] = []

    def leave(number: int, frame: Optional[FrameType]) -> None:
        if number == signal.SIGALRM or (told and number == signal.SIGINT):
            # Ctrl-C, again: a terminal sends it to us, and to nobody who would look after us.
            _die_at_once(told[0])
        told.append(number)
        if len(told) == 1:
            signal.signal(signal.SIGALRM, leave)
            signal.setitimer(signal.ITIMER_REAL, patience)
        server.stop()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, leave)
    server.run()
    _die_of(told[0] if told else signal.SIGTERM)


def _die_of(number: int) -> NoReturn:
    """So that whoever waits knows what ended us. What the application has registered for the end runs before."""
    import atexit

    # Python 3.9 raises what they raise.
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    _die_at_once(number)


def _die_at_once(number: int) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _takes_requests(app: Any) -> bool:
    """Whether it can be called as WSGI does, as far as it tells."""
    try:
        parameters = inspect.signature(app)
    except Exception:
        # Whatever it is made of, it may be callable all the same.
        return True
    try:
        parameters.bind({}, None)
    except TypeError:
        return False
    return True


def _is_ours(filename: str) -> bool:
    return filename.startswith(("<", os.path.join(os.path.dirname(os.path.abspath(__file__)), "")))


def main(arguments: Sequence[str]) -> None:
    """*arguments*: the application, the web server's name, the number of sockets."""
    app, kind, count = arguments
    way, _ = sender()
    if way is None:
        sys.exit("this program is started by wsgi-reload serve")
    listening = range(LISTENING_FROM, LISTENING_FROM + int(count))
    # What the application starts keeps no port open.
    for number in (GATE_AT, *listening):
        os.set_inheritable(number, False)
    try:
        serving = Serving(app, kind, way)
    except SettingsError as error:
        file = os.path.join(project_root(), "pyproject.toml")
        way.send("refused", **vars(Refused(str(error), files=(file,))))
        os._exit(1)
    serving.run(listening)


if __name__ == "__main__":
    main(sys.argv[1:])
