"""Finds what gets in the way of reloads in the project and in the system, for any server; changes nothing."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import importlib.machinery
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..core.finding import Finding, some
from ..core.settings import Settings, project_root
from ..watching.globs import IGNORED_FOLDERS
from ..watching.listener import extension
from ..watching.mounts import Mount, deaf, mounts
from ..watching.rules import Files

_FOLDERS_AT_MOST = 20_000
# Clocks of file systems tick coarsely, those of other machines differ a little.
_SLACK = 2.0
_LIMITS = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}
_SEEN = 0x2


@dataclasses.dataclass(frozen=True)
class Project:
    """What a server serves. *place*: the server or its configuration, for a finding. *application*: as gunicorn or uWSGI is
    given it, empty where it is not known. *path*: the server's ``sys.path``. *watchfiles*: whether the server can import
    watchfiles, None where that is not known."""

    place: str
    folder: str
    environ: Mapping[str, str]
    application: str = ""
    path: Sequence[str] = ()
    watchfiles: bool | None = None

    @property
    def source(self) -> str | None:
        """The file of the application, None where only its import can tell."""
        name = self.application.partition(":")[0]
        file = os.path.join(self.folder, name)
        if os.path.isfile(file):
            return file
        spec, whole = None, ""
        path = [os.path.join(self.folder, each) for each in ("", *self.path)]
        for part in name.split(".") if name else ():
            whole = f"{whole}.{part}".lstrip(".")
            try:
                spec = importlib.machinery.PathFinder.find_spec(whole, path)
            except (ImportError, ValueError):
                return None
            path = list(spec.submodule_search_locations or ()) if spec is not None else []
        found = None if spec is None else spec.origin
        return os.path.abspath(found) if found is not None and os.path.isfile(found) else None


@dataclasses.dataclass(frozen=True)
class System:
    """What the checks ask the machine. *grant*: the number of folders that no watch was to be had for, and the name of the
    limit. *skew*: by how many seconds the clock of a folder's file system is ahead of ours, None where that cannot be told.
    """

    mounts: Sequence[Mount]
    now: float
    grant: Callable[[Sequence[str]], tuple[int, str]]
    skew: Callable[[str], float | None]


def this_system() -> System:
    """Describe the machine that this runs on."""
    return System(mounts(), time.time(), granted, skew_of)


def examine(project: Project, settings: Settings, system: System) -> Iterator[Finding]:
    """Yield findings about the *project* on this *system*."""
    root = project_root(project.folder)
    if root == os.sep:
        yield Finding(
            "project",
            project.place,
            "the working directory is /, so everything is the project",
            "start the server in the project's folder (WorkingDirectory=, --chdir)",
        )
        return
    files = Files(settings, root)
    yield from _outside(project, files)
    yield from _listed(settings, root)
    far = deaf([root], system.mounts).get(root)
    if far is not None:
        yield from _mount(root, far, settings, system)
    found = _Walk(root, system.now)
    if found.late:
        furthest = max(found.late, key=lambda path: found.late[path])
        yield Finding(
            "clock",
            some([files.relative(path) for path in sorted(found.late)]),
            f"saved in the future, {files.relative(furthest)} by {found.late[furthest] - system.now:.0f} s: a tool "
            "that compares times takes it for new, again and again",
            "set the clock of the machine that saved it, and touch it",
        )
    listens = settings.engine != "stat" and far is None and _can_listen(project)
    if listens and sys.platform == "linux":
        files.extra()
        yield from _watches({*found.folders, *files.walked()}, root, system)


def _outside(project: Project, files: Files) -> Iterator[Finding]:
    source = project.source
    if source is None or files.ours(source):
        return
    name = project.application.partition(":")[0].partition(".")[0]
    beside = [os.path.join(files.root, *folder, name) for folder in ((), ("src",))]
    here = next((each for each in beside if name and (os.path.isdir(each) or os.path.isfile(each + ".py"))), None)
    why = files.explain(source).removeprefix("not watched: ")
    if here is not None and "third-party" in why:
        yield Finding(
            "outside",
            source,
            f"{name} is imported from there, a copy: a save of {files.relative(here)} changes nothing",
            "pip install -e .",
        )
        return
    fix = "take it out of exclude" if "exclude" in why else "pip install -e ., or third_party = true"
    yield Finding("outside", source, f"the application itself is not watched: {why}", fix)


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


def _can_listen(project: Project) -> bool:
    has = project.watchfiles if project.watchfiles is not None else extension() is not None
    forced = project.environ.get("WATCHFILES_FORCE_POLLING", "")
    return has and forced.lower() in ("", "false", "disable", "disabled")


class _Walk:
    """What lies in the project: *folders* with modules, and files that are *late* (their time is in the future)."""

    def __init__(self, root: str, now: float) -> None:
        self.folders: list[str] = []
        self.late: dict[str, float] = {}
        self._limit = now + _SLACK
        for number, (folder, inside, names) in enumerate(os.walk(root)):
            if number > _FOLDERS_AT_MOST:
                return
            self._look(folder, names)
            inside[:] = [each for each in inside if self._is_ours(folder, each)]

    def _is_ours(self, folder: str, name: str) -> bool:
        return name not in IGNORED_FOLDERS and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))

    def _look(self, folder: str, names: Sequence[str]) -> None:
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


def skew_of(folder: str) -> float | None:
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


def _number(path: str) -> int | None:
    try:
        with open(path, "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
