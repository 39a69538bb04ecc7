"""Writes counters for Prometheus into a file that a node exporter collects (its text format)."""

from __future__ import annotations

import os
from typing import NamedTuple

from ..core.log import ReloadLog
from ..core.text import printable
from .history import History

_PREFIX = "wsgi_reload_"


class _Metric(NamedTuple):
    name: str
    kind: str
    help: str
    value: int | float


class Metrics:
    """The file *path*, "" for none."""

    def __init__(self, path: str, journal: ReloadLog) -> None:
        self._path = path
        self._journal = journal
        self._failed = False

    def write(self, record: History) -> None:
        """Replace the file by one with the numbers of *record*. An error is logged once until writing works again."""
        if not self._path:
            return
        try:
            _replace(self._path, text(record).encode(errors="backslashreplace"))
            self._failed = False
        except OSError as error:
            if not self._failed:
                self._failed = True
                place = printable(self._path)
                self._journal.warning("metrics_file %s cannot be written: %s", place, error.strerror or error)


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


def _replace(path: str, content: bytes) -> None:
    # Collectors read files by their suffix, and this name has another one.
    sibling = f"{path}.{os.getpid()}"
    try:
        # A file left by a process with our pid; it is made new, so that it is no other user's file, and no link.
        os.unlink(sibling)
    except FileNotFoundError:
        pass
    file = os.open(sibling, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(file, "wb") as stream:
            # The node exporter runs as another user and must read it, whatever our umask is.
            os.fchmod(file, 0o644)
            stream.write(content)
        os.replace(sibling, path)
    except OSError:
        os.unlink(sibling)
        raise
