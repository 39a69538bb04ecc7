"""The stat engine: scans all watched files every `interval` seconds, within its CPU budget."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..core.settings import Settings
from .rules import Files
from .scanner import Scanner
from .signature import known_signature

_GLOBS_EVERY = 1.0

Tell = Callable[[str], object]


class StatEngine:
    """Polls with a scanner, and expands the globs of ``extra_files`` and the folders of assets once a second.

    It scans every ``interval`` seconds; less often if that would take more than ``budget`` of a core.
    """

    reader: int | None = None

    def __init__(
        self,
        settings: Settings,
        files: Files,
        scanner: Scanner,
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.thread_time,
    ) -> None:
        self._settings = settings
        self._files = files
        self._scanner = scanner
        self._tell = tell
        self._clock = clock
        self._used = used
        self._expanded = self._looked = clock()
        self._cost = 0.0
        self._stretched = self._unasked = self._urged = False
        self._unused: set[str] = set()
        for path in files.extra():
            scanner.watch(path, known_signature(path))
        self._tell_unused()

    @property
    def interval(self) -> float:
        """Return the seconds between two scans."""
        return max(self._settings.interval, self._cost / self._settings.budget)

    def tick(self, settling: bool = False) -> set[str]:
        urged, self._urged = self._urged, False
        if not urged and not settling and self._clock() - self._looked < self.interval:
            return set()
        return self.look(expand=urged or self.globs_are_due())

    def urge(self) -> None:
        self._urged = True

    @property
    def unsure(self) -> bool:
        return self._scanner.unsure

    def globs_are_due(self) -> bool:
        """Tell whether the globs have to be expanded again."""
        return self._clock() - self._expanded >= max(_GLOBS_EVERY, self.interval)

    def look(self, expand: bool, within: Callable[[str], bool] | None = None) -> set[str]:
        """Scan now. *expand*: expand the globs too. *within*: see `Scanner.tick`."""
        began = self._used()
        if expand:
            # A file that is not watched yet appeared since the last time.
            for path in self._files.extra() | self._files.assets():
                self._scanner.watch(path, None)
            self._expanded = self._clock()
            self._tell_unused()
        changed = self._scanner.tick(within=within)
        self._looked = self._clock()
        self._tell_unasked()
        if within is None:
            # An average: a single scan may take long for other reasons.
            self._cost += (self._used() - began - self._cost) / 4
            self._tell_stretched()
        return changed

    def pause(self) -> float:
        return max(0.0, self._looked + self.interval - self._clock())

    def describe(self) -> str:
        return f"every {self.interval:.2g} s (stat engine)"

    def close(self) -> None:
        pass

    def leave(self) -> None:
        pass

    def _tell_unasked(self) -> None:
        unasked = self._scanner.unasked
        if unasked and not self._unasked:
            path, why = next(iter(unasked.items()))
            more = f" and {len(unasked) - 1} more" if len(unasked) > 1 else ""
            self._tell(f"{self._files.relative(path)}{more}: cannot be looked at now ({why}), so taken as unchanged")
        self._unasked = bool(unasked)

    def _tell_unused(self) -> None:
        if self._files.unused - self._unused:
            first, *others = sorted(self._files.unused)
            self._tell(first + (f", and {len(others)} more" if others else ""))
        self._unused = self._files.unused

    def _tell_stretched(self) -> None:
        stretched = self.interval > 1.5 * self._settings.interval
        if stretched and not self._stretched:
            self._stretched = True
            self._tell(
                f"a look at {len(self._scanner)} files takes {self._cost * 1000:.1f} ms of CPU: one every "
                f"{self.interval:.1f} s instead of {self._settings.interval:g} s (setting budget = "
                f"{self._settings.budget:g}; watchfiles needs no looks: pip install watchfiles)"
            )
