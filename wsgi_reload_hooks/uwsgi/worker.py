"""A uWSGI worker's own part: what it has loaded, the gate before it loads, and what it says when it cannot.

Without lazy-apps the master does the loading, and its workers inherit the result.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..core.log import ReloadLog
from ..core.refusal import Refusal
from ..core.text import PACKAGE_ROOT, under
from ..django.reset import DjangoAssets, Folders
from ..process.counters import Generation
from ..process.native import Native
from ..trial.trial import Target
from ..watching.import_hook import ImportHook
from ..watching.modules import loaded_files
from ..watching.rules import Files
from ..watching.signature import MISSING, Digest, Digests, Signature, known_signature
from .shared_state import Note, SharedState

VERDICT = "verdict"
"""The note of what was proven last."""
TROUBLE = "trouble"
"""The note of code that did not load though it was let in."""
GENERATION = "generation"
"""The file by which workers notice that they are to forget translations and templates."""

Loaded = dict[str, tuple[Signature | None, Digest]]


def worker_note(number: int) -> str:
    """The name of a worker's own note."""
    return f"worker-{number}"


def bell_name(number: int) -> str:
    """The name of that by which a worker is told to go."""
    return f"bell-{number}"


def written(files: Loaded) -> dict[str, Any]:
    """*files* as a note has them."""
    return {path: [found, digest.hex()] for path, (found, digest) in files.items()}


def understood(files: dict[str, Any]) -> Loaded:
    """The files of a note."""
    return {
        path: (None if found is None else Signature(*found), bytes.fromhex(digest))
        for path, (found, digest) in files.items()
    }


def differing(files: Loaded, digests: Digests) -> list[str]:
    """Which of *files* have another content on disk by now."""
    return [
        path
        for path, (found, digest) in files.items()
        if (found is None or known_signature(path) != found) and digests.now(path) != digest
    ]


class Worker:
    """Notes what this process, worker *number* or the master (0), loads: from before its application on."""

    def __init__(
        self, number: int, files: Files, ledger: SharedState, targets: Iterable[Target], journal: ReloadLog
    ) -> None:
        self.began = time.monotonic()
        self.number = number
        self.has_loaded = False
        self._files = files
        self._ledger = ledger
        self._targets = tuple(targets)
        self._digests = Digests()
        self._loaded: Loaded = {}
        self._inherited: list[str] = []
        self._changed: set[str] = set()
        self._news = True
        self._held = self._left = False
        self._writing = Native().lock()
        self._generation = Generation(ledger.place(GENERATION))
        self._assets: Note = {}
        self._django = DjangoAssets(self._generation, files.ours, self._remembers, journal.failure)

    def watch_imports(self) -> None:
        """Note each file of ours from now on, and those that are loaded already."""
        self._inherited = [path for path in loaded_files() if self._files.ours(path)]
        for path in self._inherited:
            self._saw(path, known_signature(path))
        ImportHook(self._files.ours, self._saw, self._changed, self._django.connect).install()

    def pass_gate(self, held: Callable[[], float]) -> None:
        """Wait until what is on disk is what was proven, or nothing was proven yet.

        *held* is called while it is not, and returns the seconds until the next look.
        """
        while self.must_wait():
            if not self._held:
                self._held = True
                self._write()
            time.sleep(held())
        self._held = False
        verdict = self._ledger.read(VERDICT)
        if verdict is not None:
            self._changed.update(verdict["changed"])
        self.began = time.monotonic()
        # uWSGI reads a target that is a file by itself: no import is seen.
        for target in self._targets:
            if target.kind == "file":
                path = os.path.abspath(target.name)
                self._saw(path, known_signature(path))

    def must_wait(self) -> bool:
        """Whether what is on disk is not known to load."""
        verdict, trouble = self._ledger.read(VERDICT), self._ledger.read(TROUBLE)
        proven_at = verdict["began"] if verdict is not None else 0.0
        if trouble is not None and trouble["at"] > proven_at:
            return True
        return verdict is not None and bool(differing(understood(verdict["files"]), self._digests))

    def ended_before(self) -> bool:
        """Whether the process that was this worker before ended while it was loading code that nobody has proven."""
        note = self._ledger.read(worker_note(self.number))
        return note is not None and not note["loaded"] and not note["held"] and self._ledger.read(VERDICT) is None

    def arrived(self) -> None:
        """The application is loaded."""
        self.has_loaded = True
        self._news = True

    def settle(self, number: int) -> None:
        """This process is worker *number* from now on."""
        self.number = number
        self._held = False
        self._news = True
        self.tell()

    def tell(self) -> None:
        """Write down what is new; and all of it once more where somebody has cleaned temporary folders."""
        self._generation.renew()
        self._django.connect()
        if self._news or self._ledger.stamp(worker_note(self.number)) is None:
            self._news = False
            self._write()

    def leave(self) -> None:
        """This worker ends: nobody is to count on it."""
        with self._writing:
            self._left = True
            self._ledger.remove(worker_note(self.number))

    def in_trouble(self, why: Refusal) -> None:
        """What was let in does not load in this process."""
        note = {"at": time.monotonic(), "why": dataclasses.asdict(why), "files": written(self._loaded.copy())}
        self._ledger.write(TROUBLE, note)
        self._held = True
        self._write()

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

    def _remembers(self, folders: Folders) -> None:
        self._assets = {"since": self._django.since, "folders": folders}
        # Not left to the next turn: without threads it may be another worker's for long.
        self._write()

    def _saw(self, path: str, found: Signature | None) -> None:
        self._loaded[path] = found, self._digests.at(path, found) if found is not None else MISSING
        self._news = True

    def _write(self) -> None:
        # By the main thread and by the one that watches: an older note must not take the place of a newer one.
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
                "files": written(self._loaded.copy()),
            }
            self._ledger.write(worker_note(self.number), note)


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
