"""Writes counters for Prometheus into a file that a node exporter collects (its text format)."""

from __future__ import annotations

import os
import stat
import sys
from typing import NamedTuple

from ..core.log import ReloadLog
from ..core.text import PACKAGE_ROOT, printable
from ..process.native import Native
from ..trial.trial import scratch_file
from .callbacks import Rights, reaped
from .history import History
from .metrics_main import replace

METRICS_MAIN = os.path.join(PACKAGE_ROOT, "report", "metrics_main.py")
"""The program that writes with the workers' rights."""
_REASON_AT_MOST = 1000

_PREFIX = "wsgi_reload_"


class _Metric(NamedTuple):
    name: str
    kind: str
    help: str
    value: int | float


class Metrics:
    """The file *path* (absolute), "" for none. For one thread; no method waits for another process or raises.

    *rights*: the workers', if this process has more. It then writes by itself only where the workers cannot have chosen
    the place: *chosen_in* (the file that names *path*, "" for the environment) and each folder on the way are not theirs
    to change. Else a process with their rights writes.
    """

    def __init__(self, path: str, journal: ReloadLog, rights: Rights | None = None, chosen_in: str = "") -> None:
        self._path = path and os.path.abspath(path)
        self._journal = journal
        self._rights = rights
        self._chosen_in = chosen_in
        self._failed = False
        self._writer: _Writer | None = None
        self._ended: list[int] = []
        self._next: bytes | None = None

    def write(self, record: History) -> None:
        """Replace the file by one with the numbers of *record*. An error is logged once until writing works again."""
        if not self._path:
            return
        content = text(record).encode(errors="backslashreplace")
        try:
            if self._rights is None or not self._is_workers_choice(self._rights):
                replace(self._path, content)
                self._done("")
            elif self._writer is None:
                self._writer = _Writer(self._path, content, self._rights)
            else:
                self._next = content
        except OSError as error:
            self._done(error.strerror or str(error))

    def look(self) -> None:
        """Reap the process that writes if it has ended, and start the next. To be called now and then."""
        if self._ended:
            native = Native()
            self._ended = [pid for pid in self._ended if not reaped(native, pid)]
        if self._writer is None or not self._writer.has_ended():
            return
        self._ended.append(self._writer.pid)
        self._done(self._writer.why)
        self._writer = None
        content, self._next = self._next, None
        if content is not None and self._rights is not None:
            try:
                self._writer = _Writer(self._path, content, self._rights)
            except OSError as error:
                self._done(error.strerror or str(error))

    def leave(self) -> None:
        """Close the pipe in a forked child, which writes nothing."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self._ended = None, []

    def _done(self, why: str) -> None:
        if why and not self._failed:
            self._journal.warning("metrics_file %s cannot be written: %s", printable(self._path), why)
        self._failed = bool(why)

    def _is_workers_choice(self, rights: Rights) -> bool:
        source = self._chosen_in and os.path.abspath(self._chosen_in)
        return bool(source and can_change(source, rights)) or can_change(os.path.dirname(self._path), rights)


class _Writer:
    """Runs `metrics_main` once. Raises OSError if no process can be started."""

    def __init__(self, path: str, content: bytes, rights: Rights) -> None:
        self.why = ""
        """Why the file could not be written; after the end."""
        self._reader, writer = os.pipe()
        try:
            os.set_blocking(self._reader, False)
            groups = ",".join(map(str, rights.groups))
            words = [sys.executable, "-I", "-S", METRICS_MAIN, str(rights.uid), str(rights.gid), groups, path]
            with scratch_file() as file:
                file.write(content)
                file.seek(0)
                self.pid = Native().spawn(words, {}, [(file.fileno(), 0), (writer, 1)])
        except BaseException:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)

    def has_ended(self) -> bool:
        """Tell whether it has ended: its end of the pipe is then closed, whatever code reaps it."""
        try:
            heard = os.read(self._reader, _REASON_AT_MOST)
        except BlockingIOError:
            return False
        if heard:
            self.why = printable(heard.decode(errors="replace"))
            return False
        self.close()
        return True

    def close(self) -> None:
        os.close(self._reader)


def can_change(path: str, rights: Rights) -> bool:
    """Tell whether a process with *rights* can change what *path* (absolute) is or leads to.

    Access control lists are not looked at. What does not exist is judged by the folders above.
    """
    places, known = [path], set()
    while places:
        place = places.pop()
        if place in known:
            continue
        known.add(place)
        if place != os.path.dirname(place):
            places.append(os.path.dirname(place))
        try:
            found = os.lstat(place)
            if stat.S_ISLNK(found.st_mode):
                places += [os.path.abspath(os.path.join(os.path.dirname(place), os.readlink(place)))]
                places.append(os.path.realpath(place))
        except FileNotFoundError:
            continue
        except OSError:
            return True
        if _may_write(found, rights):
            return True
    return False


def _may_write(found: os.stat_result, rights: Rights) -> bool:
    if found.st_uid == rights.uid:
        return True
    if stat.S_ISLNK(found.st_mode):
        return False
    groups = (rights.gid, *rights.groups)
    return bool(found.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if found.st_gid in groups else 0)))


def text(record: History) -> str:
    """Return *record* in the text format of Prometheus."""
    labels = f'{{server="{_escaped(record.server)}",project="{_escaped(record.root)}"}}'
    lines = []
    for metric in _metrics(record):
        name = _PREFIX + metric.name
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}", f"{name}{labels} {metric.value!r}"]
    return "\n".join(lines) + "\n"


def _metrics(record: History) -> list[_Metric]:
    reload, refusal = record.last_reload or {}, record.last_refusal or {}
    return [
        _Metric("reloads_total", "counter", "Changes that went into service.", record.reloads),
        _Metric("refusals_total", "counter", "Changes that were refused.", record.refusals),
        _Metric("seconds_total", "counter", "Seconds from save to service, all reloads together.", record.seconds),
        _Metric("last_seconds", "gauge", "Seconds from save to service, the last reload.", _number(reload, "seconds")),
        _Metric("last_reload_timestamp_seconds", "gauge", "When the last reload was done.", _number(reload, "at")),
        _Metric("last_refusal_timestamp_seconds", "gauge", "When a change was last refused.", _number(refusal, "at")),
        _Metric("watched_files", "gauge", "Files that are watched.", record.watched),
        _Metric("workers", "gauge", "Workers in service.", record.workers),
        _Metric("refused", "gauge", "Whether what is on disk right now is refused.", int(record.refused)),
        _Metric("paused", "gauge", "Whether reloading is paused.", int(record.paused)),
    ]


def _number(event: dict[str, object], name: str) -> int | float:
    value = event.get(name, 0)
    return value if isinstance(value, (int, float)) else 0


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
