"""The event engine: scans when the listener process has reported an event, and every 30 s beneath that."""

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

# A listener may stand still for a while: it would not be heard again before the server starts anew.
_PROBE_AT_MOST = 5.0

_LATE = 3.0

# Names in one line of the log.
_TOLD_AT_MOST = 3


class EventEngine:
    """Looks when *listener* has heard something, and once in a while all the same.

    Until it is proven that events arrive, and for folders whose file system keeps changes to itself or that the
    system grants no watch for, it looks like *stat*.
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
            # What nobody told of: the way to it may be another one.
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
        """Whether it is proven that events arrive, but for those of `_deaf`."""
        return self._listening and not self._probes

    def _listen(self) -> None:
        """Tell the listener what matters, where that is something new."""
        listener = self._listener
        if listener is None:
            # Closed at this moment, by the thread that ends the process.
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
        # What was laid so far may get lost while it listens anew.
        self._probes = {path: (device, 0.0) for path, (device, _) in self._probes.items()}

    def _new_probes(self, names: dict[str, frozenset[str] | None]) -> list[tuple[str, str]]:
        """One folder of each file system that is new to us, where a probe can be laid, and the probe's name."""
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
        """Whether something was heard that is worth a look."""
        assert self._listener is not None
        heard = False
        for message in self._listener.read():
            if "heard" in message:
                for path in message["heard"]:
                    heard = self._heard(path) or heard
            elif "listening" in message:
                # To what was asked last, or before?
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
            # A folder or a link: what lies behind it may be another place now.
            self._anew = True
            self._lost = self._lost or path in self._ear.names
        return True

    def _answered(self, message: dict[str, object]) -> None:
        """The listener listens: to all but those it names."""
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
                    # Not proven, but nothing speaks against it either.
                    del self._probes[path]
                    self._trusted.add(device)
                else:
                    self._probes[path] = device, now
        self._set_deaf()

    def _check(self, now: float) -> None:
        """What should have been heard by now, was not."""
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
        """*found* was not heard of. If it is not in a moment, nobody tells us of changes there."""
        for path in found:
            spelled = os.path.dirname(path) or os.curdir
            folder = os.path.realpath(spelled)
            # One that is another folder by now, or was reached through a link: then it was not the events.
            if spelled not in self._deaf and not os.path.islink(path) and place(folder) in self._ear.places:
                self._suspects.setdefault(folder, now + _LATE)

    def _set_deaf(self) -> None:
        """Which folders have to be looked at, and say so."""
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
    """Make a file and take it away again: an event, if events come at all."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        os.unlink(path)
    except OSError:
        return False
    return True
