"""Server side of the control socket: status, reload, pause, explain."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from ..core.settings import ENV_PREFIX
from ..watching.listener import extension
from ..watching.rules import Files
from ..watching.signature import MISSING, UNKNOWN, Digest, Digests, known_signature
from .channel import ControlSocket, Message, understood

REQUEST = "wsgi-reload"
"""The source of a requested reload, for the log."""
_PAUSE_AT_MOST = 1e9
_PENDING_AT_MOST = 50
# Bytes and characters: an answer is one datagram.
_PATHS_AT_MOST = 20_000
_NAMES_AT_MOST = 1000
_REMEMBERED = 100
_ENVIRONMENT = (ENV_PREFIX, "WATCHFILES_FORCE_POLLING")
_RENEWED_EVERY = 10.0


class Scans(Protocol):
    """Scans of all files that can be requested (see `watching.debounce`)."""

    def order(self) -> int:
        """Request a scan of all files. Returns its number, to compare with `done`."""

    @property
    def done(self) -> int:
        """Return the number of the last scan whose changes the reload loop knows."""


class ReloadState(NamedTuple):
    """*phase*: ``idle``, ``trying``, ``switching`` or ``refused``. *pending*: paths whose content is not in service.
    *due*: an attempt is about to start. *held*: a pause holds an attempt back."""

    phase: str
    pending: set[str]
    due: bool
    held: bool


class StatusSource(Protocol):
    """Defines what `ControlService` asks of a server's reload loop, in the loop's thread."""

    def status(self) -> Message:
        """Return what is shown of this server besides its state; JSON."""

    def state(self) -> ReloadState:
        """The state of its reloading."""

    def busy(self) -> bool:
        """Whether old workers may still take requests, or a change waits for quiet."""

    def loaded_by(self, path: str) -> list[int]:
        """The pids of the workers that have loaded *path*."""

    def examine(self) -> Message:
        """``findings`` about the server's own options, and the ``application`` that they name; JSON."""

    def in_service(self, path: str) -> Digest | None:
        """The content of *path* that is in service, None where no worker has loaded it."""

    def request(self, by: str) -> None:
        """Reload whatever the files say."""

    def pause(self, on: bool) -> None:
        """Hold changes back, or let them pass again."""


class ControlService:
    """Answers the requests for one server. For the reload loop's thread, except for the socket itself."""

    def __init__(self, control: ControlSocket, source: StatusSource, files: Files, scans: Scans) -> None:
        self._control = control
        self._source = source
        self._files = files
        self._scans = scans
        self._waiting: list[tuple[bytes, str]] = []
        self._renewed = time.time()
        self._answered: dict[str, Message] = {}
        self._number = os.urandom(4).hex()
        self.paused_until: float | None = None
        """When the pause ends (seconds since the epoch), 0.0: at `resume`; None: there is none."""

    def take(self, messages: list[tuple[bytes, str]]) -> None:
        """Queue messages that `ControlSocket.receive` returned; `step` answers them."""
        self._waiting += messages

    def step(self) -> None:
        """Answer the queued messages, and end the pause when its time is over."""
        now = time.time()
        if self.paused_until and now >= self.paused_until:
            self.resume()
        if abs(now - self._renewed) > _RENEWED_EVERY:
            self._renewed = now
            self._control.renew()
        waiting, self._waiting = self._waiting, []
        for data, whom in waiting:
            message = understood(data)
            if message is not None:
                self._control.answer(whom, {**self._answer_once(message), "question": message.get("question")})

    def wait(self) -> float:
        """Return the seconds until `step` has something to do by itself."""
        return max(0.0, self.paused_until - time.time()) if self.paused_until else float("inf")

    def pause(self, until: float) -> None:
        """Hold back what is saved from now on, *until* then (see `paused_until`)."""
        self.paused_until = until
        self._source.pause(True)

    def resume(self) -> None:
        """End the pause: changes that it held back are tried."""
        self.paused_until = None
        self._source.pause(False)

    def _answer_once(self, message: Message) -> Message:
        """A client that gets no answer for a while repeats its question: it is answered once."""
        question = repr(message.get("question"))
        if question not in self._answered:
            if len(self._answered) >= _REMEMBERED:
                self._answered.clear()
            self._answered[question] = self._answer(message)
        return self._answered[question]

    def _answer(self, message: Message) -> Message:
        answers: dict[object, Callable[[Message], Message]] = {
            "status": self._status,
            "look": self._look,
            "reload": self._ask,
            "pause": self._pause,
            "resume": self._resume,
            "explain": self._explain,
            "examine": self._examine,
        }
        do = message.get("do")
        known = answers.get(do) if isinstance(do, str) else None
        try:
            return {"error": f"not understood: {do!r}"[:200]} if known is None else known(message)
        except (OSError, ValueError) as error:
            # An invalid path, for instance.
            return {"error": f"{do}: {error}"[:200]}

    def _look(self, message: Message) -> Message:
        # Numbers of scans count from the start of this service.
        return {"look": self._scans.order(), "desk": self._number}

    def _ask(self, message: Message) -> Message:
        self._source.request(REQUEST)
        return self._look(message)

    def _pause(self, message: Message) -> Message:
        seconds = message.get("seconds")
        if seconds is not None and not (isinstance(seconds, (int, float)) and 0 < seconds < _PAUSE_AT_MOST):
            return {"error": f"no number of seconds: {seconds!r}"[:200]}
        self.pause(0.0 if seconds is None else time.time() + seconds)
        return {}

    def _resume(self, message: Message) -> Message:
        self.resume()
        return self._look(message)

    def _status(self, message: Message) -> Message:
        # In this order: the reload loop knows the changes of that scan when `busy` is read.
        looked, busy = self._scans.done, self._source.busy()
        state = self._source.state()
        at_rest = (state.phase in ("idle", "refused") or state.held) and not busy and not state.due
        known = self._source.status()
        done = known.get("last_reload")
        if isinstance(done, dict):
            known["last_reload"] = {**done, "paths": _some(done["paths"]), "names": done["names"][:_NAMES_AT_MOST]}
        status: dict[str, Any] = {
            **known,
            "state": state.phase,
            "paused_until": self.paused_until,
            "paused": self.paused_until is not None,
            "pending": _some(sorted(map(self._files.relative, state.pending))[:_PENDING_AT_MOST]),
            "held": len(state.pending) if state.held else 0,
            "looked": looked,
            "desk": self._number,
            "at_rest": at_rest,
        }
        return {"status": status}

    def _explain(self, message: Message) -> Message:
        path = self._files.path(str(message.get("path")))
        served = self._source.in_service(path)
        found = known_signature(path)
        explained = {
            "path": path,
            "rule": self._files.explain(path),
            "in_service": served is not None,
            "workers": self._source.loaded_by(path),
            "as_loaded": None if served is None else _shown(served),
            "on_disk": _shown(Digests().now(path)),
            "signature": None if found is None else found._asdict(),
            "pending": path in self._source.state().pending,
        }
        return {"explained": explained}

    def _examine(self, message: Message) -> Message:
        environ = {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)}
        project = {
            "folder": self._files.root,
            "environ": environ,
            "path": sys.path,
            "watchfiles": extension() is not None,
        }
        return {"examined": {**project, **self._source.examine()}}


def _some(paths: Iterable[str]) -> list[str]:
    """Return the first of *paths*, as many as an answer has room for."""
    room, found = _PATHS_AT_MOST, []
    for path in paths:
        room -= len(json.dumps(path, ensure_ascii=False).encode(errors="surrogatepass"))
        if room < 0:
            break
        found.append(path)
    return found


def _shown(content: Digest) -> str:
    return content.decode() if content in (MISSING, UNKNOWN) else content.hex()


def control_or_none(kind: str, pid: int, complain: Any) -> ControlSocket | None:
    """Make the socket for the command line; if that fails, call *complain* with one line and return None."""
    try:
        return ControlSocket(kind, pid)
    except OSError as error:
        complain(f"the command line cannot reach this server: {error.strerror or error}")
        return None
