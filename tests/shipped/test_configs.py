"""The demo that ships is run as it stands; the other examples are in test_configs_deploy.py."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from harness import Gunicorn, Project, patterns, wait_until

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RUN = CONFIGS / "demo" / "run.py"
GREETING = 'GREETING = "Hello, world"'
INSTALLING = 120.0


class Demo(Gunicorn):
    """`python run.py ...` behind the same client as gunicorn; `project` is the folder that is edited."""

    def __init__(self, project: Project, *options: str, python: str = sys.executable, script: Path = RUN) -> None:
        super().__init__(project, wait=False)
        self._command = [python, str(script), "--port", "0", *options]

    def __enter__(self) -> Demo:
        super().__enter__()
        return self

    def shows(self, text: str) -> None:
        """Wait until a visitor sees it."""
        wait_until(lambda: text in self.get()[1], f"the page shows {text}")


def demo_project(folder: Path) -> Project:
    shutil.copy(CONFIGS / "demo" / "app.py", folder / "app.py")
    return Project(folder)


def first_minute(server: Demo, name: str) -> None:
    """What the demo promises: a good save, a broken one and its repair."""
    project = server.project
    source = (project.root / "app.py").read_text()
    assert GREETING in source
    server.shows("Hello, world")
    project.save("app.py", source.replace(GREETING, 'GREETING = "A good save"'))
    server.shows("A good save")
    server.wait_for_log(patterns.reloaded(name))
    project.save("app.py", source.replace(GREETING, 'GREETING = "A broken save'))
    line = 1 + source[: source.index(GREETING)].count("\n")
    server.wait_for_log(patterns.refused(rf"{name}, line {line}: SyntaxError"))
    server.shows("A good save")
    project.save("app.py", source.replace(GREETING, 'GREETING = "Its repair"'))
    server.shows("Its repair")
    server.wait_for_log(patterns.reloaded(name), 2)


@pytest.mark.adapters
def test_the_demo_shows_a_good_save_a_broken_one_and_its_repair(tmp_path: Path) -> None:
    """In a folder of one's own; run.py says what to open and what to edit, and two workers answer."""
    project = demo_project(tmp_path)
    with Demo(project, str(tmp_path)) as server:
        server.wait_for_log(rf"open +http://127\.0\.0\.1:{server.port} ")
        server.wait_for_log(r"edit +app\.py ")
        first_minute(server, "app.py")
        server.wait_for_workers(2)


def test_ctrl_c_ends_the_demo(tmp_path: Path) -> None:
    """gunicorn has taken the place of run.py: an interrupt stops all of it, with exit status 0."""
    with Demo(demo_project(tmp_path), str(tmp_path)) as server:
        server.shows("Hello, world")
        known = server.processes()
        server.send(signal.SIGINT)
        assert server.exit_status() == 0
        server.assert_nothing_left(known)
        server.forget()


def test_the_demo_installs_what_it_needs(tmp_path: Path) -> None:
    """README's first command in a fresh clone, on a Python that has nothing: one command, then the first minute.

    The hooks are those of the clone, installed nowhere. The second start installs nothing.
    """
    pytest.importorskip("ensurepip")
    clone = tmp_path / "clone"
    shutil.copytree(CONFIGS, clone / "configs")
    ours = importlib.util.find_spec("wsgi_reload_hooks")
    assert ours is not None and ours.origin is not None
    shutil.copytree(Path(ours.origin).parent, clone / "wsgi_reload_hooks")
    (clone / "pyproject.toml").touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    script = clone / "configs" / "demo" / "run.py"
    project = Project(clone / "configs" / "demo")
    python = str(tmp_path / "bare" / "bin" / "python")
    with Demo(project, python=python, script=script) as server:
        server.wait_for_log(patterns.LISTENING, limit=INSTALLING)
        server.wait_for_log(r"installing gunicorn into .*\.venv-demo")
        first_minute(server, "configs/demo/app.py")
    with Demo(project, python=python, script=script) as server:
        server.shows("Its repair")
        assert server.count("installing") == 0


@pytest.fixture
def run() -> ModuleType:
    """run.py as a module."""
    spec = importlib.util.spec_from_file_location("demo_run", RUN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on, as long as the test runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_in_use_is_told_in_a_line(taken: int) -> None:
    """The port that was asked for is in use: one line says so, another what to do."""
    answer = subprocess.run([sys.executable, RUN, "--port", str(taken)], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr.splitlines() == [
        f"port {taken} is in use",
        "give another one: --port 8080, or --port 0 for any",
    ]


def test_without_a_wish_the_next_free_port_is_taken(
    run: ModuleType, taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Something else on the usual port does not keep a newcomer from the demo."""
    monkeypatch.setattr(run, "PORTS", [taken, 0])
    assert run.choose_port(None) not in (0, taken)
    assert capsys.readouterr().err == f"port {taken} is in use\n"


def test_a_python_without_ensurepip_is_told_in_a_line(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's bare python3: the package to install is named."""
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="apt-get install python3-venv"):
        run.install_gunicorn()


def test_a_folder_without_an_application_is_told_in_a_line(tmp_path: Path) -> None:
    """run.py given the wrong folder."""
    answer = subprocess.run([sys.executable, RUN, tmp_path], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr == f"{tmp_path}: there is no app.py in it\n"
