"""Imports run downwards: the levels of the package's folders, read from the sources."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsgi_reload_hooks

pytestmark = pytest.mark.unit

PACKAGE = Path(wsgi_reload_hooks.__file__).parent
NAME = PACKAGE.name

# A folder imports folders of lower levels only; folders on one level do not import each other.
LEVELS = {
    "core": 0,
    "process": 1,
    "watching": 2,
    "trial": 4,
    "django": 4,
    "control": 4,
    "report": 5,
    "reload": 6,
    "api": 7,
    "gunicorn": 7,
    "uwsgi": 7,
    "script": 7,
    "hup": 7,
    "doctor": 8,
    "cli": 9,
}
TOP = {"__init__", "__main__", "gunicorn_conf", "uwsgi_timer"}
# gunicorn with what its worker classes run on.
OF_GUNICORN = {"gunicorn", "uvicorn", "uvicorn_worker", "tornado", "gevent"}
OF_UWSGI = {"uwsgi", "uwsgidecorators"}
# The probe runs in gunicorn's interpreter; whether gunicorn is installed is the command's to say.
SERVERS_OF = {"gunicorn": OF_GUNICORN, "uwsgi": OF_UWSGI, "doctor": {"gunicorn"}, "cli": {"gunicorn"}}
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def imports(path: Path, package: Path = PACKAGE) -> Iterator[str]:
    """Dotted names of all that the file *path* imports, at any depth of its code; ours begin with the package's name."""
    inside = [NAME, *path.relative_to(package).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def imported_folders(path: Path, package: Path = PACKAGE) -> set[str]:
    """Our folders that the file *path* imports from; top modules by their names."""
    found = [name.split(".") for name in imports(path, package)]
    return {parts[1] for parts in found if parts[0] == NAME and len(parts) > 1}


def test_each_folder_has_its_level() -> None:
    """The table names each folder and no other; at the top lie the faces only."""
    assert set(FOLDERS) == set(LEVELS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP


def test_the_map_shows_each_folder() -> None:
    """The map at the head of the package names each folder once, and none that is not there."""
    shown = re.findall(r"`(\w+)`", wsgi_reload_hooks.__doc__ or "")
    assert sorted(shown) == sorted({*FOLDERS, "gunicorn_conf", "uwsgi_timer"})


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_downwards(folder: str) -> None:
    """A module imports from its own folder and from lower levels only."""
    for path in (PACKAGE / folder).rglob("*.py"):
        others = imported_folders(path) - {folder}
        assert {each for each in others if LEVELS.get(each, 99) >= LEVELS[folder]} == set(), path


@pytest.mark.parametrize("folder", FOLDERS)
def test_adapter_knows_one_server(folder: str) -> None:
    """Only an adapter imports a server, and only its own."""
    for path in (PACKAGE / folder).rglob("*.py"):
        servers = {name.partition(".")[0] for name in imports(path)} & (OF_GUNICORN | OF_UWSGI)
        assert servers <= SERVERS_OF.get(folder, set()), path


@pytest.mark.parametrize("folder", FOLDERS)
def test_private_names_stay_at_home(folder: str) -> None:
    """No module takes a private name from another one."""
    for path in (PACKAGE / folder).rglob("*.py"):
        taken = [name.split(".") for name in imports(path) if name.startswith(NAME)]
        assert [parts for parts in taken if parts[-1].startswith("_") and not parts[-1].endswith("__")] == [], path


def test_public_names_survive_the_import_of_every_module() -> None:
    """No folder or top module bears the name of a public function."""
    names = [
        module.name
        for module in pkgutil.walk_packages(wsgi_reload_hooks.__path__, f"{NAME}.")
        if not module.name.endswith(("_main", "_probe", "uwsgi_timer", "gunicorn_conf", "__main__", "sitecustomize"))
    ]
    assert f"{NAME}.reload.machine" in names
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        "        assert error.name in ('uwsgi', 'gunicorn'), error\n"
        "import wsgi_reload_hooks as w\n"
        "assert w.code_changed() == 0 and callable(w.watch) and callable(w.run_with_reloader)\n"
    )
    subprocess.run([sys.executable, "-c", code, *names], check=True, cwd=PACKAGE.parent)
    assert importlib.import_module(NAME) is wsgi_reload_hooks


def test_table_can_be_read(tmp_path: Path) -> None:
    """The reader of imports sees them however they are spelled and wherever they stand."""
    odd = tmp_path / "reload" / "odd.py"
    odd.parent.mkdir()
    odd.write_text(
        "from . import machine\nfrom ..gunicorn.pool import WorkerPool\nimport wsgi_reload_hooks.uwsgi.worker as w\n"
        "def f():\n    from wsgi_reload_hooks import gunicorn_conf\n    import gunicorn.sock\n"
        "    importlib.import_module('uwsgi')\n"
    )
    assert imported_folders(odd, tmp_path) == {"reload", "gunicorn", "uwsgi", "gunicorn_conf"}
    assert {"gunicorn.sock", "uwsgi"} <= set(imports(odd, tmp_path))
