"""The event engine: scans when the listener process has reported an event, and every 30 s in any case."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from ..core.text import under
from .listener import Listener
from .mounts import deaf, mounts
from .rules import Files
from .scanner import Scanner
from .stat_engine import StatEngine, Tell
from .watch_plan import WatchPlan, place, watch_plan

_LOOK_ANYWAY = 30.0

# Seconds. A listener may be suspended for a while; without a limit it would count as failed until the server restarts.
_PROBE_AT_MOST = 5.0

_LATE = 3.0

# At most so many names in one line of the log.
_TOLD_AT_MOST = 3


class EventEngine:
    """Scans when *listener* reports an event, and once in a while without one.

    It polls like the stat engine until it is proven that events arrive, and for folders whose file system reports no
    changes or for which the system grants no watch.
    """

    def __init__(
        self,
        stat: StatEngine,
        files: Files,
        scanner: Scanner,
        listener: Listener,
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stat = stat
        self._files = files
        self._scanner = scanner
        self._listener: Listener | None = listener
        self._tell = tell
        self._clock = clock
        self._ear = WatchPlan({}, {})
        self._generation = -1
        self._request = 0
        self._listening = False
        self._anew = True
        self._lost = self._urged = False
        self._look_at = 0.0
        self._refused: frozenset[str] = frozenset()
        self._deaf_devices: dict[int, str] = {}
        self._trusted: set[int] = set()
        self._probes: dict[str, tuple[int, float]] = {}
        self._suspects: dict[str, float] = {}
        self._deaf: frozenset[str] = frozenset()
        self._told: set[str] = set()

    # -- the engine ------------------------------------------------------------------------------------------------

    @property
    def reader(self) -> int | None:
        return None if self._listener is None else self._listener.reader

    def urge(self) -> None:
        self._urged = True
        self._stat.urge()

    @property
    def unsure(self) -> bool:
        return self._scanner.unsure

    def tick(self, settling: bool = False) -> set[str]:
        if self._listener is None:
            return self._stat.tick(settling)
        settling, self._urged = settling or self._urged, False
        now = self._clock()
        heard = self._hear()
        if self._listener is None:
            return self._stat.look(expand=True)
        if self._anew or self._generation != self._scanner.generation:
            self._listen()
        if not self._hears:
            found = self._stat.look(expand=True) if heard else self._stat.tick(settling)
        elif heard or settling or self._scanner.unsure or now >= self._look_at:
            found = self._stat.look(expand=True)
            if not heard and now >= self._look_at:
                self._suspect(found, now)
            self._look_at = now + _LOOK_ANYWAY
        elif self._deaf and self._stat.pause() == 0.0:
            found = self._stat.look(expand=self._stat.globs_are_due(), within=self._deaf.__contains__)
        else:
            found = set()
        if found and not heard:
            # No event came for it: a link or folder in its path may have been replaced.
            self._anew = True
        self._check(now)
        return found

    def pause(self) -> float:
        if self._listener is None:
            return self._stat.pause()
        now = self._clock()
        if self._listener.behind or self._generation != self._scanner.generation:
            return 0.02
        if not self._hears or self._deaf:
            return self._stat.pause()
        if self._scanner.unsure:
            return self._stat.interval
        due = [self._look_at, *self._suspects.values()]
        return max(0.0, min(due) - now)

    def describe(self) -> str:
        return self._stat.describe() if self._listener is None else "by events (watchfiles engine)"

    def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def leave(self) -> None:
        if self._listener is not None:
            self._listener.leave()

    # -- listening -------------------------------------------------------------------------------------------------

    @property
    def _hears(self) -> bool:
        """Tell whether it is proven that events arrive, except for the folders of `_deaf`."""
        return self._listening and not self._probes

    def _listen(self) -> None:
        """Send the watch plan to the listener if it has changed."""
        listener = self._listener
        if listener is None:
            # The thread that ends the process has just closed it.
            return
        self._generation = self._scanner.generation
        self._anew = False
        ear = watch_plan(self._files, *self._scanner.watched())
        if ear == self._ear and self._request and not self._lost:
            return
        self._lost = False
        self._ear = ear
        names = dict(ear.names)
        probes = self._new_probes(names)
        for folder, name in probes:
            known = names[folder]
            names[folder] = None if known is None else known | {name}
        self._listening = False
        self._request = listener.listen(names)
        # The events of earlier probes may get lost while the listener changes its watches.
        self._probes = {path: (device, 0.0) for path, (device, _) in self._probes.items()}

    def _new_probes(self, names: dict[str, frozenset[str] | None]) -> list[tuple[str, str]]:
        """Return one folder of each new file system where a probe file can be made, and the probe's name."""
        kinds = deaf(names, mounts(), os.path.abspath)
        self._probes = {path: each for path, each in self._probes.items() if os.path.dirname(path) in names}
        top = os.path.realpath(self._files.root)
        for folder in sorted(names, key=lambda folder: (not under(folder, top), folder)):
            device = _device(folder)
            if device is None or device in self._trusted or device in self._deaf_devices:
                continue
            if folder in kinds:
                self._deaf_devices[device] = f"file system {kinds[folder]}"
            elif (
                folder in self._ear.spelled
                and device not in {probed for probed, _ in self._probes.values()}
                and os.access(folder, os.W_OK | os.X_OK)
            ):
                self._probes[os.path.join(folder, f".wsgi-reload-hooks-{os.getpid()}-{time.time_ns()}.tmp")] = (
                    device,
                    0.0,
                )
        return [(os.path.dirname(path), os.path.basename(path)) for path in self._probes]

    def _hear(self) -> bool:
        """Read what the listener reported. Tells whether a scan is due because of it."""
        assert self._listener is not None
        heard = False
        for message in self._listener.read():
            if "heard" in message:
                for path in message["heard"]:
                    heard = self._heard(path) or heard
            elif "listening" in message:
                # An answer to the last request, or to one before it?
                if message["listening"] == self._request:
                    self._answered(message)
                heard = True
            else:
                self._tell(f"the process that listens for events has ended ({message['ended']}): looking instead")
                self.close()
                return True
        return heard

    def _heard(self, path: str) -> bool:
        if path in self._probes:
            device, _ = self._probes.pop(path)
            self._trusted.add(device)
            return False
        folder = os.path.dirname(path)
        self._suspects.pop(folder, None)
        if path in self._ear.structure or os.path.islink(path) or os.path.isdir(path):
            # A folder or a link: the paths through it may lead to another place now.
            self._anew = True
            self._lost = self._lost or path in self._ear.names
        return True

    def _answered(self, message: dict[str, object]) -> None:
        """Record the listener's answer: it watches all folders but those that it names."""
        self._listening = True
        refused = message["deaf"]
        assert isinstance(refused, list)
        self._refused = frozenset(refused)
        if refused:
            advice = f"; raise it: sysctl {message['limit']}" if message["limit"] else ""
            self._tell_once(
                f"the system grants no watch for {len(refused)} of {len(self._ear.names)} folders "
                f"({message['why']}): they are looked at every {self._stat.interval:.2g} s{advice}"
            )
        now = self._clock()
        for path, (device, began) in list(self._probes.items()):
            if not began:
                if os.path.dirname(path) in self._refused or not _laid(path):
                    # No probe could be made: events are not proven, and not disproven either.
                    del self._probes[path]
                    self._trusted.add(device)
                else:
                    self._probes[path] = device, now
        self._set_deaf()

    def _check(self, now: float) -> None:
        """Mark file systems as deaf whose probes or changes should have caused an event by *now*, and did not."""
        for path, (device, began) in list(self._probes.items()):
            if began and now - began > _PROBE_AT_MOST:
                del self._probes[path]
                self._deaf_devices[device] = "no event came for a file made there"
                self._set_deaf()
        for folder in [folder for folder, deadline in self._suspects.items() if now >= deadline]:
            del self._suspects[folder]
            found = _device(folder)
            if found is not None and found not in self._deaf_devices:
                self._trusted.discard(found)
                self._deaf_devices[found] = "a change came without an event"
                self._set_deaf()

    def _suspect(self, found: Iterable[str], now: float) -> None:
        """Expect events for *found*, changes without an event so far. If none comes soon, no events arrive there."""
        for path in found:
            spelled = os.path.dirname(path) or os.curdir
            folder = os.path.realpath(spelled)
            # If the folder was replaced, or reached through a link, the missing event proves nothing.
            if spelled not in self._deaf and not os.path.islink(path) and place(folder) in self._ear.places:
                self._suspects.setdefault(folder, now + _LATE)

    def _set_deaf(self) -> None:
        """Choose the folders that have to be polled, and log them."""
        real = {folder for folder in self._ear.names if _device(folder) in self._deaf_devices}
        for device, why in self._deaf_devices.items():
            folders = sorted(folder for folder in real.intersection(self._ear.spelled) if _device(folder) == device)
            if folders:
                shown = ", ".join(self._files.relative(folder) for folder in folders[:_TOLD_AT_MOST])
                more = f" and {len(folders) - _TOLD_AT_MOST} more" if len(folders) > _TOLD_AT_MOST else ""
                self._tell_once(
                    f"no events for {shown}{more} ({why}): looking every {self._stat.interval:.2g} s there",
                    f"{device}",
                )
        silent = real | self._refused
        self._deaf = frozenset(spelled for folder in silent for spelled in self._ear.spelled.get(folder, (folder,)))

    def _tell_once(self, line: str, about: str = "") -> None:
        if (about or line) not in self._told:
            self._told.add(about or line)
            self._tell(line)


def _device(folder: str) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None


def _laid(path: str) -> bool:
    """Make a file and remove it again, which causes an event if events arrive at all. Tells whether it could."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        os.unlink(path)
    except OSError:
        return False
    return True
