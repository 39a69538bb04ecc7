"""Where a server answers the command line: what it is asked for, and the pause that somebody may order."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from .control import Control, Message, understood
from .files import Files
from .hearing import extension
from .reloader import Reloader, State
from .scanner import MISSING, UNKNOWN, Digest, Digests, known_signature
from .settings import ENV_PREFIX

REQUEST = "wsgi-reload"
"""Who asked for a reload, for the log."""
_PAUSE_AT_MOST = 1e9
_PENDING_AT_MOST = 50
# Bytes and characters: an answer is one datagram.
_PATHS_AT_MOST = 20_000
_NAMES_AT_MOST = 1000
_REMEMBERED = 100
_ENVIRONMENT = (ENV_PREFIX, "WATCHFILES_FORCE_POLLING")
_RENEWED_EVERY = 10.0


class Looks(Protocol):
    """Looks at all files that can be ordered (see `watcher`)."""

    def order(self) -> int:
        """Have all files looked at now. The number of this look, to be compared with `done`."""

    @property
    def done(self) -> int:
        """The number of the last look whose findings the reloader knows of."""


class Clerk(Protocol):
    """What a server's adapter knows and does for its `Desk`; all of it at once, in the thread that decides."""

    def status(self) -> Message:
        """What is to be told of this server besides its state; JSON."""

    def busy(self) -> bool:
        """Whether old workers may still take requests, or a change waits for quiet."""

    def loaded_by(self, path: str) -> list[int]:
        """The pids of the workers that have loaded *path*."""

    def examine(self) -> Message:
        """``findings`` about the server's own options, and the ``application`` that they name; JSON."""


class Desk:
    """Answers for one server. For the thread that decides, but for the socket itself."""

    def __init__(self, control: Control, reloader: Reloader, files: Files, looks: Looks, clerk: Clerk) -> None:
        self._control = control
        self._reloader = reloader
        self._files = files
        self._looks = looks
        self._clerk = clerk
        self._waiting: list[tuple[bytes, str]] = []
        self._renewed = 0.0
        self._answered: dict[str, Message] = {}
        self._number = os.urandom(4).hex()
        self.paused_until: float | None = None
        """When the pause ends (seconds since the epoch), 0.0: when somebody ends it; None: there is none."""

    def take(self, messages: list[tuple[bytes, str]]) -> None:
        """Messages that `Control.receive` had, to be answered when there is time."""
        self._waiting += messages

    def step(self) -> None:
        """Answer what waits, and see whether the pause is over."""
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
        """Seconds until `step` has something to do by itself."""
        return max(0.0, self.paused_until - time.time()) if self.paused_until else float("inf")

    def pause(self, until: float) -> None:
        """Hold back what is saved from now on, *until* then (see `paused_until`)."""
        self.paused_until = until
        self._reloader.paused = True

    def resume(self) -> None:
        """What was held back goes in."""
        self.paused_until = None
        self._reloader.paused = False

    def _answer_once(self, message: Message) -> Message:
        """Who gets no answer for a while asks again: that is the same question."""
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
            # A path that is none, say.
            return {"error": f"{do}: {error}"[:200]}

    def _look(self, message: Message) -> Message:
        # Numbers of looks count from this desk's opening.
        return {"look": self._looks.order(), "desk": self._number}

    def _ask(self, message: Message) -> Message:
        self._reloader.asked(REQUEST)
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
        state = self._reloader.state
        # In this order: what was found before that look is known by now.
        looked, busy = self._looks.done, self._clerk.busy()
        held = self._reloader.wanted and not self._reloader.due
        at_rest = (state in (State.IDLE, State.REFUSED) or held) and not busy and not self._reloader.due
        pending = self._reloader.pending
        known = self._clerk.status()
        done = known.get("last_reload")
        if isinstance(done, dict):
            known["last_reload"] = {**done, "paths": _some(done["paths"]), "names": done["names"][:_NAMES_AT_MOST]}
        status = {
            **known,
            "state": state.value,
            "paused_until": self.paused_until,
            "paused": self.paused_until is not None,
            "pending": _some(sorted(map(self._files.relative, pending))[:_PENDING_AT_MOST]),
            "held": len(pending) if held else 0,
            "looked": looked,
            "desk": self._number,
            "at_rest": at_rest,
        }
        return {"status": status}

    def _explain(self, message: Message) -> Message:
        path = self._files.path(str(message.get("path")))
        served = self._reloader.service.get(path)
        found = known_signature(path)
        explained = {
            "path": path,
            "rule": self._files.explain(path),
            "in_service": served is not None,
            "workers": self._clerk.loaded_by(path),
            "as_loaded": None if served is None else _shown(served),
            "on_disk": _shown(Digests().now(path)),
            "signature": None if found is None else found._asdict(),
            "pending": path in self._reloader.pending,
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
        return {"examined": {**project, **self._clerk.examine()}}


def _some(paths: Iterable[str]) -> list[str]:
    """The first of *paths*: as many as an answer has room for."""
    room, found = _PATHS_AT_MOST, []
    for path in paths:
        room -= len(json.dumps(path, ensure_ascii=False).encode(errors="surrogatepass"))
        if room < 0:
            break
        found.append(path)
    return found


def _shown(content: Digest) -> str:
    return content.decode() if content in (MISSING, UNKNOWN) else content.hex()


def control_or_none(kind: str, pid: int, complain: Any) -> Control | None:
    """The socket for the command line; where none can be had, *complain* is called with one line."""
    try:
        return Control(kind, pid)
    except OSError as error:
        complain(f"the command line cannot reach this server: {error.strerror or error}")
        return None
