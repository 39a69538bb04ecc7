"""Every way to reload a server, behind the same verbs. Nothing here names a module of the package or a wording of its log."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from harness import GUNICORN, HAVE_UWSGI, Gunicorn, Hup, Load, Project, Script, Server, Uwsgi, processes, wait_until
from harness.steering import commanded, status
from harness.waiting import LIMIT

APPS = Path(__file__).parent.parent / "apps"
WORKERS = 2
CLIENTS = 2
# Seconds that catch a hang: beside many others a reload takes ten times as long as alone.
LONG = 60.0
# `wsgi-reload --wait` gives up before the harness gives up on the command.
WAIT = ("--wait", "--timeout", str(2 * LIMIT - 5))
# Enough to meet every worker.
MANY = 6
NO_GUNICORN = "" if GUNICORN else "gunicorn is not installed"
NO_UWSGI = "" if HAVE_UWSGI else "uWSGI is not installed"


class Backend:
    """A server, what watches its files, and the project that it serves, version v1 released.

    `server` answers requests. `hooks` watches, logs refusals and answers `wsgi-reload`: the same process but for `hup`.
    """

    name: ClassVar[str]
    missing: ClassVar[str] = NO_GUNICORN
    # uWSGI's own HUP ends a worker that has accepted a request and not begun to read it.
    hup_fails_no_request: ClassVar[bool] = True
    server: Server
    hooks: Server

    def __init__(self, root: Path) -> None:
        self.project = Project(root, import_seconds=0.05, handler_seconds=0.05)
        self.project.release()

    @contextmanager
    def running(self, *, ready: bool = True) -> Iterator[None]:
        """Start everything, and stop it at the end; the harness asserts that no process and no file is left.

        `ready`: wait until a request is answered and saves are noticed.
        """
        with ExitStack() as stack:
            self._start(stack, ready)
            if ready:
                self.wait_ready()
            yield

    def _start(self, stack: ExitStack, ready: bool) -> None:
        self.server = self.hooks = self._make(ready)
        stack.enter_context(self.server)

    def _make(self, ready: bool) -> Server:
        raise NotImplementedError

    def wait_ready(self) -> None:
        """Wait until requests are answered and the files are known."""
        self.server.wait_ready()
        wait_until(self._watches, "files are watched")

    def _watches(self) -> bool:
        code, output, _ = self.command("status", "--json")
        return code == 0 and bool(json.loads(output)[0]["watched"])

    # -- what a client sees --------------------------------------------------------------------------------------------

    def load(self) -> Load:
        """A few clients that ask without a pause."""
        return Load(self.server.port, keep_alive=False, clients=CLIENTS)

    def versions(self) -> set[str]:
        """The versions of several answers."""
        return {self.server.version() for _ in range(MANY)}

    def wait_served(self) -> None:
        """Wait until the last save is in service in every worker."""
        code, output, errors = self.command("status", *WAIT)
        assert code == 0, output + errors
        assert self.versions() == {self.project.version}

    # -- what the hooks tell -------------------------------------------------------------------------------------------

    def refusals(self) -> list[str]:
        """The log lines that tell of a refused `app.py`, but for reminders."""
        lines = (line for line in self.hooks.log.splitlines() if "refused" in line and "app.py" in line)
        return [line for line in lines if "still refused" not in line]

    def wait_refused(self) -> None:
        """Wait until the refusal of `app.py` is logged and known to `status`."""
        wait_until(self.refusals, "app.py is refused", LONG)
        found = wait_until(self._refused, "status tells of the refusal", LONG)
        assert found["refusals"] == 1
        assert found["last_refusal"]["path"] == str(self.project.root / "app.py")
        assert "NameError" in found["last_refusal"]["reason"]

    def _refused(self) -> dict[str, Any] | None:
        found = self.status()
        return found if found["refused"] else None

    def wait_reverted(self) -> None:
        """Wait until it is known that all files are as they were loaded."""
        code, output, errors = self.command("status", *WAIT)
        assert code == 0, output + errors

    def reloads(self) -> int:
        """How many reloads were carried out."""
        return int(self.status()["reloads"])

    def status(self) -> dict[str, Any]:
        """The object of `wsgi-reload status --json`."""
        return status(self.hooks)

    def command(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output and error output of `wsgi-reload WORDS PID`."""
        return commanded(self.hooks, *words, str(self.hooks.pid))

    # -- processes -----------------------------------------------------------------------------------------------------

    def pids(self) -> set[int]:
        """The processes that serve."""
        return set(self.server.workers())

    def kill(self, *pids: int) -> None:
        """Kill these workers, and wait until they are gone."""
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(processes.alive, pids)), "they are gone")

    def wait_for_crew(self) -> None:
        """Wait until there are as many workers as configured."""
        self.server.wait_for_workers(WORKERS)


class Sync(Backend):
    """gunicorn with sync workers; each imports the application."""

    name = "sync"
    options: ClassVar[tuple[str, ...]] = ()
    worker_class: ClassVar[str] = "sync"

    def _make(self, ready: bool) -> Server:
        return Gunicorn(self.project, *self.options, worker_class=self.worker_class, workers=WORKERS, wait=ready)


class Gthread(Sync):
    """gunicorn with gthread workers and clients that keep their connections."""

    name = "gthread"
    worker_class = "gthread"

    def load(self) -> Load:
        # gthread before 24.0 drops kept-alive connections, with and without the hooks.
        return Load(self.server.port, keep_alive=GUNICORN >= (24, 0), clients=CLIENTS)


class Preload(Sync):
    """gunicorn --preload: one import per generation, workers are forked from it."""

    name = "preload"
    options = ("--preload",)


class UwsgiLazy(Backend):
    """uWSGI with lazy-apps, which rolls worker by worker."""

    name = "uwsgi"
    missing = NO_UWSGI
    hup_fails_no_request = False

    def _make(self, ready: bool) -> Server:
        return Uwsgi(self.project, workers=WORKERS, wait=ready)


class Program(Script):
    """`wsgi-reload run --listen ... -- serve.py` in the project's folder."""

    # The program ends with 0.
    stop_status = 0

    def __init__(self, project: Project) -> None:
        shutil.copy(APPS / "serve.py", project.root)
        super().__init__(project.root, "serve.py", options=["--listen", "127.0.0.1:0"])
        self.project = project

    @property
    def port(self) -> int:
        if not self._port:
            self._port = int(self.wait_for_log(r"serves port (\d+)").group(1))
        return self._port


class Run(Backend):
    """`wsgi-reload run` with a wsgiref program: one process serves, its supervisor listens."""

    name = "run"
    missing = ""
    server: Program

    def _make(self, ready: bool) -> Server:
        return Program(self.project)

    def wait_ready(self) -> None:
        """Until it has found out what can be imported, a save is compiled and not imported before the restart."""
        super().wait_ready()
        self.server.quiet()

    def pids(self) -> set[int]:
        return {int(self.server.ask()[1].split()[1])}

    def wait_for_crew(self) -> None:
        self.server.wait_ready()


class HupBeforeGunicorn(Backend):
    """`wsgi-reload hup` in front of a gunicorn without hooks."""

    name = "hup"

    def _start(self, stack: ExitStack, ready: bool) -> None:
        options = ("--pid", "gunicorn.pid")
        self.server = stack.enter_context(Gunicorn(self.project, *options, workers=WORKERS, configuration=None))
        self.hooks = stack.enter_context(Hup(self.project, "gunicorn.pid", "--app", "app:app"))

    def wait_ready(self) -> None:
        """The harness has waited for both."""

    def wait_served(self) -> None:
        self.server.wait_for_everyone(self.project.version)

    def wait_refused(self) -> None:
        (line,) = wait_until(self.refusals, "app.py is refused", LONG)
        assert "NameError" in line

    def wait_reverted(self) -> None:
        after = self.hooks.log.rpartition(self.refusals()[-1])[0].count("\n") + 1
        wait_until(
            lambda: any("app.py" in line and "File" not in line for line in self.hooks.log.splitlines()[after:]),
            "the revert is told",
        )

    def reloads(self) -> int:
        return self.server.count("Handling signal: hup")


BACKENDS: dict[str, type[Backend]] = {
    each.name: each for each in (Sync, Gthread, Preload, UwsgiLazy, Run, HupBeforeGunicorn)
}
