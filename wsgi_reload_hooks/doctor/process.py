"""Check a server's process from outside: its command line, its environment and its sockets, as /proc shows them."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from ..core.errors import Failure
from ..core.finding import Finding
from ..core.settings import Settings
from ..core.text import printable
from ..gunicorn.setting_checks import ENVIRONMENT, check_configurations, configurations, hooks_missing, hooks_off
from .command_line import GUNICORN, UWSGI, parse

_PARENTS_AT_MOST = 100
_RUNTIME_FOLDERS = ("XDG_RUNTIME_DIR", "TMPDIR")
# gunicorn with setproctitle.
_RENAMED = "gunicorn: "
_CONTROL = re.compile(r"/wsgi-reload-hooks[^/\n]*/[a-z]+-(\d+)-[^/\n]*/control$", re.MULTILINE)
_FILE = re.compile(r".*\.(ini|json|js|xml|ya?ml)(:\w*)?\Z")
# Without a master process these options add one.
_MASTER = re.compile(
    r"-M|--(master|mule|farm|spooler|cheap|idle|touch-|fs-|stats|legion|alarm|metric|(unique-)?cron|subscribe|zerg-server"
    r"|(smart-)?attach-|(signal-)?(rb)?timer|py(thon)?-(auto|tracebacker)|(req-|threaded-)?logger|log-master)"
)


@dataclasses.dataclass(frozen=True)
class ServerProcess:
    """The arbiter or the master. *words*: its command line, empty where setproctitle has replaced it."""

    pid: int
    parent: int
    kind: str
    words: Sequence[str]
    environ: Mapping[str, str]
    folder: str
    user: int
    group: int
    groups: Sequence[int]

    def __str__(self) -> str:
        return f"{self.kind}, process {self.pid}"

    @property
    def place(self) -> str:
        """Where a finding about this process is."""
        return f"process {self.pid}"


def main_process(pid: int) -> ServerProcess:
    """The arbiter or master that *pid* is, or is a worker of. Raises `Failure`: not Linux, no server, no permission."""
    if sys.platform != "linux":
        raise Failure(f"no server with the hooks is process {pid}; one without them is examined on Linux only")
    process = _process(pid)
    for _ in range(_PARENTS_AT_MOST):
        # An arbiter that another one has started on USR2 stands for itself.
        if process.parent <= 1 or process.environ.get("GUNICORN_PID") == str(process.parent):
            break
        words = _words(process.parent)
        if words != process.words and not (words and words[0].startswith(_RENAMED) and not process.words):
            break
        process = _process(process.parent)
    if not os.path.isdir(process.folder):
        raise Failure(f"process {process.pid} works in a folder that has been deleted: restart it")
    return process


def approach(process: ServerProcess) -> None:
    """Look for control sockets where *process* has its own. Root gives up its rights for those of the process' user."""
    os.environ.update({name: process.environ[name] for name in _RUNTIME_FOLDERS if name in process.environ})
    tempfile.tempdir = None
    if os.geteuid() == 0 and process.user != 0:
        os.setgroups(process.groups)
        os.setgid(process.group)
        os.setuid(process.user)


def has_control_socket(pid: int) -> bool:
    """Whether the hooks run in the server whose arbiter or master is *pid*, also where it cannot be reached from here."""
    try:
        with open(f"/proc/{pid}/net/unix", errors="replace") as file:
            found = _CONTROL.findall(file.read())
        # A container knows the process by another number.
        status = _contents(pid, "status").decode(errors="replace")
    except OSError:
        return False
    return any(number in found for number in (str(pid), *re.findall(r"^NSpid:(.*)", status, re.MULTILINE)[0].split()))


def check_process(process: ServerProcess, settings: Settings) -> Iterator[Finding]:
    """Why the hooks do not answer in *process*."""
    options = [*process.words, *(f"--{name[6:].lower().replace('_', '-')}" for name in _uwsgi_variables(process))]
    files = [*process.words, *(process.environ[name] for name in _uwsgi_variables(process))]
    if not settings.enabled:
        yield hooks_off(settings)
    elif process.kind == UWSGI and not any(map(_MASTER.match, options)) and not any(map(_FILE.match, files)):
        yield Finding(
            "master",
            process.place,
            "uWSGI runs without a master process: the hooks need it, saves are not served",
            "add --master",
        )
        if not _names_hooks(process):
            yield hooks_missing(process.place, process.kind)
    elif _names_hooks(process):
        yield Finding(
            "hooks-missing",
            process.place,
            "the command line loads the hooks, but they do not run (or the server is still starting): saves are not served",
            "look for `reload:` and for an ImportError in its log, and restart it",
        )
    else:
        yield hooks_missing(process.place, process.kind)
    yield from check_command_line(process)


def check_command_line(process: ServerProcess) -> Iterator[Finding]:
    """Whether a second ``-c`` replaces a configuration of gunicorn."""
    if process.kind == GUNICORN:
        given = shlex.split(process.environ.get(ENVIRONMENT, ""))
        yield from check_configurations(configurations(process.words), configurations(given))


def _names_hooks(process: ServerProcess) -> bool:
    words = [*process.words, *(process.environ[name] for name in _uwsgi_variables(process))]
    if process.kind == GUNICORN:
        words = [*configurations(shlex.split(process.environ.get(ENVIRONMENT, ""))), *configurations(words)][-1:]
    return any("wsgi_reload_hooks" in word for word in words)


def _uwsgi_variables(process: ServerProcess) -> list[str]:
    return [name for name in process.environ if name.startswith("UWSGI_")]


def _process(pid: int) -> ServerProcess:
    """What the system tells about *pid*. Raises `Failure` where it is neither gunicorn nor uWSGI, or not ours to see."""
    try:
        status = dict(line.split(":\t", 1) for line in _contents(pid, "status").decode(errors="replace").splitlines())
        pairs = [each.partition("=") for each in map(os.fsdecode, _contents(pid, "environ").split(b"\0"))]
        words = _words(pid)
        renamed = bool(words) and words[0].startswith(_RENAMED)
        command = parse(words)
        if not renamed and command is None:
            shown = printable(shlex.join(words))
            why = f"is neither gunicorn nor uWSGI: {shown if len(shown) < 80 else shown[:77] + '...'}"
            raise Failure(f"process {pid} {why if words else 'has ended, or is one of the kernel'}")
        return ServerProcess(
            pid=int(status["Tgid"]),
            parent=int(status["PPid"]),
            kind=GUNICORN if command is None else command.kind,
            words=[] if renamed else words,
            environ={name: value for name, equals, value in pairs if equals},
            folder=os.readlink(f"/proc/{pid}/cwd"),
            user=int(status["Uid"].split()[1]),
            group=int(status["Gid"].split()[1]),
            groups=[int(each) for each in status["Groups"].split()],
        )
    except (FileNotFoundError, ProcessLookupError):
        raise Failure(f"there is no process {pid}") from None
    except PermissionError:
        why = "the system does not allow it" if os.geteuid() == 0 else "run this as its user, or as root"
        raise Failure(f"process {pid} cannot be examined: {why}") from None


def _words(pid: int) -> list[str]:
    try:
        text = _contents(pid, "cmdline")
    except OSError:
        return []
    return [os.fsdecode(word) for word in text.rstrip(b"\0").split(b"\0")] if text else []


def _contents(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
