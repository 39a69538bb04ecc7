"""What to do about a change: the set of changes not in service yet, the states, and the decisions.

No thread, no clock, no signal of its own: a server's adapter tells it what happened and asks what is wanted.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from ..control.channel import Message
from ..control.service import ReloadState
from ..core.refusal import Refusal
from ..watching.signature import MISSING, UNKNOWN, Digest, Digests


class State(enum.Enum):
    """IDLE: what is on disk is in service. PROVING: new code is being tried beside the old. SWITCHING: it takes over.
    REFUSED: it was no good, the old code serves, a repair is waited for. (SETTLING is the watcher's.)
    """

    IDLE = "idle"
    PROVING = "trying"
    SWITCHING = "switching"
    REFUSED = "refused"


class Reloader:
    """Knows what is in service, what is being tried, and what is pending.

    *debug* is called with one line for each change of state.
    """

    def __init__(self, digests: Digests, debug: Callable[[str], object] = lambda line: None) -> None:
        self.state = State.IDLE
        self.wanted = False
        """An attempt is to be started; where one is under way, it is to be started over."""
        self.request: str | None = None
        """Who asked for a reload without regard to changes (HUP), while that is not in service."""
        self.pending: set[str] = set()
        self.service: dict[str, Digest] = {}
        self.attempt: dict[str, Digest] = {}
        self.paused = False
        """Somebody wants saves to collect: they are told of, and wait."""
        self._digests = digests
        self._debug = debug
        self._loaded: set[str] = set()
        self._listed: set[str] = set()
        self._told: tuple[str, str | None, int | None] | None = None
        self._nothing_serves = False

    @property
    def due(self) -> bool:
        """Whether an attempt is to be started now. A pause holds back changes, not who asks for a reload, nor a new trial of
        what is in service."""
        return self.wanted and (not self.paused or self.request is not None or not self.pending)

    def serves(self, path: str, content: Digest) -> None:
        """A worker in service has loaded *path* with this *content*."""
        if self.service.setdefault(path, content) != content:
            self.service[path] = UNKNOWN

    def listed(self, paths: Iterable[str]) -> None:
        """Files that count without being loaded; their content as of now is in service."""
        for path in paths:
            self._listed.add(path)
            self.service.setdefault(path, self._digests.now(path))

    def asked(self, by: str) -> None:
        """A reload is wanted whatever the files say (HUP)."""
        self.request = by
        self._told = None
        self.wanted = True

    def retry(self) -> None:
        """Try again though nothing changed: what was in the way may have passed by itself."""
        self.wanted = True

    def resume(self) -> None:
        """What is proven already is being put into service (by another one, who is gone)."""
        self._enter(State.SWITCHING)

    def changed(self, paths: Iterable[str], appeared: Iterable[str] = ()) -> bool:
        """These *paths* may have changed; *appeared* are folders with new names in them. Whether anything is to do.

        While an attempt is under way or was refused, only what differs from that attempt is news.
        """
        news = set(appeared)
        self.pending |= news
        for path in paths:
            content = self._digests.now(path)
            served = self.service.get(path, MISSING)
            if content != served:
                self.pending.add(path)
            else:
                self.pending.discard(path)
            if content != self.attempt.get(path, served):
                news.add(path)
        if self.state in (State.IDLE, State.SWITCHING) or news:
            self.wanted = bool(self.pending or self.request)
        if not self.wanted and news and self.state in (State.PROVING, State.REFUSED):
            self._told = None
            self._enter(State.IDLE)
        return bool(news) and (self.wanted or self.state is State.IDLE)

    def begin(self) -> set[str]:
        """An attempt starts, over all that is pending. The pending paths."""
        self._enter(State.PROVING)
        self.wanted = False
        self._loaded = set()
        self.attempt = {path: self._digests.now(path) for path in self.pending | self._listed}
        return set(self.pending)

    def tried(self, path: str, content: Digest) -> None:
        """A worker of the attempt has loaded *path* with this *content*."""
        self._loaded.add(path)
        if self.attempt.setdefault(path, content) != content:
            self.attempt[path] = UNKNOWN

    def outdated(self) -> set[str]:
        """The files of the attempt that differ on disk by now: it would put old code into service."""
        return {path for path, content in self.attempt.items() if self._digests.now(path) != content}

    def proven(self) -> set[str]:
        """The attempt is good: it is what is in service from now on. The paths that were pending."""
        self._enter(State.SWITCHING)
        done, self.pending = self.pending, set()
        kept = self._loaded | self._listed
        self.service = {path: content for path, content in self.attempt.items() if path in kept}
        self.attempt = {}
        self.request = self._told = None
        self._nothing_serves = False
        self._digests.forget(self.service)
        return done

    def switched(self) -> None:
        """The switch is done. What changed meanwhile follows at once."""
        self._enter(State.IDLE)
        self.wanted = bool(self.pending or self.request)

    def refused(self, why: Refusal) -> bool:
        """The attempt was no good. Whether that is news: the same refusal is told once."""
        self.request = None
        outdated = self.outdated()
        self.pending |= outdated
        self.wanted = bool(outdated)
        # Refusal though nothing differs on disk (after a HUP): what serves can be replaced from the disk as before.
        self._enter(State.REFUSED if self.pending or self.wanted or self._nothing_serves else State.IDLE)
        return self.news(why)

    def news(self, why: Refusal) -> bool:
        """Whether this refusal has not been told yet. It counts as told from now on."""
        # Not its traceback: who met it matters to that.
        told = (why.reason, why.path, why.line)
        news, self._told = self._told != told, told
        return news

    def failed_start(self, loaded: Mapping[str, Digest]) -> None:
        """A worker of the very first start did not boot: what it had *loaded* is no more than an attempt."""
        self._nothing_serves = True
        self.attempt.update(loaded)
        self.service = dict.fromkeys(self._listed, UNKNOWN)
        self.pending |= set(loaded)

    def served_after_all(self) -> None:
        """The first start was refused, but other workers of it made it."""
        self._nothing_serves = False
        self.pending, self.attempt, self.wanted = set(), {}, False
        self._enter(State.IDLE)

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self._debug(f"{self.state.name} -> {state.name}")
            self.state = state


class AdapterState(Protocol):
    """What an adapter that is not driven by a `ReloadLoop` tells of its server."""

    def status(self) -> Message:
        """See `StatusSource`."""

    def busy(self) -> bool:
        """See `StatusSource`."""

    def loaded_by(self, path: str) -> list[int]:
        """See `StatusSource`."""

    def examine(self) -> Message:
        """See `StatusSource`."""


class ReloaderSource:
    """A `control.service.StatusSource` of a `Reloader` and its adapter."""

    def __init__(self, reloader: Reloader, adapter: AdapterState) -> None:
        self._reloader = reloader
        self.status, self.busy = adapter.status, adapter.busy
        self.loaded_by, self.examine = adapter.loaded_by, adapter.examine

    def state(self) -> ReloadState:
        """See `StatusSource`."""
        reloader = self._reloader
        return ReloadState(
            reloader.state.value, set(reloader.pending), reloader.due, reloader.wanted and not reloader.due
        )

    def in_service(self, path: str) -> Digest | None:
        """See `StatusSource`."""
        return self._reloader.service.get(path)

    def request(self, by: str) -> None:
        """See `StatusSource`."""
        self._reloader.asked(by)

    def pause(self, on: bool) -> None:
        """See `StatusSource`."""
        self._reloader.paused = on
