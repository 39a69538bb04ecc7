"""Runs in each uWSGI worker: installs the import hook, reports loaded files and load errors.

Without lazy-apps the master does the loading, and its workers inherit the result.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import time
from collections.abc import Callable, Iterable

from ..core.log import ReloadLog
from ..core.refusal import Refusal
from ..core.text import PACKAGE_ROOT, under
from ..django.reset import DjangoAssets, Folders
from ..process.counters import Generation
from ..process.native import Native
from ..trial.plan import Target
from ..watching.import_hook import ImportHook
from ..watching.modules import loaded_files
from ..watching.rules import Files
from ..watching.signature import MISSING, Digests, Signature, known_signature
from .legacy_gate import Gate
from .notes import APPROVED, COUNTERS, LOAD_FAILURE, Loaded, encoded, read, worker_note
from .shared_state import Note, SharedState


class Worker:
    """Notes what this process, worker *number* or the master (0), loads: from before its application on."""

    def __init__(
        self, number: int, files: Files, state: SharedState, targets: Iterable[Target], log: ReloadLog
    ) -> None:
        self.began = time.monotonic()
        self.number = number
        self.has_loaded = False
        self._files = files
        self._state = state
        self._targets = tuple(targets)
        self._digests = Digests()
        self._gate = Gate(state, self._digests)
        self._loaded: Loaded = {}
        self._inherited: list[str] = []
        self._changed: set[str] = set()
        self._news = True
        self._held = self._left = False
        self._writing = Native().lock()
        self._generation = Generation(state.place(COUNTERS))
        self._assets: Note = {}
        self._django = DjangoAssets(self._generation, files.ours, self._remembers, log.failure)

    def watch_imports(self) -> None:
        """Note each file of ours from now on, and those that are loaded already."""
        self._inherited = [path for path in loaded_files() if self._files.ours(path)]
        for path in self._inherited:
            self._saw(path, known_signature(path))
        ImportHook(self._files.ours, self._saw, self._changed, self._django.connect).install()

    def pass_gate(self, held: Callable[[], float]) -> None:
        """See `Gate.pass_through`; what this process loads from then on counts as the application."""
        approved = self._gate.pass_through(self._begin_waiting, held)
        self._held = False
        if approved is not None:
            self._changed.update(approved["changed"])
        self.began = time.monotonic()
        # uWSGI reads a target that is a file by itself: no import is seen.
        for target in self._targets:
            if target.kind == "file":
                path = os.path.abspath(target.name)
                self._saw(path, known_signature(path))

    def must_wait(self) -> bool:
        """See `Gate.must_wait`."""
        return self._gate.must_wait()

    def ended_before(self) -> bool:
        """Whether the process before, of this worker, ended while it loaded code of which nothing was approved."""
        note = read(self._state, worker_note(self.number))
        return note is not None and not note["loaded"] and not note["held"] and read(self._state, APPROVED) is None

    def mark_loaded(self) -> None:
        """The application is loaded."""
        self.has_loaded = True
        self._news = True

    def set_number(self, number: int) -> None:
        """This process is worker *number* from now on."""
        self.number = number
        self._held = False
        self._news = True
        self.publish()

    def publish(self) -> None:
        """Write down what is new; and all of it once more where the runtime directory was deleted."""
        self._generation.renew()
        self._django.connect()
        if self._news or self._state.stamp(worker_note(self.number)) is None:
            self._news = False
            self._write()

    def leave(self) -> None:
        """This worker ends: remove its note."""
        with self._writing:
            self._left = True
            self._state.remove(worker_note(self.number))

    def report_load_failure(self, why: Refusal) -> None:
        """The code does not load in this process, though the gate was open."""
        note = {"at": time.monotonic(), "why": dataclasses.asdict(why), "files": encoded(self._loaded.copy())}
        self._state.write(LOAD_FAILURE, note)
        self._begin_waiting()

    def is_about_targets(self, error: BaseException) -> bool:
        """Whether *error* came from loading an application, not from another thing that uWSGI was told to import."""
        if any(target.kind not in ("module", "file") for target in self._targets):
            return True
        modules = {target.name for target in self._targets if target.kind == "module"}
        if isinstance(error, ImportError) and error.name in {*modules, *(name.partition(".")[0] for name in modules)}:
            return True
        places = {os.path.abspath(target.name) for target in self._targets if target.kind == "file"}
        for name in modules:
            parts = name.split(".")
            for count in range(1, len(parts) + 1):
                stem = os.sep + os.path.join(*parts[:count])
                places |= {f"{stem}.py", os.path.join(stem, "__init__.py")}
        first = _first_file(error)
        return first is not None and any(first.endswith(place) for place in places)

    def _begin_waiting(self) -> None:
        self._held = True
        self._write()

    def _remembers(self, folders: Folders) -> None:
        self._assets = {"since": self._django.since, "folders": folders}
        # Not left to the next turn: without threads it may be another worker's for long.
        self._write()

    def _saw(self, path: str, found: Signature | None) -> None:
        self._loaded[path] = found, self._digests.at(path, found) if found is not None else MISSING
        self._news = True

    def _write(self) -> None:
        # The main thread and the loop's thread write: an older note must not replace a newer one.
        with self._writing:
            if self._left:
                return
            note: Note = {
                "pid": os.getpid(),
                "began": self.began,
                "held": self._held,
                "loaded": self.has_loaded,
                "inherited": self._inherited,
                "assets": self._assets,
                "files": encoded(self._loaded.copy()),
            }
            self._state.write(worker_note(self.number), note)


def _first_file(error: BaseException) -> str | None:
    """The file whose loading raised *error*: the outermost, or the one that cannot be compiled."""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith("<") and not under(name, PACKAGE_ROOT):
            return os.path.abspath(name)
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        return os.path.abspath(error.filename)
    return None


def hidden_folders() -> list[str]:
    """Whose frames are left out of a traceback: importlib's and ours."""
    modules = (importlib.__file__, os.path.join(PACKAGE_ROOT, "__init__.py"))
    return [os.path.dirname(os.path.abspath(each)) for each in modules if each]
