"""Drives the reload machine: notices changes, hashes files, runs trials and switches of a backend, reports.

All adapters use it; what differs between servers is in a `Backend`. One method does one step; the adapter's thread,
timer or main loop calls it (Django's `BaseReloader.tick`).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..control.channel import ControlSocket, Message
from ..control.service import ControlService, ReloadState, Scans
from ..core.log import ReloadLog
from ..core.refusal import Refusal
from ..core.settings import Settings
from ..core.text import under
from ..django.assets import Assets
from ..report.publisher import Publisher
from ..watching.checkout import Checkout
from ..watching.debounce import Debouncer, Noticing, ScanRequests
from ..watching.engines import Engine
from ..watching.rules import Files
from ..watching.scanner import Scanner
from ..watching.signature import Digest, Digests, Signature, known_signature
from .backend import Backend, Trial
from .commands import Attempt, CancelTrial, Command, Phase, Report, StartTrial, Switch
from .machine import ReloadMachine
from .reporter import Reporter
from .watched import Watched

_BUSY = 0.02


class ReloadLoop:
    """Runs the reloads of one server. For one thread. Implements `control.service.StatusSource`.

    *assets*: None where no process that serves tells of its templates and translations. *install_folders*: the
    site-packages folders in which an installation may be the repair (default: those of this process).
    """

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        files: Files,
        scanner: Scanner,
        log: ReloadLog,
        publisher: Publisher,
        assets: Assets | None = None,
        install_folders: Callable[[], set[str]] | None = None,
    ) -> None:
        self.machine = ReloadMachine()
        self.digests = Digests()
        self.watched = Watched(scanner, files, self.machine, self.digests, install_folders or files.install_folders)
        self.saved_at = time.monotonic()
        """When the last change was saved (monotonic seconds)."""
        self.control: ControlService | None = None
        self._backend = backend
        self._reporter = Reporter(backend, self.machine, self.watched, log, publisher)
        self._files = files
        self._scanner = scanner
        self._log = log
        self._publisher = publisher
        self._assets = assets
        self._settings = settings
        self._scans = ScanRequests()
        self._noticing: Noticing | None = None
        self._socket: ControlSocket | None = None
        self._trial: Trial | None = None
        self._phase = self.machine.phase

    def drive(self, engine: Engine) -> None:
        """Have `step` look for changes with *engine* from now on; without one, another thread calls `changed`."""
        debouncer = Debouncer(self._settings.step, self._settings.debounce, Checkout(self._files.root).unfinished)
        self._noticing = Noticing(engine, debouncer, self._scans)

    def answer(self, socket: ControlSocket | None, scans: Scans | None = None) -> None:
        """Have `step` answer requests from *socket* from now on. *scans*: those of another thread that scans."""
        if socket is not None:
            self._socket = socket
            self.control = ControlService(socket, self, self._files, scans or self._scans)

    @property
    def readers(self) -> list[int]:
        """File descriptors that are readable when a step is due at once."""
        engine = None if self._noticing is None else self._noticing.engine.reader
        control = None if self._socket is None else self._socket.reader
        return [each for each in (engine, control) if each is not None]

    @property
    def quiet(self) -> bool:
        """Tell whether nothing is tried or refused, and no change waits for the end of its burst."""
        return self.machine.phase is Phase.IDLE and not (self._noticing and self._noticing.debouncer)

    @property
    def busy_trying(self) -> bool:
        """Whether a trial runs."""
        return self._trial is not None

    def close(self) -> None:
        """Stop what runs. The adapter closes the control socket."""
        self._cancel()
        if self._noticing is not None:
            self._noticing.engine.close()

    # -- the step ------------------------------------------------------------------------------------------------------

    def step(self, now: float) -> float:
        """Do all that is due, without waiting. Returns the seconds until the next step."""
        if self._noticing is not None:
            due = self._noticing.look()
            if due:
                self.changed(due, now)
            self._noticing.taken()
        if self.control is not None:
            if self._socket is not None and self._noticing is not None:
                self.control.take(self._socket.receive())
            self.control.step()
            self._publisher.record.paused = self.control.paused_until is not None
        self._do(self.machine.tick(now), now)
        self._poll(now)
        status = self._backend.status()
        self._publisher.look(len(self._scanner), int(status.get("workers", 0)))
        return self._wait(now)

    def changed(self, found: Iterable[str], now: float) -> None:
        """Handle paths that may have changed, appeared or vanished, or are folders with new names in them."""
        paths = set(found)
        if self._assets is not None:
            paths = self._assets.changed(paths, self.watched.reloading(paths))
        paths -= self._gone_for_good(paths)
        if paths:
            self.saved_at = self.saved_at if self._noticing is None else self._noticing.saved_at
            folders = {path for path in paths if os.path.isdir(path)}
            contents = {path: self.digests.now(path) for path in paths - folders}
            self._do(self.machine.changed(contents, folders, now), now)

    def loaded(
        self, path: str, seen: Signature | None, attempt: Attempt | None = None, content: Digest | None = None
    ) -> None:
        """A process has loaded *path*, which had the signature *seen* just before: one of *attempt*, or one that serves.

        *content*: what it has loaded, where the process reports that, too.
        """
        noted = self.noted(path, seen)
        if noted is None:
            return
        self.machine.loaded(path, noted if content is None else content, attempt)
        noticing = self._noticing if attempt is None else None
        if noticing is not None and self.digests.now(path) != self.machine.in_service(path):
            # The file was saved between its import and the report of it.
            noticing.debouncer.add({path}, time.monotonic())

    def noted(self, path: str, seen: Signature | None) -> Digest | None:
        """Watch *path*, which a process has loaded. The content that it loaded, None where the file is gone."""
        if seen is not None and known_signature(path) is None:
            # A program made, loaded and removed it: that is no save.
            return None
        self._scanner.watch(path, seen)
        return self.digests.at(path, seen)

    def lost(self, why: Refusal, loaded: Mapping[str, Digest], now: float) -> None:
        """Handle a worker outside of any attempt that did not start. A save that it met counts as a change."""
        if self.machine.ever_served:
            contents = {path: self.digests.now(path) for path in self.machine.service}
            self._do(self.machine.changed(contents, (), now), now)
            if self.machine.pending:
                return
        self._do(self.machine.lost(why, loaded, {path: self.digests.now(path) for path in loaded}, now), now)

    def stopped(self, why: Refusal, loaded: Iterable[str], now: float) -> None:
        """Handle the end of the program that served: nothing serves, because of *why*. The next save starts it again."""
        self._do(self.machine.stopped(why, loaded, now), now)

    def retry(self, now: float) -> None:
        """Try again although nothing changed."""
        self._do(self.machine.retry(now), now)

    def request_now(self, by: str, now: float) -> None:
        """Reload whatever the files say; *by*: what asked for it, for the log."""
        self._do(self.machine.requested(by, now), now)

    # -- what the control service asks ---------------------------------------------------------------------------------

    def status(self) -> Message:
        """See `control.service.StatusSource`."""
        return {**self._publisher.record.as_note(), "watched": len(self._scanner), **self._backend.status()}

    def state(self) -> ReloadState:
        """See `control.service.StatusSource`."""
        machine = self.machine
        return ReloadState(machine.phase.value, machine.pending, machine.due, machine.held)

    def busy(self) -> bool:
        """See `control.service.StatusSource`."""
        return self._backend.busy()

    def loaded_by(self, path: str) -> list[int]:
        """See `control.service.StatusSource`."""
        return self._backend.loaded_by(path)

    def examine(self) -> Message:
        """See `control.service.StatusSource`."""
        return self._backend.examine()

    def in_service(self, path: str) -> Digest | None:
        """See `control.service.StatusSource`."""
        return self.machine.in_service(path)

    def request(self, by: str) -> None:
        """See `control.service.StatusSource`."""
        self.request_now(by, time.monotonic())

    def pause(self, on: bool) -> None:
        """See `control.service.StatusSource`."""
        now = time.monotonic()
        self._do(self.machine.pause(on, now), now)

    # -- doing ---------------------------------------------------------------------------------------------------------

    def _gone_for_good(self, paths: set[str]) -> set[str]:
        """Those of *paths* that are gone and no part of the project: what a program has made, loaded and removed."""
        gone = {path for path in paths if not under(path, self._files.root) and not os.path.lexists(path)}
        gone -= self.watched.names
        if gone:
            self.machine.forget(gone)
            if self.machine.phase is Phase.IDLE:
                self.watched.serving()
        return gone

    def _do(self, commands: Sequence[Command], now: float) -> None:
        waiting = deque(commands)
        while waiting:
            match waiting.popleft():
                case StartTrial(attempt):
                    waiting.extend(self._start(attempt, now))
                case CancelTrial():
                    self._cancel()
                case Switch(attempt):
                    self.digests.forget(self.machine.service)
                    self._backend.start_switch(attempt)
                case Report() as report:
                    self._reporter.report(report)
        if self.machine.phase is not self._phase:
            self._log.debug("%s -> %s", self._phase.name, self.machine.phase.name)
            self._phase = self.machine.phase

    def _start(self, attempt: Attempt, now: float) -> list[Command]:
        try:
            self._trial = self._backend.start_trial(attempt)
        except OSError as error:
            return self.machine.unavailable(attempt, error.strerror or str(error), now)
        except Exception as error:
            # A hook of the user raised: the attempt is refused, and the next change can repair it.
            return self.machine.failed(attempt, Refusal.from_exception(error), self._contents(), now)
        return []

    def _poll(self, now: float) -> None:
        attempt = self.machine.attempt
        if self._trial is not None and attempt is not None:
            try:
                outcome = self._trial.poll()
            except OSError as error:
                self._cancel()
                self._do(self.machine.unavailable(attempt, error.strerror or str(error), now), now)
                return
            if outcome is None:
                return
            self._trial = None
            for path, seen in outcome.loaded.items():
                self.loaded(path, seen, attempt)
            if outcome.refused is None:
                self._do(self.machine.passed(attempt, self._contents(), now), now)
            else:
                self._do(self.machine.failed(attempt, outcome.refused, self._contents(), now), now)
        attempt = self.machine.attempt
        if self.machine.phase is Phase.SWITCHING and attempt is not None and self._backend.poll_switch(now):
            self._do(self.machine.switched(attempt, now), now)

    def _cancel(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.cancel()

    def _contents(self) -> dict[str, Digest]:
        return {path: self.digests.now(path) for path in self.machine.tried}

    def _wait(self, now: float) -> float:
        if self._noticing is None or self._trial is not None or self._scans.due:
            return _BUSY
        if self.machine.phase is Phase.SWITCHING:
            return _BUSY
        waits = [self._noticing.wait()]
        if self.machine.deadline is not None:
            waits.append(max(0.0, self.machine.deadline - now))
        if self.control is not None:
            waits.append(self.control.wait())
        return min(waits)
