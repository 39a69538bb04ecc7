"""Who hears what of a reload: the record, callbacks, the counters' file, systemd."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edits import save
from harness import wait_until

from wsgi_reload_hooks import Settings
from wsgi_reload_hooks.core.log import ReloadLog
from wsgi_reload_hooks.core.refusal import Refusal
from wsgi_reload_hooks.report.callbacks import Callbacks, Error, Event
from wsgi_reload_hooks.report.history import History
from wsgi_reload_hooks.report.metrics import text
from wsgi_reload_hooks.report.publisher import Publisher

pytestmark = pytest.mark.unit


class Log:
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, *arguments: object) -> None:
        self.lines.append(text % arguments)

    debug = warning


class Keeping(Callbacks):
    """Keeps the events that would be told."""

    def __init__(self, journal: ReloadLog, folder: Path) -> None:
        super().__init__(Settings(), journal, str(folder))
        self.events: list[Event] = []

    def fire(self, event: Event) -> None:
        self.events.append(event)


class Told:
    """A chronicle in *root*, and all who hear of it."""

    def __init__(self, root: Path, manager: socket.socket) -> None:
        self.root = root
        self.log = Log()
        self.notes: list[dict[str, Any]] = []
        self.record = History(server="gunicorn", pid=os.getpid(), root=str(root))
        settings = Settings(metrics_file="run/reload.prom")
        journal = ReloadLog(self.log, str(root))
        self.callbacks = Keeping(journal, root)
        self.chronicle = Publisher(settings, journal, self.record, self.callbacks, self.notes.append)
        self._manager = manager

    def path(self, name: str) -> str:
        """The absolute path of *name*, which is saved anew."""
        return str(save(self.root / name, os.urandom(8).hex()))

    def kinds(self) -> list[str]:
        """The events since the last time."""
        events, self.callbacks.events = self.callbacks.events, []
        return [event.kind for event in events]

    def heard(self) -> list[str]:
        """What systemd was told since the last time; times are masked."""
        found: list[str] = []
        while True:
            try:
                said = self._manager.recv(4096).decode()
            except BlockingIOError:
                return found
            found.append(re.sub(r"USEC=\d+|\d\d:\d\d:\d\d", "T", said))

    def metrics(self) -> str:
        return (self.root / "run" / "reload.prom").read_text()


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """A project, with a systemd that listens."""
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield Told(tmp_path, manager)


RELOADING = "RELOADING=1\nMONOTONIC_T"


def test_a_reload(told: Told) -> None:
    """It is recorded, counted, told to callbacks and to systemd, and handed on."""
    b, a = told.path("b.py"), told.path("a.py")
    told.chronicle.begins({b, a})
    told.chronicle.reloaded({b, a}, 1.25, 4)
    change, reloaded = told.callbacks.events
    assert (change.kind, change.paths, change.seconds, change.error) == ("change", (a, b), 0.0, None)
    assert (reloaded.kind, reloaded.paths, reloaded.seconds, reloaded.workers) == ("reloaded", (a, b), 1.25, 4)
    assert (reloaded.server, reloaded.pid, reloaded.root) == ("gunicorn", os.getpid(), str(told.root))
    assert told.heard() == [RELOADING, "READY=1\nSTATUS=reloaded T in 1.25 s: a.py, b.py; 4 workers"]
    told.chronicle.begins((), asked=True)
    told.chronicle.reloaded((), 0.5, 1, "HUP")
    assert told.heard() == [RELOADING, "READY=1\nSTATUS=reloaded T in 0.50 s: HUP; 1 worker"]
    record = told.record
    assert (record.reloads, record.seconds, record.refusals, record.workers) == (2, 1.75, 0, 1)
    assert told.notes[0]["last_reload"] == {"at": reloaded.at, "seconds": 1.25, "paths": [a, b], "names": "a.py, b.py"}
    assert told.notes[1] == record.as_note() and told.metrics() == text(record)


def test_refused_repaired_and_taken_back(told: Told) -> None:
    """A refusal counts once however often it is met, systemd is not kept waiting, and a repair ends it."""
    path = told.path("a.py")
    told.chronicle.begins({path})
    told.chronicle.refused(Refusal("NameError: x", path, 3, "Traceback"))
    event = told.callbacks.events[-1]
    assert event.error == Error("NameError: x", path, 3, "Traceback") and event.paths == (path,)
    assert told.record.last_refusal == {"at": event.at, **vars(event.error)}
    ready = "READY=1\nSTATUS=refused T: a.py, line 3: NameError: x"
    assert told.kinds() == ["change", "refused"] and told.heard() == [RELOADING, ready]
    told.chronicle.begins({path})
    told.chronicle.refused(Refusal("NameError: x", path, 3), news=False)
    assert told.kinds() == [] and told.heard() == [RELOADING, ready]
    assert (told.record.refusals, told.record.refused) == (1, True) and "refused{" in told.metrics()
    told.path("a.py")
    told.chronicle.begins({path})
    told.chronicle.reloaded({path}, 1.0, 4)
    assert told.kinds() == ["change", "reloaded"] and not told.record.refused
    told.chronicle.refused(Refusal("again", path))
    told.chronicle.idle()
    assert not told.record.refused
    assert told.heard()[-1] == "READY=1\nSTATUS=taken back T, nothing to load"


def test_one_change_is_told_once(told: Told) -> None:
    """Attempts over the same content are one change; more files, another content, a request are others."""
    a = told.path("a.py")
    for _ in range(2):
        told.chronicle.begins({a})
    assert told.kinds() == ["change"]
    b = told.path("b.py")
    told.chronicle.begins({a, b})
    told.path("b.py")
    told.chronicle.begins({a, b})
    assert told.kinds() == ["change", "change"]
    for _ in range(2):
        told.chronicle.begins({a, b}, asked=True)
    assert told.kinds() == ["change"]
    told.chronicle.reloaded({a, b}, 1.0, 4)
    told.chronicle.begins((), asked=True)
    assert told.kinds() == ["reloaded", "change"]


def test_a_start_that_fails_is_not_ready(told: Told) -> None:
    """What was never begun as a reload is no end of one."""
    told.chronicle.refused(Refusal("gone"))
    assert told.heard() == ["STATUS=refused T: gone"] and told.kinds() == ["refused"]


def test_long_lists_are_cut(told: Told) -> None:
    """Of very many paths the record has the first fifty; a callback gets them all."""
    paths = [f"/srv/{number:04}.py" for number in range(2000)]
    told.chronicle.reloaded(paths, 1.0, 4)
    assert told.record.last_reload is not None and told.record.last_reload["paths"] == paths[:50]
    assert told.callbacks.events[0].paths == tuple(paths)


def test_the_moment_is_written_now_and_then(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is there from the first look on, is written anew when it would say something else, not at each step."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    told.chronicle.look(12, 4)
    assert told.metrics() == text(told.record) and "watched_files{" in told.metrics()
    first = told.metrics()
    told.chronicle.look(13, 4)
    assert told.metrics() == first
    now += 1.0
    told.chronicle.look(13, 4)
    assert told.metrics() == text(told.record) != first
    inode = (told.root / "run" / "reload.prom").stat().st_ino
    now += 5.0
    told.chronicle.look(13, 4)
    assert (told.root / "run" / "reload.prom").stat().st_ino == inode
    told.record.paused = True
    told.chronicle.look(13, 4)
    assert told.metrics() == text(told.record)


def test_nothing_of_it_stops_a_reload(tmp_path: Path) -> None:
    """A note that cannot be kept, a folder that is gone, a command that is not there: lines of the log, no errors."""
    settings = Settings.load(str(tmp_path), {}, metrics_file="gone/x.prom", on_reloaded="no-such-command")
    log = Log()
    journal = ReloadLog(log, str(tmp_path))

    def full(note: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    callbacks = Callbacks(settings, journal, str(tmp_path))
    told = Publisher(settings, journal, History(root=str(tmp_path)), callbacks, full)
    told.reloaded({"/a"}, 1.0, 1)

    def over() -> bool:
        told.look(1, 1)
        return not callbacks.busy

    wait_until(over, "the callback has ended")
    path = tmp_path / "gone" / "x.prom"
    assert log.lines == [
        f"reload: metrics_file {path} cannot be written: No such file or directory",
        "reload: the record cannot be kept: [Errno 28] No space left on device",
        "reload: on_reloaded: no such command: no-such-command",
    ]
