"""A real server behind one context manager: what all of them have in common."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from unittest import mock

import wsgi_reload_hooks
from wsgi_reload_hooks.control import runtime_dir

from . import patterns, processes
from .project import Project
from .waiting import LIMIT, quietly, wait_until

PACKAGE = Path(wsgi_reload_hooks.__file__).resolve().parent
# The value of an environment variable that the server must not have.
ABSENT = "\0"
# So many looks at the processes, one after the other, make a number that stays.
CALM = 10
# What somebody needs who is just beginning, on a machine that may stand still for two seconds, to see that the master is
# gone.
A_MOMENT = 5.0
# So many come together.
VISITORS = 4
NOT_INHERITED = (
    "GUNICORN_",
    "UWSGI_",
    "WSGI_RELOAD_",
    "PYTHONDEVMODE",
    "PYTHONWARNINGS",
    "PYTHONDONTWRITE",
    "PYTHONPYCACHE",
)

S = TypeVar("S", bound="Server")


def installed(distribution: str) -> tuple[int, ...]:
    """Its version, () where it is not installed."""
    try:
        return tuple(int(part) for part in re.findall(r"\d+", metadata.version(distribution)))
    except metadata.PackageNotFoundError:
        return ()


def python_path() -> str | None:
    """Where the server finds the package: None when it is installed for this interpreter."""
    return None if PACKAGE.parent.name in ("site-packages", "dist-packages") else str(PACKAGE.parent)


class Server:
    """A server in the project's folder, until the block ends.

    The end asserts that nothing is left: no process (even an orphan), no temporary file.
    A block that raises prints the server's log.
    """

    name = "the server"
    stop_signal = signal.SIGTERM
    stop_status = 0

    def __init__(
        self,
        project: Project,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        run_as: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.project = project
        self._command = list(command)
        self._wait = wait
        self._port = 0
        self._scratch = Path(tempfile.mkdtemp(prefix="wrh-"))
        self._scratch.chmod(0o755)
        self.log_path = self._scratch / "server.log"
        self.temporary = self._scratch / "tmp"
        self.runtime = self._scratch / "run"
        self._mark = f"HARNESS_SERVER={uuid.uuid4().hex}"
        self._environment = self._build_environment(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._run_as = run_as
        self._pass_fds = tuple(pass_fds)
        self._over = False
        self.output = ""

    def _build_environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        environment.pop("PYTHONPATH", None)
        path = python_path()
        if path is not None:
            environment["PYTHONPATH"] = path
        name, _, value = self._mark.partition("=")
        environment.update({name: value, "TMPDIR": str(self.temporary), "XDG_RUNTIME_DIR": str(self.runtime)})
        environment.update(extra)
        return {name: value for name, value in environment.items() if value != ABSENT}

    @contextmanager
    def _running(self) -> Iterator[None]:
        self._start()
        try:
            yield
        except BaseException:
            self._give_up()
            raise
        self._remove()

    def _start(self) -> None:
        self.temporary.mkdir(mode=0o777)
        self.temporary.chmod(0o1777)
        self.runtime.mkdir(mode=0o700)
        if self._run_as is not None:
            shutil.chown(self.runtime, self._run_as)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.project.root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # None means ours.
                user=self._run_as,
                group=self._run_as and pwd.getpwnam(self._run_as).pw_gid,
                extra_groups=None if self._run_as is None else [],
                pass_fds=self._pass_fds,
            )

    def __enter__(self: S) -> S:
        self._start()
        try:
            if self._wait:
                self.wait_ready()
        except BaseException:
            self._give_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._give_up()
            return
        try:
            self.stop()
        except BaseException:
            self._give_up()
            raise
        self._remove()

    def _give_up(self) -> None:
        self.kill()
        print(f"--- log of {' '.join(self._command)}\n{patterns.without_requests(self.log)[-20000:]}\n---")
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def kill(self) -> None:
        """End every process that began here, and only those; the master first, it may be forking."""
        if self._process is not None:
            self._process.kill()
        while left := self.processes():
            for pid in left:
                processes.kill(pid)
        if self._process is not None:
            self._process.wait(LIMIT)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        raise NotImplementedError

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="backslashreplace")

    def surroundings(self) -> dict[str, str]:
        """The environment that it was started in."""
        return dict(self._environment)

    def exited(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    def exit_status(self, limit: float = LIMIT) -> int:
        """Wait for the end that the server comes to by itself."""
        assert self._process is not None
        return self._process.wait(limit)

    def processes(self) -> list[int]:
        """All living processes of this server, orphans too."""
        return processes.marked(self._mark)

    def workers(self) -> list[int]:
        """The living children of the master, but for what listens for events and what forks workers."""
        return [pid for pid in processes.children(self.pid) if not processes.is_helper(pid)]

    def ask(self, path: str = "/", timeout: float = LIMIT) -> tuple[int, str]:
        """Status and text of one request on a connection of its own."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")

    def version(self, path: str = "/") -> str:
        """The version a new visitor is answered with."""
        status, text = self.ask(path)
        assert status == 200, (status, text)
        return text.split()[0]

    def wait_ready(self, limit: float = LIMIT) -> None:
        """A visitor gets an answer."""

        def ready() -> bool:
            if self.exited():
                raise AssertionError(f"{self.name} exited with {self.exit_status()}")
            return (quietly(lambda: self.ask(timeout=limit)) or (0, ""))[0] == 200

        wait_until(ready, "the server answers", limit)

    def wait_for_version(self, version: str, path: str = "/", limit: float = LIMIT) -> None:
        """Ask until the answer is that version."""
        wait_until(lambda: self.version(path) == version, f"{path} answers {version}", limit)

    def answers(self, path: str = "/") -> dict[int, str]:
        """The versions that visitors who come together are answered with, by worker."""
        with ThreadPoolExecutor(VISITORS) as visitors:
            found = list(visitors.map(lambda _: self.ask(path), range(VISITORS)))
        assert all(status == 200 for status, _ in found), found
        return {int(pid): version for version, pid in (text.split() for _, text in found)}

    def wait_for_everyone(self, version: str, path: str = "/") -> None:
        """Ask until each worker was seen to answer that version, and nobody another one.

        For few workers, and a page that takes its time: so visitors who come together meet them all.
        """
        found: dict[int, str] = {}

        def everyone() -> bool:
            nonlocal found
            found = self.answers(path)
            return sorted(found) == self.workers() and set(found.values()) == {version}

        wait_until(everyone, lambda: f"everyone answers {version} to {path}; the last were {found}")

    def wait_until_ready_with(self, version: str) -> None:
        """Visitors of a server that could not serve yet get that version."""
        self.wait_ready()
        self.wait_for_version(version)

    def run_to_its_end(self) -> int:
        """For a server that must not start: its exit status; `output` holds what it said."""
        with self._running():
            try:
                status = self.exit_status()
                self.assert_nothing_left()
            finally:
                self.output = self.log
        return status

    def count(self, pattern: str) -> int:
        """How often the log says it."""
        return len(patterns.find(pattern, self.log))

    def wait_for_log(self, pattern: str, count: int = 1, limit: float = LIMIT) -> re.Match[str]:
        """Wait until the log says it so many times; the last of them."""
        found = wait_until(
            lambda: patterns.find(pattern, self.log)[count - 1 :], f"the log says {count} times {pattern!r}", limit
        )
        return found[-1]

    def wait_for_workers(self, count: int) -> None:
        """Wait until there are so many workers, for good: a roll passes through every number."""
        in_a_row = 0

        def settled() -> bool:
            nonlocal in_a_row
            in_a_row = in_a_row + 1 if len(self.workers()) == count else 0
            return in_a_row >= CALM

        wait_until(settled, lambda: f"{count} workers; there are {len(self.workers())}")

    def send(self, sig: signal.Signals) -> None:
        os.kill(self.pid, sig)

    def hup(self) -> None:
        self.send(signal.SIGHUP)

    def end_worker(self, pid: int, sig: signal.Signals) -> None:
        """Signal one worker, and see it leave and another one come."""
        count = len(self.workers())
        assert pid in self.workers()
        os.kill(pid, sig)
        wait_until(lambda: pid not in self.workers(), "the worker left")
        self.wait_for_workers(count)

    def use_port(self, port: int) -> None:
        """For a server whose log is elsewhere."""
        self._port = port

    def forget(self) -> None:
        """The test ended the server itself and looked at what was left."""
        assert self.exited()
        self._over = True

    def stop(self, limit: float = LIMIT) -> None:
        """Its signal ends it as it should, and nothing is left behind."""
        if self._over:
            return
        assert not self.exited(), f"{self.name} was gone before the end: {self.exit_status()}"
        left = self.processes()
        assert self.pid in left
        self.send(self.stop_signal)
        status = self.exit_status(limit)
        assert status == self.stop_status, f"exit status {status}"
        self.assert_nothing_left(left)
        self._over = True

    def assert_nothing_left(self, known: Sequence[int] = ()) -> None:
        """Neither a process nor a temporary file outlives the master by more than a moment.

        Who cleans up after a worker, or listens for events, may still be about to see that the master is gone.
        """
        with contextlib.suppress(AssertionError):
            # One that is just ending has no environment any more to be known by, only its number.
            wait_until(lambda: not (self.processes() or any(map(processes.alive, known))), "nothing is left", A_MOMENT)
        left = sorted({pid for pid in known if processes.alive(pid)} | set(self.processes()))
        assert not left, f"outlived it: {processes.told(left)}"
        if self._process is not None and self._process.poll() == -signal.SIGKILL:
            # It had no time for its private folder: whoever looks for servers removes that.
            with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=str(self.runtime)):
                assert not [home for home in runtime_dir.homes() if home.path.startswith(str(self.runtime))]
        assert sorted(self.temporary.rglob("*")) == []
        assert sorted(self.runtime.rglob("*")) == []
