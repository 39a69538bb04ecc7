"""Derives from uWSGI's options what it loads, which interpreter a trial needs, and the plan of the trial."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ..core.log import ReloadLog
from ..core.settings import ENV_PREFIX, Settings
from ..trial.plan import Plan, Target
from ..trial.trial import run_trial
from ..watching.rules import Files
from .server import Server

_DEFAULT = "application"
_TABLE = "applications"
# In the order in which uWSGI tries them; only one of them is loaded, since they all have the empty mount point.
_MAIN = {
    "module": ("wsgi", "module"),
    "file": ("wsgi-file", "file"),
    "pecan": ("pecan",),
    "paste": ("paste", "ini-paste", "ini-paste-logged"),
    "code": ("eval",),
    "web3": ("web3",),
    "pump": ("pump",),
    "lite": ("wsgi-lite",),
}
_MOUNTS = ("mount", "worker-mount")
_BEYOND_US = {
    "python-worker-override": "it replaces the worker",
    "python-raw": "it answers raw requests",
    "vhost": "applications are loaded at their first request",
    "virtualhosting": "applications are loaded at their first request",
}
_PROOF_SECONDS = 20.0


class NoInterpreter(LookupError):
    """There is no ordinary interpreter like that of this process; the text, one line, says what to set."""


# -- what is loaded --------------------------------------------------------------------------------------------------


def targets(options: Mapping[str, Any]) -> tuple[tuple[Target, ...], list[str]]:
    """Return what uWSGI loads with *options* (``uwsgi.opt``), and a line for each thing that cannot be tried.

    Relative names are relative to the working directory at the time when uWSGI loads them. Of several mounts only the
    last is known: under Python 3 ``uwsgi.opt`` keeps the last value of a repeated option.
    """
    complaints = [
        f"{name} is set: {why}, and that cannot be tried" for name, why in _BEYOND_US.items() if name in options
    ]
    found = [target for target in [_main_target(options)] if target is not None]
    rooms = "single-interpreter" not in options
    seen = {""} if found else set()
    for mount in [_text(options, name) for name in _MOUNTS if name in options]:
        point, _, what = mount.partition("=")
        target = _mount_target(what, _text(options, "callable") or _DEFAULT, len(found) if rooms else 0)
        if target is None:
            complaints.append(f"mount {mount}: this is not known to be Python, and is not tried")
        elif point not in seen:
            # uWSGI skips a mount point that it has already.
            seen.add(point)
            found.append(target)
    for target in list(found):
        if "://" in target.name and target.kind == "file":
            complaints.append(f"{target.name} is no file, and is not tried")
            found.remove(target)
    if not found and not complaints:
        complaints.append("no option names an application: new code is compiled, but not tried")
    return tuple(found), complaints


def _main_target(options: Mapping[str, Any]) -> Target | None:
    attribute = _text(options, "callable") or _DEFAULT
    for kind, names in _MAIN.items():
        # Of two names for one option the later one wins.
        name = next((name for name in reversed(list(options)) if name in names), None)
        if name is not None:
            return _target(kind, name, _text(options, name), attribute)
    return None


def _target(kind: str, option: str, value: str, attribute: str) -> Target:
    if kind == "file":
        return _file(value, attribute)
    if kind == "paste" and option != "paste":
        value = f"config:{os.path.abspath(value)}"
    if kind in ("paste", "pecan"):
        return Target(kind, value)
    if kind == "code":
        return Target(kind, value, attribute, alias="uwsgi_eval_config")
    return _module(value, attribute)


def _mount_target(what: str, attribute: str, room: int) -> Target | None:
    if what.endswith((".py", ".wsgi")):
        return _file(what, attribute, room)
    if ":" not in what:
        return None
    return Target("paste", what, room=room) if what.endswith(".ini") else _module(what, attribute, room)


def _module(text: str, attribute: str, room: int = 0) -> Target:
    name, colon, quick = text.partition(":")
    attribute = quick if colon else attribute
    call = attribute.endswith("()")
    return Target("module", name, attribute[:-2] if call else attribute, call, table=_TABLE, room=room)


def _file(name: str, attribute: str, room: int = 0) -> Target:
    return Target("file", name, attribute, alias="uwsgi_file_" + pythonized(name), room=room)


def pythonized(name: str) -> str:
    """What uWSGI makes of a path for ``sys.modules``, without ``uwsgi_file_`` before it."""
    for scheme in ("sym://", "http://", "data://"):
        if name.startswith(scheme):
            name = name[len(scheme) :]
            break
    name = name.replace(".", "_").replace("/", "_")
    return name[:-3] if name.endswith("_py") else name


def _text(options: Mapping[str, Any], name: str) -> str:
    value = options.get(name)
    if isinstance(value, list):
        value = value[-1]
    return os.fsdecode(value) if isinstance(value, (bytes, str)) else ""


# -- the interpreter -------------------------------------------------------------------------------------------------


def interpreter() -> tuple[str, ...]:
    """The command of the ordinary interpreter with the version and the packages of this process.

    Each candidate is run once, which takes some tenths of a second. Raises `NoInterpreter` where none will do.
    """
    for command in _candidates():
        if _is_like_us(command):
            return command
    raise NoInterpreter(
        f"no interpreter for Python {sys.version_info[0]}.{sys.version_info[1]} in {os.path.join(sys.prefix, 'bin')}: "
        "set `virtualenv` (or `home`) to a virtual environment that has one"
    )


def _candidates() -> Iterator[tuple[str, ...]]:
    major, minor = sys.version_info[:2]
    folders = [os.path.join(prefix, "bin") for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix)]
    names = (
        f"python{major}.{minor}{getattr(sys, 'abiflags', '')}",
        f"python{major}.{minor}",
        f"python{major}",
        "python",
    )
    paths = [os.path.join(folder, name) for folder in folders for name in names]
    # Of pyuwsgi it is one, of uWSGI the server: to be started without arguments, that had better not be tried.
    if os.path.basename(sys.executable or "").startswith("python"):
        paths.append(sys.executable)
    for path in dict.fromkeys(paths):
        if os.access(path, os.X_OK):
            yield (path,)
    program = sys.executable or ""
    if os.path.basename(program).startswith("uwsgi") and os.access(program, os.X_OK):
        # What it finds in these it would start a server with.
        env, theirs = shutil.which("env"), [name for name in os.environ if name.startswith("UWSGI_")]
        if env is not None:
            yield (env, *(part for name in theirs for part in ("-u", name)), program, "--pyrun")


def _is_like_us(command: tuple[str, ...]) -> bool:
    mine = (*sys.version_info[:2], os.path.realpath(sys.prefix))
    code = f"import os, sys\nassert (*sys.version_info[:2], os.path.realpath(sys.prefix)) == {mine!r}"
    # Not with our settings: these are none of its business.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    plan = Plan(command, tuple(sys.path), os.sep, os.sep, (Target("code", code, alias="which"),), environ, {}, ("",))
    try:
        return run_trial(plan, Files(Settings(), os.sep), _PROOF_SECONDS).refused is None
    except OSError:
        return False


# -- the plan of a trial ---------------------------------------------------------------------------------------------


class TrialPlan:
    """Makes the plans of trials of *targets*, in the surroundings that they have in this process."""

    def __init__(
        self, server: Server, settings: Settings, files: Files, targets: tuple[Target, ...], log: ReloadLog
    ) -> None:
        self._server = server
        self._settings = settings
        self._files = files
        self._targets = targets
        self._log = log
        self._folder = os.getcwd()
        self._command: tuple[str, ...] | None = None

    def make(self) -> Plan | None:
        """Return a plan as of now, None where nothing can be tried."""
        if not self._targets or not self._settings.trial:
            return None
        if self._command is None:
            try:
                self._command = interpreter()
            except NoInterpreter as error:
                self._targets = ()
                self._log.warning("%s; until then new code is compiled, not tried", error)
                return None
        return Plan(
            command=self._command,
            path=tuple(sys.path),
            folder=self._folder,
            root=self._files.root,
            targets=self._targets,
            environ=dict(os.environ),
            modules={"uwsgi": self._server.stand_in()},
            argv=tuple(sys.argv),
            warmup=self._settings.warmup,
        )
