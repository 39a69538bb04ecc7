"""What a user installs."""

from __future__ import annotations

import email
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from harness import HAVE_UWSGI, MODULE, PACKAGE, Gunicorn, Project, Uwsgi, patterns

import wsgi_reload_hooks

CHECKOUT = Path(__file__).resolve().parents[2]
README = CHECKOUT / "README.md"
DEMO = "python3 configs/demo/run.py"
TESTS = "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox run"
LINE = "import wsgi_reload_hooks.gunicorn_conf"
UWSGI_COMMAND = (
    "uwsgi --master --lazy-apps --http-socket 127.0.0.1:8000 --processes 4 --module app:app "
    "--import wsgi_reload_hooks.uwsgi_timer"
)
UWSGI_LINE = "import = wsgi_reload_hooks.uwsgi_timer"
needs_uwsgi = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")

IMPORT = """
import signal, sys, threading
before = signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGTERM), list(sys.meta_path)
import {module}
assert threading.active_count() == 1, threading.enumerate()
assert (signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGTERM), list(sys.meta_path)) == before
servers = {{"gunicorn", "uwsgi", "uwsgidecorators", "gevent", "tornado", "uvicorn"}} & set(sys.modules)
assert not servers, servers
"""


class Installed(Gunicorn):
    """A gunicorn of another environment; the checkout is not on its path."""

    def __init__(self, python: Path, project: Project, *, workers: int = 2) -> None:
        super().__init__(project, workers=workers, configuration=MODULE)
        self._command[0] = str(python)
        self._environment.pop("PYTHONPATH", None)


class AsDocumented(Uwsgi):
    """README's command for uWSGI, with a free port; what it imports is not on its path unless it is in the project."""

    def __init__(self, project: Project, *options: str) -> None:
        super().__init__(project, wait=False)
        words = shlex.split(UWSGI_COMMAND.replace(":8000", f":{self._port}"))
        self._command = [self._command[0], *words[1:], *options]
        self._environment.pop("PYTHONPATH", None)

    def __enter__(self) -> AsDocumented:
        super().__enter__()
        return self


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints; a failing one's words are shown."""
    answer = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, CHECKOUT)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with gunicorn and the wheel, as a user makes it."""
    pytest.importorskip("ensurepip")
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "gunicorn", wheel)
    return python


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """The wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module and py.typed; no test, no example, no cache."""
    package = CHECKOUT / "wsgi_reload_hooks"
    expected = {
        path.relative_to(CHECKOUT).as_posix() for path in package.rglob("*") if path.suffix in (".py", ".typed")
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    information = {name for name in names if ".dist-info/" in name}
    assert names - information == expected
    assert "wsgi_reload_hooks/py.typed" in names
    assert {name.partition(".dist-info/")[2] for name in information} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_needs_nothing(metadata: Message) -> None:
    """Name, licence and Python as promised, and no dependency at run time."""
    assert metadata["Name"] == "wsgi-reload-hooks"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.10"
    extras = [each.partition(";")[2].strip() for each in metadata.get_all("Requires-Dist", [])]
    assert sorted(extras) == [f"extra == {each!r}" for each in ("completion", "patterns", "serve", "watchfiles")]
    assert "# " in str(metadata.get_payload())


@pytest.mark.parametrize("site", [(), ("-S",)], ids=["servers installed", "no server installed"])
@pytest.mark.parametrize("module", ["wsgi_reload_hooks", "wsgi_reload_hooks.gunicorn_conf"])
def test_an_import_starts_nothing(wheel: Path, module: str, site: tuple[str, ...], tmp_path: Path) -> None:
    """No thread, no signal handler, no import hook, no server imported or needed, nothing said."""
    code = f"import sys; sys.path.insert(0, {str(wheel)!r})\n" + IMPORT.format(module=module)
    assert run(sys.executable, "-I", *site, "-X", "dev", "-c", code, cwd=tmp_path) == ""


@pytest.mark.adapters
def test_the_package_is_typed() -> None:
    """py.typed lies where a type checker looks for it."""
    assert Path(wsgi_reload_hooks.__file__).with_name("py.typed").is_file()


@pytest.mark.adapters
@pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="tox installs the wheel, a checkout does not")
def test_the_suite_runs_against_the_wheel() -> None:
    """Under tox what is tested is what ships."""
    assert Path(wsgi_reload_hooks.__file__).parents[1].name == "site-packages"


def test_from_the_wheel_a_save_is_served_and_a_broken_one_refused(python: Path, project: Project) -> None:
    """pip install, `-c python:wsgi_reload_hooks.gunicorn_conf`, and nothing more."""
    with Installed(python, project) as server:
        server.wait_for_log(patterns.WATCHING)
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_log(patterns.reloaded(r"app\.py"))
        project.broken(bottom="import no_such_module")
        server.wait_for_log(patterns.refused("no_such_module"))
        assert server.version() == project.version
        project.release()
        server.wait_for_version(project.version)


def a_save_is_served_and_a_broken_one_refused(server: AsDocumented) -> None:
    project = server.project
    server.wait_for_log(patterns.WATCHING)
    project.release()
    server.wait_for_version(project.version)
    server.wait_for_log(patterns.reloaded(r"app\.py"))
    good = project.version
    project.broken(bottom="import no_such_module")
    server.wait_for_log(patterns.refused("no_such_module"))
    assert server.version() == good
    project.release()
    server.wait_for_version(project.version)
    server.wait_for_log(patterns.reloaded(r"app\.py"), 2)


@needs_uwsgi
def test_under_uwsgi_from_a_checkout(project: Project) -> None:
    """README's command in a folder that has the package and the application, installed nowhere."""
    shutil.copytree(PACKAGE, project.root / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    with AsDocumented(project) as server:
        a_save_is_served_and_a_broken_one_refused(server)


@needs_uwsgi
def test_under_uwsgi_from_the_wheel(wheel: Path, project: Project, tmp_path: Path) -> None:
    """README's command with an environment that has the wheel and nothing else."""
    pytest.importorskip("ensurepip")
    run(sys.executable, "-m", "venv", tmp_path / "fresh")
    run(tmp_path / "fresh" / "bin" / "python", "-m", "pip", "install", "-q", wheel)
    with AsDocumented(project, "--virtualenv", str(tmp_path / "fresh")) as server:
        a_save_is_served_and_a_broken_one_refused(server)


@pytest.mark.adapters
def test_what_the_readme_says_is_what_is_tested() -> None:
    """Its first command is the demo that test_configs.py runs, its second the line of .ci/run; its one line for a
    configuration of one's own is that of the realistic file; so with uWSGI."""
    text = README.read_text()
    assert DEMO in text
    assert TESTS in text
    assert TESTS in (CHECKOUT / ".ci" / "run").read_text()
    assert LINE in text.splitlines()
    assert LINE in (CHECKOUT / "configs" / "gunicorn" / "production.conf.py").read_text().splitlines()
    assert UWSGI_COMMAND in text.splitlines()
    assert UWSGI_LINE in text.splitlines()
    assert UWSGI_LINE in (CHECKOUT / "configs" / "uwsgi" / "production.ini").read_text().splitlines()
