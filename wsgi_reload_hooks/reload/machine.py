"""Decides what follows a change: which attempt starts, what came of it, and what is reported.

Pure, in h11's manner: events come in as calls that carry the time (monotonic seconds), commands come out as lists. No
file, clock, thread or process is touched here: the `ReloadLoop` hashes files and carries the commands out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core.refusal import Refusal
from ..watching.signature import MISSING, UNKNOWN, Digest
from .commands import Attempt, CancelTrial, Command, News, Phase, Report, StartTrial, Switch
from .contents import Contents


class ReloadMachine(Contents):
    """The state of one server's reloading. For one thread. *retry_after*: seconds until an attempt that could not be
    tried is tried again."""

    def __init__(self, retry_after: float = 5.0) -> None:
        super().__init__()
        self.phase = Phase.IDLE
        self.attempt: Attempt | None = None
        """The attempt that is tried, takes over, or was refused last; None when idle."""
        self.paused = False
        self.ever_served = False
        self._retry_after = retry_after
        self._left_out: set[str] = set()
        self._overtaken: Attempt | None = None
        self._running = False
        self._wanted = False
        self._request: str | None = None
        self._since: float | None = None
        self._retry_at: float | None = None
        self._unavailable = False
        self._retrying = False
        self._numbers = 0
        self._told: tuple[str, str | None, int | None] | None = None

    # -- what is known -------------------------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Tell whether an attempt only waits to be started."""
        return self._wanted and not self.held

    @property
    def held(self) -> bool:
        """Whether a pause holds an attempt back. It holds changes, never requests."""
        return self._wanted and self.paused and self._request is None and bool(self._pending)

    @property
    def deadline(self) -> float | None:
        """Return when `tick` has something to do; None: never."""
        return self._retry_at

    def loaded(self, path: str, content: Digest, attempt: Attempt | None = None) -> None:
        """Record that a process has loaded *path* with this *content*: one that serves, or one that tries *attempt*."""
        if attempt is None:
            if self._service.setdefault(path, content) != content:
                self._service[path] = UNKNOWN
        elif attempt is self.attempt:
            self._loaded.add(path)
            if self._tried.setdefault(path, content) != content:
                self._tried[path] = UNKNOWN

    def leave_out(self, attempt: Attempt, paths: Iterable[str]) -> None:
        """*paths* are refused by themselves: *attempt* goes on without them, and they are not reported as reloaded."""
        if attempt is self.attempt:
            self._left_out = set(paths)

    def restored(
        self, service: Mapping[str, Digest], switching: Attempt | None, told: Refusal | None, served: bool = True
    ) -> None:
        """Go on where another process stopped: its *service*, an unfinished switch, and what it has reported.

        *served*: whether anything has ever been in service.
        """
        self.ever_served = served
        for path, content in service.items():
            self.loaded(path, content)
        self._told = None if told is None else _key(told)
        if switching is not None:
            self.attempt, self.phase = switching, Phase.SWITCHING
            self._numbers = max(self._numbers, switching.number)

    # -- events --------------------------------------------------------------------------------------------------------

    def changed(self, found: Mapping[str, Digest], appeared: Iterable[str], now: float) -> list[Command]:
        """These files may have changed, their content is *found* now; new names *appeared* in these folders.

        While an attempt is tried, or was refused, only what differs from that attempt is news.
        """
        news = set(appeared)
        self._pending |= news
        for path, content in found.items():
            self._disk[path] = content
            served = self._service.get(path, MISSING)
            (self._pending.discard if content == served else self._pending.add)(path)
            if content != self._tried.get(path, served):
                news.add(path)
        if not news and self.phase in (Phase.TRYING, Phase.REFUSED):
            return []
        self._wanted = bool(self._pending or self._request)
        if self._wanted:
            self._retry_at, self._retrying = None, False
            return self._react(now)
        return self._revert(frozenset(found).union(news)) if self.phase in (Phase.TRYING, Phase.REFUSED) else []

    def requested(self, by: str, now: float) -> list[Command]:
        """Begin a reload whatever the files say."""
        self._request, self._told, self._retry_at, self._wanted = by, None, None, True
        self._retrying = False
        return self._react(now)

    def retry(self, now: float) -> list[Command]:
        """Try again though nothing changed: what was in the way may have passed by itself.

        Such an attempt is reported only when it brings something new: another refusal, or code in service.
        """
        if not self._wanted:
            self._wanted = self._retrying = True
        return self._react(now)

    def pause(self, on: bool, now: float) -> list[Command]:
        """Hold changes back, or let them pass again."""
        self.paused = on
        return self._react(now)

    def passed(self, attempt: Attempt, disk: Mapping[str, Digest], now: float) -> list[Command]:
        """The trial of *attempt* was good. *disk*: the content of the `tried` files as of now."""
        if attempt is not self.attempt or not self._running:
            return []
        self._running = self._unavailable = False
        outdated = self._outdated(disk)
        if outdated:
            self._pending |= outdated
            self._wanted, self._retrying = True, False
            return self._react(now)
        self._retrying = False
        kept = self._loaded | self._listed
        self._service = {path: content for path, content in self._tried.items() if path in kept}
        self._disk = {path: content for path, content in self._disk.items() if path in kept}
        self._pending, self._tried, self._loaded = set(), {}, set()
        self._request = self._told = self._since = self._overtaken = None
        self.phase = Phase.SWITCHING
        return [Switch(attempt)]

    def failed(self, attempt: Attempt, why: Refusal, disk: Mapping[str, Digest], now: float) -> list[Command]:
        """The trial of *attempt* was no good. *disk*: the content of the `tried` files as of now."""
        if attempt is not self.attempt or not self._running:
            return []
        self._running = self._unavailable = False
        self._request = self._since = None
        if not self.ever_served:
            self._nothing_serves()
        outdated = self._outdated(disk)
        self._pending |= outdated
        self._wanted = bool(outdated)
        if self._pending or not self.ever_served:
            self.phase = Phase.REFUSED
        else:
            # Refused though the disk is as in service (after a HUP): what serves can be replaced as before.
            self._settle()
        news = News.REFUSED if self._is_news(why) else News.STILL_REFUSED
        retried, self._retrying = self._retrying, False
        reports = [] if retried and news is News.STILL_REFUSED else [Report(news, attempt, attempt.paths, why)]
        return [*reports, *self._react(now)]

    def unavailable(self, attempt: Attempt, why: str, now: float) -> list[Command]:
        """*attempt* could not be tried (no process, no memory): this says nothing about the code. It is tried again."""
        if attempt is not self.attempt or not self._running:
            return []
        self._running = False
        self._retry_at, self._wanted = now + self._retry_after, True
        told, self._unavailable = self._unavailable, True
        return [] if told else [Report(News.UNAVAILABLE, attempt, attempt.paths, Refusal(why))]

    def switched(self, attempt: Attempt, now: float) -> list[Command]:
        """*attempt* is in service everywhere. What changed meanwhile follows at once."""
        if attempt is not self.attempt or self.phase is not Phase.SWITCHING:
            return []
        self.phase, self.attempt, self.ever_served = Phase.IDLE, None, True
        self._wanted = bool(self._pending or self._request)
        paths, self._left_out = attempt.paths - self._left_out, set()
        return [Report(News.RELOADED, attempt, paths, seconds=now - attempt.since), *self._react(now)]

    def served(self) -> None:
        """Something serves. Where the first start was refused before, other workers of it were ready after all."""
        if not self.ever_served:
            self.ever_served = True
            if self.phase is Phase.REFUSED:
                self._pending, self._tried, self._wanted = set(), {}, False
                self._settle()

    def lost(self, why: Refusal, loaded: Mapping[str, Digest], disk: Mapping[str, Digest], now: float) -> list[Command]:
        """A worker that was no part of an attempt did not start: one of the first start, or a replacement.

        *loaded*: what it had loaded. *disk*: the content of these files as of now.
        """
        if self.ever_served:
            return [Report(News.NOT_REPLACED, None, frozenset(loaded), why)] if self._is_news(why) else []
        if self._running:
            # The outcome of the current attempt decides.
            return []
        self._pending |= set(loaded)
        self._tried.update(loaded)
        self._numbers += 1
        self.attempt = Attempt(self._numbers, frozenset(loaded), None, now, True)
        self._running, self._retrying = True, False
        # Each worker of a start fails in the same way: that is reported once, without "still refused".
        commands = self.failed(self.attempt, why, disk, now)
        return [each for each in commands if not (isinstance(each, Report) and each.news is News.STILL_REFUSED)]

    def stopped(self, why: Refusal, loaded: Iterable[str], now: float) -> list[Command]:
        """What served has ended by itself, and nothing serves: it is started again when a file is saved.

        Even a touch of one of the *loaded* or listed files counts: the cause may lie outside of the code. An attempt that
        was under way, or due, begins anew.
        """
        self._wanted = self._wanted or self._running
        commands, paths = self._cancel(), frozenset(loaded)
        self._nothing_serves(paths)
        self._tried, self._told, self._overtaken = {}, None, None
        self._numbers += 1
        self.attempt, self.phase = Attempt(self._numbers, paths, None, now, False), Phase.REFUSED
        return [*commands, Report(News.REFUSED, self.attempt, paths, why), *self._react(now)]

    def tick(self, now: float) -> list[Command]:
        """Time has passed: an attempt that could not be tried may be due again."""
        if self._retry_at is None or now < self._retry_at:
            return []
        self._retry_at = None
        return self._react(now)

    # -- deciding ------------------------------------------------------------------------------------------------------

    def _react(self, now: float) -> list[Command]:
        if not self._wanted:
            return []
        if self._since is None:
            self._since = now
        commands = self._cancel()
        if not self.due or self._retry_at is not None:
            return commands
        if self.phase is Phase.SWITCHING:
            self._overtaken = self.attempt
        paths, request, since = frozenset(self._pending), self._request, self._since
        if self._overtaken is not None:
            # This attempt includes what the overtaken switch did not finish.
            paths, since = paths | self._overtaken.paths, min(since, self._overtaken.since)
            request = request or self._overtaken.request
        self._numbers += 1
        self.attempt = Attempt(self._numbers, paths, request, since, not self.ever_served)
        self.phase, self._running, self._wanted = Phase.TRYING, True, False
        self._loaded = set()
        self._tried = {path: self._disk[path] for path in self._pending | self._listed if path in self._disk}
        if not self._retrying:
            commands.append(Report(News.TRYING, self.attempt, paths))
        return [*commands, StartTrial(self.attempt)]

    def _revert(self, paths: frozenset[str]) -> list[Command]:
        reverted, commands = self.attempt, self._cancel()
        self._told = self._since = self._retry_at = None
        self._tried = {}
        self._settle()
        return [*commands, Report(News.REVERTED, reverted, paths)]

    def _settle(self) -> None:
        """End the current attempt or refusal: continue an overtaken switch; otherwise all is in service."""
        self.attempt, self._overtaken = self._overtaken, None
        self.phase = Phase.IDLE if self.attempt is None else Phase.SWITCHING

    def _cancel(self) -> list[Command]:
        running, self._running = self._running, False
        return [CancelTrial(self.attempt)] if running and self.attempt is not None else []

    def _is_news(self, why: Refusal) -> bool:
        """Tell whether this refusal was not reported yet. It counts as reported from now on."""
        told, self._told = self._told, _key(why)
        return told != self._told


def _key(why: Refusal) -> tuple[str, str | None, int | None]:
    # Without the traceback: that depends on the process that met the error.
    return why.reason, why.path, why.line
