"""What will bite in the project and in the system, whichever server it is: the doctor looks, and changes nothing."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Optional

from . import bytecode
from .files import IGNORED_FOLDERS, Files
from .findings import Finding, some
from .hearing import extension
from .mounts import Mount, deaf, mounts
from .settings import Settings, project_root
from .setups import Setup

_FOLDERS_AT_MOST = 20_000
# Clocks of file systems tick coarsely, those of other machines differ a little.
_SLACK = 2.0
_LIMITS = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}
_SEEN = 0x2
_TRAPS = {
    bytecode.UNCHECKED: (
        "Python never compares this byte code with its source (unchecked-hash): a save is not served",
        "python -m compileall --invalidation-mode timestamp -f, or remove it",
    ),
    bytecode.STALE: (
        "its source was saved again within the second, with the same size: Python runs the text of before",
        "remove it",
    ),
    bytecode.ORPHAN: (
        "byte code without a source, and Python imports it: what was removed is still served",
        "remove it",
    ),
}


@dataclasses.dataclass(frozen=True)
class System:
    """What the checks ask the machine. *grant*: the number of folders that no watch was to be had for, and the name of the
    limit. *skew*: by how many seconds the clock of a folder's file system is ahead of ours, None where that cannot be told.
    """

    mounts: Sequence[Mount]
    now: float
    grant: Callable[[Sequence[str]], tuple[int, str]]
    skew: Callable[[str], Optional[float]]
    somaxconn: Optional[int]


def this_system() -> System:
    """The machine that this runs on."""
    return System(mounts(), time.time(), granted, skew_of, _number("/proc/sys/net/core/somaxconn"))


def examine(setup: Setup, settings: Settings, system: System) -> Iterator[Finding]:
    """What speaks against the project that *setup* serves, on this *system*."""
    root = project_root(setup.folder)
    if root == os.sep:
        yield Finding(
            "project",
            setup.place,
            "the working directory is /, so everything is the project",
            "start the server in the project's folder (WorkingDirectory=, --chdir)",
        )
        return
    files = Files(settings, root)
    yield from _outside(setup, files)
    yield from _listed(settings, root)
    far = deaf([root], system.mounts).get(root)
    if far is not None:
        yield from _mount(root, far, settings, system)
    found = _Walk(root, setup.environ, system.now)
    if found.late:
        furthest = max(found.late, key=lambda path: found.late[path])
        yield Finding(
            "clock",
            some([files.relative(path) for path in sorted(found.late)]),
            f"saved in the future, {files.relative(furthest)} by {found.late[furthest] - system.now:.0f} s: whoever goes by "
            "time takes it for new, again and again",
            "set the clock of the machine that saved it, and touch it",
        )
    for kind, paths in found.bytecode.items():
        yield Finding("byte-code", some([files.relative(path) for path in paths]), *_TRAPS[kind])
    listens = settings.engine != "stat" and far is None and _can_listen(setup)
    if listens and sys.platform == "linux":
        files.extra()
        yield from _watches({*found.folders, *files.walked()}, root, system)


def _outside(setup: Setup, files: Files) -> Iterator[Finding]:
    if setup.source is None or files.ours(setup.source):
        return
    name = setup.application.partition(":")[0].partition(".")[0]
    beside = [os.path.join(files.root, *folder, name) for folder in ((), ("src",))]
    here = next((each for each in beside if name and (os.path.isdir(each) or os.path.isfile(each + ".py"))), None)
    why = files.explain(setup.source).removeprefix("not watched: ")
    if here is not None and "third-party" in why:
        yield Finding(
            "outside",
            setup.source,
            f"{name} is imported from there, a copy: a save of {files.relative(here)} changes nothing",
            "pip install -e .",
        )
        return
    fix = "take it out of exclude" if "exclude" in why else "pip install -e ., or third_party = true"
    yield Finding("outside", setup.source, f"the application itself is not watched: {why}", fix)


def _listed(settings: Settings, root: str) -> Iterator[Finding]:
    for text in settings.extra_files:
        if not text.startswith("!") and not Files(dataclasses.replace(settings, extra_files=(text,)), root).extra():
            yield Finding(
                "extra-files",
                settings.sources.get("extra_files", root),
                f"extra_files = {text!r} lists no file",
                f"name it as seen from {root}; what git ignores is left out of a glob",
            )


def _mount(root: str, kind: str, settings: Settings, system: System) -> Iterator[Finding]:
    nfs = kind.startswith("nfs")
    yield Finding(
        "mount",
        root,
        f"the project lies on {kind}: what others save there makes no event, so it is looked at every {settings.interval:g} s"
        + (
            ", and seen when the cache of attributes has ended, a minute later at worst"
            if nfs
            else ", which asks the other side"
        ),
        "mount it with actimeo=1, or save on this machine" if nfs else "keep the project on a disk of this machine",
    )
    skew = system.skew(root)
    if skew is not None and abs(skew) > _SLACK:
        yield Finding(
            "clock",
            root,
            f"the clock of this {kind} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} that of this machine",
            "set both clocks by the same source (ntp)",
        )


def _watches(folders: set[str], root: str, system: System) -> Iterator[Finding]:
    refused, limit = system.grant(sorted(folders))
    if not refused:
        return
    now = _number(f"/proc/sys/fs/inotify/{limit}")
    enough = max(2 * (now or 0), 2 * len(folders))
    yield Finding(
        "inotify",
        root,
        f"the system grants no watch for {refused} of {len(folders)} folders"
        + (f", fs.inotify.{limit} = {now}" if now is not None else "")
        + ": they are looked at instead",
        f"sysctl fs.inotify.{limit}={enough}",
    )


def _can_listen(setup: Setup) -> bool:
    has = setup.watchfiles if setup.watchfiles is not None else extension() is not None
    forced = setup.environ.get("WATCHFILES_FORCE_POLLING", "")
    return has and forced.lower() in ("", "false", "disable", "disabled")


class _Walk:
    """What lies in the project: *folders* with modules, files that are *late* (their time in the future), *bytecode* that is
    a trap, by its kind."""

    def __init__(self, root: str, environ: Mapping[str, str], now: float) -> None:
        self.folders: list[str] = []
        self.late: dict[str, float] = {}
        self.bytecode: dict[str, list[str]] = {}
        self._limit = now + _SLACK
        self._cached = "PYTHONPYCACHEPREFIX" not in environ
        for number, (folder, inside, names) in enumerate(os.walk(root)):
            if number > _FOLDERS_AT_MOST:
                return
            self._look(folder, names)
            inside[:] = [each for each in inside if self._is_ours(folder, each)]

    def _is_ours(self, folder: str, name: str) -> bool:
        if name == bytecode.CACHE:
            return self._cached
        return name not in IGNORED_FOLDERS and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))

    def _look(self, folder: str, names: Sequence[str]) -> None:
        for kind, path in bytecode.traps_in(folder, names):
            self.bytecode.setdefault(kind, []).append(path)
        modules = [os.path.join(folder, name) for name in names if name.endswith(".py")]
        if modules:
            self.folders.append(folder)
        for path in modules:
            try:
                saved = os.stat(path).st_mtime
            except OSError:
                continue
            if saved > self._limit:
                self.late[path] = saved


def granted(folders: Sequence[str]) -> tuple[int, str]:
    """How many of *folders* the system grants no watch for, and the name of the limit; (0, "") where all is granted, or
    that cannot be told. They are tried, and given back."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = libc.inotify_init1(os.O_CLOEXEC)
    if number < 0:
        limit = _LIMITS.get(ctypes.get_errno(), "")
        return (len(folders), limit) if limit else (0, "")
    try:
        refused = 0
        for folder in folders:
            if libc.inotify_add_watch(number, os.fsencode(folder), _SEEN) < 0 and ctypes.get_errno() == errno.ENOSPC:
                refused += 1
        return (refused, _LIMITS[errno.ENOSPC]) if refused else (0, "")
    finally:
        os.close(number)


def skew_of(folder: str) -> Optional[float]:
    """By how many seconds the clock of the file system is ahead of ours; None where no file can be made there."""
    try:
        before = time.time()
        # Without a name where the file system knows such files; else removed at once.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\n")
            file.flush()
            return os.fstat(file.fileno()).st_mtime - before
    except OSError:
        return None


def _number(path: str) -> Optional[int]:
    try:
        with open(path, "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
