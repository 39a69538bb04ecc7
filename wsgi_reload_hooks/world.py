"""What a module finds in its process while it is imported, and what it must not do to it: both are looked at."""

from __future__ import annotations

import contextlib
import decimal
import faulthandler
import gc
import itertools
import locale
import logging
import operator
import os
import random
import resource
import signal
import socket
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple, Optional

from .scanner import Signature, known_signature

_MODULE: Any = vars(ModuleType)["__dict__"]
_CLASS: Any = vars(type)["__dict__"]
_TASKS, _DESCRIPTORS = "/proc/self/task", "/proc/self/fd"
_TO_WRITE = os.O_WRONLY | os.O_RDWR
_NO_FILES = ("/proc/", "/sys/", "/dev/")
MISSING = object()
"""In the place of a value where there is none."""


class Situation(NamedTuple):
    """What code that runs before an import commonly sets for it."""

    environ: dict[str, str]
    path: list[str]
    folder: str

    @classmethod
    def now(cls) -> Situation:
        return cls(dict(os.environ), list(sys.path), _folder())

    def difference(self, other: Situation) -> str:
        """The first thing in which the two differ, by name and without its value; nothing where they are the same."""
        for name in sorted({*self.environ, *other.environ}):
            if self.environ.get(name) != other.environ.get(name):
                return f"the environment variable {name}"
        if self.path != other.path:
            return "sys.path"
        return "the working directory" if self.folder != other.folder else ""

    @contextlib.contextmanager
    def reproduced(self) -> Iterator[None]:
        """While it lasts, this is the situation of the process. Raises OSError where the folder is gone."""
        before = Situation.now()
        try:
            self._enter()
            yield
        finally:
            before._enter()

    def _enter(self) -> None:
        zone = os.environ.get("TZ")
        for name in [name for name in os.environ if name not in self.environ]:
            del os.environ[name]
        for name, value in self.environ.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        sys.path[:] = self.path
        if self.folder != _folder():
            os.chdir(self.folder)
        if zone != os.environ.get("TZ"):
            time.tzset()


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


class Change(NamedTuple):
    """A name of a module or of a class that holds something else than before."""

    holder: Any
    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{_title(self.holder)}.{self.name}"

    @property
    def matters(self) -> bool:
        """Not what Python itself keeps there now and then."""
        return not self.name.startswith("__") or callable(self.before) or callable(self.after)

    def undo(self) -> None:
        _hold(self.holder, self.name, self.before)

    def redo(self) -> None:
        """Where it is as it was before; what somebody else has put there by now stays."""
        if vars(self.holder).get(self.name, MISSING) is self.before:
            _hold(self.holder, self.name, self.after)


class _Space(NamedTuple):
    """The names of a module or of a class: what they hold now, and what they held; *calls* is what was to be called."""

    holder: Any
    now: Mapping[str, Any]
    before: dict[str, Any]
    calls: dict[str, Any]

    @classmethod
    def of(cls, holder: Any, now: Mapping[str, Any]) -> _Space:
        before = dict(now)
        calls = {name: value for name, value in before.items() if callable(value) and not _may_change(holder, name)}
        return cls(holder, now, before, calls)


class Names:
    """What modules and their classes hold under each name, as of when it was made."""

    def __init__(self, modules: Mapping[str, object]) -> None:
        self._spaces: dict[int, _Space] = {}
        for name, module in modules.items():
            if issubclass(type(module), ModuleType) and name != "__main__":
                space = self._spaces[id(module)] = _Space.of(module, _MODULE.__get__(module))
                for value in space.before.values():
                    if issubclass(type(value), type) and _CLASS.__get__(value).get("__module__") == name:
                        self._spaces[id(value)] = _Space.of(value, _CLASS.__get__(value))

    def changes(self) -> Iterator[Change]:
        """What is held now and was not, or was and is not."""
        for holder, now, before, _ in self._spaces.values():
            for name in {**before, **now}:
                change = Change(holder, name, before.get(name, MISSING), now.get(name, MISSING))
                if change.before is not change.after and change.matters:
                    yield change

    def patched(self) -> Optional[Change]:
        """The first function or class in the place of another one; None where there is none."""
        for holder, now, _, calls in self._spaces.values():
            # Ten thousands of names: compared by what is written in C.
            if any(map(operator.is_not, map(now.get, calls), calls.values())):
                for name, value in calls.items():
                    if now.get(name, MISSING) is not value:
                        return Change(holder, name, value, now.get(name, MISSING))
        return None

    def renew(self, changes: Iterable[Change]) -> None:
        """These are as they are to be."""
        for change in changes:
            space = self._spaces.get(id(change.holder))
            if space is not None and change.name in space.calls:
                space.calls[change.name] = change.after


def _may_change(holder: Any, name: str) -> bool:
    """What says how something is shown matters to no import."""
    return _title(holder) in ("sys", "warnings", "threading", "logging") and (
        "hook" in name or "show" in name or name in ("stdout", "stderr", "_loggerClass", "_logRecordFactory")
    )


def _title(holder: Any) -> str:
    name = str(getattr(holder, "__name__", holder))
    return f"{holder.__module__}.{name}" if isinstance(holder, type) else name


def _hold(holder: Any, name: str, value: Any) -> None:
    if value is MISSING:
        delattr(holder, name)
    else:
        setattr(holder, name, value)


class Opened:
    """The files that this process opens to read them, while *on*, and as they were then. One that is not there is one, too."""

    def __init__(self) -> None:
        self.on = False
        self.files: dict[str, Optional[Signature]] = {}
        # It stays for ever, in all that are forked: what it costs must be next to nothing.
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event == "open":
            path, mode, flags = arguments
            if isinstance(path, str) and not (flags & _TO_WRITE if mode is None else set(mode) & set("wax+")):
                path = os.path.abspath(path)
                if not path.startswith(_NO_FILES):
                    self.files.setdefault(path, known_signature(path))


def sizes(modules: Mapping[str, object]) -> dict[str, int]:
    """How much is in the tables that modules keep, by dotted name."""
    found = {}
    for name, module in modules.items():
        if issubclass(type(module), ModuleType):
            for key, value in _MODULE.__get__(module).copy().items():
                if type(value) in (dict, list, set) and not key.startswith("__"):
                    found[f"{name}.{key}"] = len(value)
    return found


class Traces:
    """What an import must leave as it is. To be made before it."""

    def __init__(self) -> None:
        self._descriptors = _descriptors()
        self._signals = _signals()
        self._plain = _plain()
        self._random = random.getstate()
        self._generators = _generators()
        self._loggers = _loggers()
        self._hooks = list(sys.path_hooks)

    def danger(self, situation: Situation) -> str:
        """What it did that cannot be had earlier than the application has it, in words; nothing where there is none.

        *situation*: in which it was imported, and still is.
        """
        return next(itertools.chain(self._left_behind(), self._changed(situation)), "")

    def _left_behind(self) -> Iterator[str]:
        for place, target in _descriptors().items():
            if self._descriptors.get(place) != target:
                yield f"it leaves a file or a socket open ({target})"
        if len(sys._current_frames()) > 1:
            yield "it starts a thread"
        elif _has_children():
            yield "it starts a process"
        elif _survives_a_fork():
            yield "it starts a thread that a fork does not end"
        if _generators() - self._generators:
            yield "it keeps a random generator, whose numbers would be the same in each generation"

    def _changed(self, situation: Situation) -> Iterator[str]:
        difference = situation.difference(Situation.now())
        if difference:
            yield f"it changes {difference}"
        for number, handler in _signals().items():
            if self._signals.get(number) != handler:
                yield f"it handles {signal.Signals(number).name}"
        for name, value in _plain().items():
            if self._plain[name] != value:
                yield f"it changes {name}"
        if random.getstate() != self._random:
            yield "it draws random numbers"
        if sys.path_hooks != self._hooks:
            yield "it changes sys.path_hooks"
        loggers = _loggers()
        for name, configured in self._loggers.items():
            if loggers.get(name) != configured:
                yield f"it configures the logger {name}"


def _plain() -> dict[str, Any]:
    return {
        "the locale": locale.setlocale(locale.LC_ALL),
        "the recursion limit": sys.getrecursionlimit(),
        "the default timeout of sockets": socket.getdefaulttimeout(),
        "the thresholds of gc": gc.get_threshold(),
        "gc.callbacks": len(gc.callbacks),
        "the umask": _umask(),
        "the mask of signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "the processors it may use": os.sched_getaffinity(0),
        "the limits of resources": _limits(),
        "the context of decimal": repr(decimal.getcontext()),
        "the switch interval": sys.getswitchinterval(),
        "faulthandler": faulthandler.is_enabled(),
        "what traces or profiles": (sys.gettrace(), sys.getprofile()),
    }


def _limits() -> list[tuple[int, int]]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return [resource.getrlimit(getattr(resource, name)) for name in names]


def _umask() -> str:
    with open("/proc/self/status") as file:
        return next((line for line in file if line.startswith("Umask")), "")


def _descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir(_DESCRIPTORS):
        # That of the listing itself is gone by now.
        with contextlib.suppress(OSError):
            found[number] = os.readlink(f"{_DESCRIPTORS}/{number}")
    return found


def _signals() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _generators() -> set[int]:
    known = (random.Random, random.SystemRandom)
    # Python's own are prepared for a fork, or draw from the system.
    return {
        id(each)
        for each in gc.get_objects()
        if issubclass(type(each), known[0]) and not issubclass(type(each), known[1]) and not _of_tempfile(each)
    }


def _of_tempfile(generator: Any) -> bool:
    names = getattr(sys.modules.get("tempfile"), "_name_sequence", None)
    return names is not None and getattr(names, "_rng", None) is generator


def _loggers() -> dict[str, Any]:
    manager = logging.Logger.manager
    known = {name: each for name, each in manager.loggerDict.items() if isinstance(each, logging.Logger)}
    return {
        name: (each.level, list(each.handlers), list(each.filters), each.propagate, each.disabled)
        for name, each in (*known.items(), ("root", logging.getLogger()))
    }


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _survives_a_fork() -> bool:
    """Whether threads that Python knows nothing of live on. Who is prepared for a fork (OpenBLAS, say) ends them at one."""
    if len(os.listdir(_TASKS)) == 1:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return len(os.listdir(_TASKS)) > 1
