"""Publishes reload events to history, callbacks, metrics and systemd."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..core.log import ReloadLog
from ..core.refusal import Refusal
from ..core.settings import Settings
from ..report import systemd
from ..watching.signature import known_signature
from .callbacks import Callbacks, Error, Event, Rights
from .history import PATHS_AT_MOST, History
from .metrics import Metrics

_METRICS_EVERY = 1.0


class Publisher:
    """Publishes the events of one server. For the reload loop's thread; no method waits or raises.

    *record* is kept up to date; *keep* is called with its note after each event. Log lines are not written here.
    *rights*: the workers', if this process has more.
    """

    def __init__(
        self,
        settings: Settings,
        journal: ReloadLog,
        record: History,
        callbacks: Callbacks,
        keep: Callable[[dict[str, Any]], object] | None = None,
        rights: Rights | None = None,
    ) -> None:
        self.record = record
        self._journal = journal
        self._callbacks = callbacks
        self._keep = keep
        # `join` keeps an absolute name.
        path = settings.metrics_file and os.path.join(record.root, settings.metrics_file)
        source = settings.sources.get("metrics_file", "")
        self._metrics = Metrics(path, journal, rights, chosen_in=source if os.path.isabs(source) else "")
        self._written: tuple[object, ...] | None = None
        self._write_at = 0.0
        self._told: object = None
        self._paths: tuple[str, ...] = ()
        self._began: float | None = None

    def begins(self, paths: Iterable[str], asked: bool = False) -> None:
        """An attempt starts, over *paths*; *asked*: because of a request, such as a HUP.

        Attempts over the same paths, with the same content, are one change: it is told once.
        """
        self._paths = tuple(sorted(paths))
        self._began = time.monotonic()
        systemd.reloading()
        told = asked, {path: known_signature(path) for path in self._paths}
        if told != self._told:
            self._told = told
            self._fire("change", self._paths, 0.0, time.time())

    def reloaded(self, paths: Iterable[str], seconds: float, workers: int, request: str | None = None) -> None:
        """New code is in service, *seconds* after the save, in *workers*. *request*: what asked for it (HUP)."""
        paths, at, record = tuple(sorted(paths)), time.time(), self.record
        names = self._journal.names(paths, request)
        record.reloads += 1
        record.seconds += seconds
        record.last_reload = {"at": at, "seconds": seconds, "paths": list(paths[:PATHS_AT_MOST]), "names": names}
        record.workers, record.refused = workers, False
        self._told = self._began = None
        what = f": {names}" if names else ""
        many = "s" if workers != 1 else ""
        systemd.ready(f"reloaded {_clock(at)} in {seconds:.2f} s{what}; {workers} worker{many}")
        self._fire("reloaded", paths, seconds, at)
        self._note()

    def refused(self, why: Refusal, news: bool = True) -> None:
        """New code is refused. Without *news* it has been told and counted before."""
        at, record = time.time(), self.record
        error = Error(why.reason, why.path, why.line, why.traceback)
        record.refused = True
        if news:
            record.refusals += 1
            record.last_refusal = {"at": at, **vars(error)}
        began, self._began = self._began, None
        # At a start that fails the service is not ready.
        tell = systemd.status if began is None else systemd.ready
        tell(f"refused {_clock(at)}: {self._journal.place(why)}")
        if news:
            self._fire("refused", self._paths, time.monotonic() - began if began is not None else 0.0, at, error)
        self._note()

    def idle(self) -> None:
        """Publish that the change was reverted: what is on disk is in service again."""
        self.record.refused = False
        self._told = self._began = None
        systemd.ready(f"taken back {_clock(time.time())}, nothing to load")
        self._note()

    def look(self, watched: int, workers: int) -> None:
        """To be called at each step: *watched* files, *workers* in service. `History.paused` may have been set."""
        self._callbacks.look()
        self._metrics.look()
        self.record.watched, self.record.workers = watched, workers
        now = time.monotonic()
        if now >= self._write_at and self._shown() != self._written:
            self._write_metrics(now)

    def leave(self) -> None:
        """Close the pipes in a forked child, which publishes nothing."""
        self._callbacks.leave()
        self._metrics.leave()

    def _fire(self, kind: str, paths: tuple[str, ...], seconds: float, at: float, error: Error | None = None) -> None:
        record = self.record
        self._callbacks.fire(
            Event(kind, record.server, record.pid, record.root, paths, seconds, record.workers, error, at)
        )

    def _note(self) -> None:
        self._write_metrics(time.monotonic())
        if self._keep is not None:
            try:
                self._keep(self.record.as_note())
            except OSError as error:
                self._journal.debug("the record cannot be kept: %s", error)

    def _write_metrics(self, now: float) -> None:
        self._written = self._shown()
        self._write_at = now + _METRICS_EVERY
        self._metrics.write(self.record)

    def _shown(self) -> tuple[object, ...]:
        """What the counters' file shows of the moment."""
        record = self.record
        return record.watched, record.workers, record.refused, record.paused


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
