"""The examples of configuration and deployment are run as they stand, in a project that has a copy of them."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from edits import PACKAGE_ROOT
from harness import GUNICORN, HAVE_UWSGI, IS_PYUWSGI, Load, Project, Server, patterns, wait_until
from harness.uwsgi import PROGRAM as UWSGI_PROGRAM
from harness.waiting import LIMIT

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIGS = CHECKOUT / "configs"
UNITS = CONFIGS / "systemd"
STORY = "/srv/shop"
# What an environment of the story has in `venv/bin`.
PROGRAMS = {
    "gunicorn": [sys.executable, "-m", "gunicorn"],
    "uwsgi": [str(UWSGI_PROGRAM)],
    "wsgi-reload": [sys.executable, "-m", "wsgi_reload_hooks"],
}
APPLICATION = """\
import time
from app import app


def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        print("asked for /slow", flush=True)
        time.sleep(1)
    return app(environ, start_response)
"""
WORKER = """\
import time
from app import VERSION

if __name__ == "__main__":
    print("at work:", VERSION, flush=True)
    time.sleep(1000)
"""
FIRST = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""
needs_gunicorn = pytest.mark.skipif(not GUNICORN, reason="gunicorn is not installed")
needs_uwsgi = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")


class Example(Server):
    """What a command of an example starts, in the project's folder, until the block ends. It finds its port in PORT.

    *log*: where it writes, if not to its output.
    """

    name = "the example"

    def __init__(
        self,
        project: Project,
        *command: str,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        listener: socket.socket | None = None,
        wait: bool = True,
    ) -> None:
        # As long as this is bound nobody else is given the port; who sets SO_REUSEADDR may listen there.
        self._reserved = listener or socket.socket()
        if listener is None:
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reserved.bind(("127.0.0.1", 0))
        port = self._reserved.getsockname()[1]
        path = os.pathsep.join([str(project.root / "venv" / "bin"), os.environ["PATH"]])
        super().__init__(
            project,
            command,
            environment={"PORT": str(port), "PATH": path, **(environment or {})},
            pass_fds=() if listener is None else (listener.fileno(),),
            wait=wait,
        )
        if log is not None:
            self.log_path = log
        self._port = port

    @property
    def port(self) -> int:
        return self._port

    @property
    def log(self) -> str:
        return super().log if self.log_path.exists() else ""

    def load(self) -> Load:
        """Visitors."""
        return Load(self.port, keep_alive=False, clients=8)

    def finishes(self, path: str) -> None:
        """SIGTERM while a visitor waits for *path*: he gets his answer, and it ends."""
        answers: list[tuple[int, str]] = []
        visitor = threading.Thread(target=lambda: answers.append(self.ask(path)))
        sent = self.count("asked for /slow")
        visitor.start()
        wait_until(lambda: self.count("asked for /slow") > sent, "the request is there")
        self.stop()
        visitor.join(LIMIT)
        assert [status for status, _ in answers] == [200]

    def _start(self) -> None:
        wanted, self.log_path = self.log_path, self._scratch / "server.log"
        super()._start()
        self.log_path = wanted

    def _remove(self) -> None:
        super()._remove()
        self._reserved.close()


@pytest.fixture
def shop() -> Iterator[Project]:
    """The project of the examples: `shop.wsgi:application`, `shop.worker`, `configs/`, and its programs."""
    # The names of sockets are short.
    with tempfile.TemporaryDirectory(prefix="wrh-shop-") as folder:
        project = Project(Path(folder))
        project.release()
        project.save("shop/__init__.py", "")
        project.save("shop/wsgi.py", APPLICATION)
        project.save("shop/worker.py", WORKER)
        shutil.copytree(CONFIGS, project.root / "configs")
        for name, command in PROGRAMS.items():
            project.save(f"venv/bin/{name}", f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
            (project.root / "venv" / "bin" / name).chmod(0o755)
        yield project


def saves(server: Example) -> None:
    """A good save is served, a broken one refused, and its repair served."""
    project = server.project
    reloaded, refused = server.count(patterns.RELOADED), server.count(patterns.REFUSED)
    project.release()
    server.wait_for_version(project.version)
    # The last worker, too.
    server.wait_for_log(patterns.RELOADED, reloaded + 1)
    good = project.version
    project.broken(bottom="import no_such_module")
    server.wait_for_log(patterns.refused("no_such_module"), refused + 1)
    assert server.version() == good
    project.release()
    server.wait_for_version(project.version)
    server.wait_for_log(patterns.RELOADED, reloaded + 2)


# -- the servers' own files ------------------------------------------------------------------------------------------


@needs_gunicorn
def test_the_file_for_development(shop: Project) -> None:
    """gunicorn/development.conf.py: two workers, a line for each request, and saves are served."""
    with Example(shop, "gunicorn", "-c", "configs/gunicorn/development.conf.py") as server:
        saves(server)
        server.wait_for_workers(2)
        assert server.count('"GET / HTTP/1.1" 200') > 0


@needs_gunicorn
def test_the_file_for_production(shop: Project) -> None:
    """gunicorn/production.conf.py under load: saves and a HUP, its own hooks are called, what was begun is finished."""
    with Example(shop, "gunicorn", "-c", "configs/gunicorn/production.conf.py") as server:
        server.wait_for_log(patterns.WATCHING)
        assert server.count("shop: open for visitors") == 1
        with server.load() as load:
            saves(server)
            server.wait_for_log("shop: new code or configuration", 2)
            server.hup()
            server.wait_for_log("shop: new code or configuration", 3)
            shop.release(top="from shop.nosuch import x")
            server.wait_for_log(patterns.refused("No module named 'shop.nosuch'"))
            shop.release()
            load.wait_for_only(shop.version)
        assert load.failed == []
        server.wait_for_workers(4)
        server.finishes("/slow")


@needs_gunicorn
def test_the_file_for_production_ends_with_what_does_not_load(shop: Project) -> None:
    """A start with broken code, or with code that does not answer /healthz, is an end that systemd sees."""
    command = ("gunicorn", "-c", "configs/gunicorn/production.conf.py")
    shop.broken(bottom="import no_such_module")
    server = Example(shop, *command)
    assert server.run_to_its_end() == 3
    assert re.search(r"the application does not load: app\.py, line \d+: ModuleNotFoundError", server.output)
    shop.release(bottom="app = lambda environ, start_response: 1 / 0")
    server = Example(shop, *command)
    assert server.run_to_its_end() == 3
    assert "ZeroDivisionError" in server.output


class InProduction(Example):
    """uwsgi/production.ini. Under pyuwsgi its `env` comes after Python's start, as it says."""

    def __init__(self, project: Project, *, wait: bool = True) -> None:
        settings = {"WSGI_RELOAD_BROKEN_START": "exit", "WSGI_RELOAD_WARMUP": "/healthz"} if IS_PYUWSGI else {}
        super().__init__(project, "uwsgi", "configs/uwsgi/production.ini", environment=settings, wait=wait)


@needs_uwsgi
@pytest.mark.versions
def test_the_uwsgi_file_for_development(shop: Project) -> None:
    """uwsgi/development.ini: nothing in it that the hooks complain about; workers are replaced, uWSGI is not."""
    with Example(shop, "uwsgi", "configs/uwsgi/development.ini") as server:
        quiet(server)
        saves(server)
        assert server.count(patterns.UWSGI_EXEC) == 0


@needs_uwsgi
@pytest.mark.versions
def test_the_uwsgi_file_for_production(shop: Project) -> None:
    """uwsgi/production.ini: the same; what was begun when SIGTERM came is finished."""
    with InProduction(shop) as server:
        quiet(server)
        saves(server)
        shop.release(bottom="app = lambda environ, start_response: 1 / 0")
        server.wait_for_log(patterns.refused("ZeroDivisionError"))
        assert server.count(patterns.UWSGI_EXEC) == 0
        server.finishes("/slow")


def quiet(server: Example) -> None:
    """It watches, and has found nothing wrong with the set-up (pyuwsgi's own trouble apart)."""
    server.wait_for_log(patterns.WATCHING)
    assert server.count(r"\[(WARNING|ERROR)\] reload: (?!pyuwsgi)") == 0


@needs_uwsgi
def test_the_uwsgi_file_for_production_ends_with_what_does_not_load(shop: Project) -> None:
    """A start with broken code is an end that systemd sees."""
    shop.broken(bottom="import no_such_module")
    with InProduction(shop, wait=False) as server:
        assert server.exit_status() == 22
        assert server.count("No module named 'no_such_module'") > 0
        server.forget()


@pytest.mark.parametrize("name", ["development", "production"])
def test_the_uwsgi_files_have_the_port_of_the_readme(name: str) -> None:
    """Without a PORT in the environment they listen where the README's command does."""
    lines = (CONFIGS / "uwsgi" / f"{name}.ini").read_text().splitlines()
    start = lines.index("if-not-env = PORT")
    assert lines[start + 1 : start + 3] == ["http-socket = 127.0.0.1:8000", "endif ="]


# -- systemd ---------------------------------------------------------------------------------------------------------


def unit(name: str) -> dict[tuple[str, str], list[str]]:
    """(section, key) -> values, of which systemd lets some keys have several."""
    text = (UNITS / name).read_text()
    configparser.ConfigParser(strict=False, interpolation=None).read_string(text)
    found: dict[tuple[str, str], list[str]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals and key.isalpha() and section
            found.setdefault((section, key), []).append(value)
    return found


@pytest.mark.parametrize("name", ["shop-gunicorn.service", "shop-uwsgi.service"])
def test_the_units_fit_the_servers(name: str) -> None:
    """What belongs together in a unit and in what it starts."""
    service = {key: values for (section, key), values in unit(name).items() if section == "Service"}
    assert service["RuntimeDirectory"] == ["shop"] and service["RuntimeDirectoryMode"] == ["0700"]
    assert service["Environment"] == ["XDG_RUNTIME_DIR=/run/shop"]
    assert (service["Type"], service["KillMode"]) == (["notify"], ["mixed"])
    program, *words = shlex.split(service["ExecStart"][0])
    assert program.startswith(f"{STORY}/venv/bin/") and service["WorkingDirectory"] == [STORY]
    configuration = (CHECKOUT / words[-1]).read_text()
    grace = re.search(r"^(?:graceful_timeout|worker-reload-mercy) = (\d+)$", configuration, re.MULTILINE)
    assert grace is not None and int(service["TimeoutStopSec"][0]) > int(grace[1])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_units_are_good_for_systemd(tmp_path: Path) -> None:
    """systemd-analyze finds nothing wrong with them, where the programs are there; and finds what is wrong."""
    for name in PROGRAMS:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    for each in UNITS.iterdir():
        (tmp_path / each.name).write_text(each.read_text().replace(f"{STORY}/venv/bin", str(tmp_path)))
    files = sorted(tmp_path.glob("shop-*"))
    assert len(files) == 3 and verified(files) == []
    files[0].write_text(files[0].read_text().replace("KillMode=mixed", "KillMode=mix"))
    assert len(verified(files)) == 1


def verified(files: Sequence[Path]) -> list[str]:
    """What systemd-analyze says of these units."""
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, files)], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    return [line for line in done.stderr.splitlines() if "shop-" in line]


class AsSystemd:
    """A service as systemd would start it: `with` it runs and has said that it is ready."""

    def __init__(self, project: Project, name: str, listener: socket.socket | None = None) -> None:
        self._unit = unit(name)
        self._project = project
        self._notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        place = str(project.root / "notify")
        self._notes.bind(place)
        self._notes.settimeout(LIMIT)
        words = self._words("ExecStart")
        if listener is not None:
            words = [sys.executable, "-S", "-c", FIRST, str(listener.fileno()), *words]
        self.server = Example(project, *words, environment={"NOTIFY_SOCKET": place}, listener=listener, wait=False)

    def __enter__(self) -> AsSystemd:
        self.server.__enter__()
        try:
            self.told(b"READY=1")
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.server.__exit__(*error)  # type: ignore[arg-type]
        self._notes.close()

    def reload(self) -> bool:
        """What `systemctl reload` does. Whether it says that all is well."""
        variables = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "XDG_RUNTIME_DIR": str(self.server.runtime)}
        command = [word.replace("$MAINPID", str(self.server.pid)) for word in self._words("ExecReload")]
        done = subprocess.run(command, cwd=self._project.root, env=variables, timeout=LIMIT, check=False)
        return done.returncode == 0

    def told(self, text: bytes) -> None:
        """Wait until systemd was told this."""
        while text not in self._notes.recv(4096):
            pass

    def _words(self, key: str) -> list[str]:
        (value,) = self._unit["Service", key]
        return shlex.split(value.replace(STORY, str(self._project.root)))


@needs_gunicorn
def test_the_units_of_gunicorn(shop: Project) -> None:
    """The socket of one is handed to the other, systemd is told what happens, and a reload waits for the new code."""
    assert unit("shop-gunicorn.service")["Unit", "Requires"] == ["shop-gunicorn.socket"]
    host, _, port = unit("shop-gunicorn.socket")["Socket", "ListenStream"][0].rpartition(":")
    assert port == "8000"
    with socket.create_server((host, 0)) as listener, AsSystemd(shop, "shop-gunicorn.service", listener) as service:
        server = service.server
        server.wait_for_log(patterns.WATCHING)
        reloads(service)


@needs_uwsgi
def test_the_unit_of_uwsgi(shop: Project) -> None:
    """The same, and uWSGI is not executed anew for it."""
    with AsSystemd(shop, "shop-uwsgi.service") as service:
        server = service.server
        server.wait_for_log(patterns.WATCHING)
        server.wait_ready()
        reloads(service)
        assert server.count(patterns.UWSGI_EXEC) == 0


def reloads(service: AsSystemd) -> None:
    """A save is told, a reload with good code is well, and one with code that does not load is not."""
    server, project = service.server, service.server.project
    project.release()
    service.told(b"RELOADING=1")
    service.told(b"READY=1\nSTATUS=reloaded ")
    server.wait_for_version(project.version)
    assert service.reload()
    good = project.version
    project.broken(bottom="import no_such_module")
    service.told(b"READY=1\nSTATUS=refused ")
    assert not service.reload()
    assert server.version() == good
    project.release()
    assert service.reload()
    assert server.version() == project.version


# -- others that start it --------------------------------------------------------------------------------------------


@needs_gunicorn
def test_supervisord(shop: Project) -> None:
    """supervisord.conf: saves are served, supervisorctl sends a HUP, and it ends with all that it has started."""
    pytest.importorskip("supervisor")
    options = ("-c", "configs/supervisord.conf")
    log = shop.root / "shop.log"
    with Example(shop, sys.executable, "-m", "supervisor.supervisord", *options, log=log) as server:
        server.wait_for_log(patterns.WATCHING)
        saves(server)
        server.wait_for_log("shop: new code or configuration", 2)
        control = [sys.executable, "-m", "supervisor.supervisorctl", *options, "signal", "HUP", "shop"]
        done = subprocess.run(control, cwd=shop.root, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert (done.returncode, done.stdout) == (0, "shop: signalled\n"), done.stderr
        server.wait_for_log("shop: new code or configuration", 3)


@needs_gunicorn
def test_the_procfile(shop: Project) -> None:
    """Procfile: a save is in the web server and in the worker; a broken one in neither."""
    pytest.importorskip("honcho")
    with Example(shop, sys.executable, "-m", "honcho", "-f", "configs/Procfile", "start") as server:
        server.stop_status = 128 + signal.SIGTERM
        server.wait_for_log(f"at work: {shop.version}")
        server.wait_for_log(patterns.WATCHING, 2)
        shop.release()
        server.wait_for_version(shop.version)
        server.wait_for_log(f"at work: {shop.version}")
        good = shop.version
        shop.broken(bottom="import no_such_module")
        server.wait_for_log(patterns.refused("no_such_module"), 2)
        assert server.version() == good and server.count("at work: ") == 2


@needs_gunicorn
def test_the_compose_file(shop: Project) -> None:
    """compose.yaml: its command with its environment serves the folder that is mounted, and saves in it."""
    yaml = pytest.importorskip("yaml")
    (service,) = yaml.safe_load((CONFIGS / "compose.yaml").read_text())["services"].values()
    assert service["working_dir"] == STORY and service["volumes"] == [f"..:{STORY}"]
    environment = service["environment"]
    assert service["ports"] == [f"127.0.0.1:8000:{environment.pop('PORT')}"]
    assert all(isinstance(value, str) for value in environment.values())
    # In a container this folder is nobody else's.
    environment["PYTHONPYCACHEPREFIX"] = str(shop.root / "pycache")
    with Example(shop, *service["command"], environment=environment) as server:
        assert server.count(r"Listening at: http://0\.0\.0\.0:") == 1
        saves(server)
        assert not list((shop.root / "shop").glob("__pycache__"))


# -- what they say ---------------------------------------------------------------------------------------------------


def examples() -> list[str]:
    """All files below `configs/` but the demo's."""
    files = (path.relative_to(CONFIGS) for path in CONFIGS.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if path.parts[0] != "demo" and "__pycache__" not in path.parts)


@pytest.mark.parametrize("name", examples())
def test_each_file_says_what_it_is_for(name: str) -> None:
    """Its first line is a comment: what for, and how it is run; and it is in the table of docs/production.md."""
    first = (CONFIGS / name).read_text().splitlines()[0]
    assert re.fullmatch(rf"[#;] .+: .*{re.escape(Path(name).name)}.*", first)
    assert f"`{name}`" in (CHECKOUT / "docs" / "production.md").read_text()
