"""Reports what the reload machine decided: to the log, to the publisher, and to what is watched."""

from __future__ import annotations

from ..core.log import BROKEN_START, NOT_REPLACED, REFUSED, ReloadLog, reasons
from ..core.refusal import Refusal
from ..report.publisher import Publisher
from .backend import Backend
from .commands import News, Report
from .machine import ReloadMachine
from .watched import Watched

START = "start"
"""The request of an attempt that is the program's first start: it is not reported as a reload."""


class Reporter:
    """One line of the log for each piece of news, the same for every server. For the thread that decides."""

    def __init__(
        self, backend: Backend, machine: ReloadMachine, watched: Watched, log: ReloadLog, publisher: Publisher
    ) -> None:
        self._backend = backend
        self._machine = machine
        self._watched = watched
        self._log = log
        self._publisher = publisher

    def report(self, report: Report) -> None:
        """Write *report* to the log and the publisher, and update what is watched."""
        why, attempt = report.why, report.attempt
        is_start = attempt is not None and attempt.request == START
        match report.news:
            case News.TRYING:
                self._watched.trying()
                if not is_start and attempt is not None:
                    self._publisher.begins(report.paths, attempt.request is not None)
            case News.REFUSED | News.STILL_REFUSED if why is not None:
                self._watched.refused(why, self._machine.tried)
                self._publisher.refused(why, report.news is News.REFUSED)
                self._log_refusal(report.news, why)
            case News.REVERTED:
                self._watched.serving()
                self._publisher.idle()
                names = self._log.names(report.paths)
                self._log.info("%s: change reverted, nothing to reload", names, event="reverted")
            case News.UNAVAILABLE if why is not None:
                self._log.warning("cannot start the trial process, retrying every 5 s: %s", why.reason)
            case News.NOT_REPLACED if why is not None:
                self._watched.refused(why, report.paths)
                self._log.refusal(NOT_REPLACED, why)
            case News.RELOADED if attempt is not None:
                self._watched.listed(self._backend.listed_files())
                self._watched.serving()
                names = self._log.names(report.paths, attempt.request)
                if self._backend.verb and names and not is_start:
                    self._log_reloaded(report, names, attempt.request)
                elif self._publisher.record.refused:
                    # The first start was refused before, and is repaired now.
                    self._publisher.idle()
        self._backend.reported(report)

    def _log_refusal(self, news: News, why: Refusal) -> None:
        if news is News.REFUSED:
            self._log.refusal(why.about or (REFUSED if self._backend.serves() else BROKEN_START), why)
        else:
            self._log.info("still refused: %s", self._log.place(why), event="still_refused", **reasons(why))

    def _log_reloaded(self, report: Report, names: str, request: str | None) -> None:
        workers = int(self._backend.status().get("workers", 0))
        told = {"seconds": report.seconds, "files": sorted(report.paths), "workers": workers}
        many = "" if workers == 1 else "s"
        text = f"{self._backend.verb} in %.2f s: %s; %d worker{many}"
        self._log.info(text, report.seconds, names, workers, event="reloaded", **told)
        self._publisher.reloaded(report.paths, report.seconds, workers, request)
