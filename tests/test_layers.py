"""Imports run downwards: the table of layers, read from the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsgi_reload_hooks

PACKAGE = Path(wsgi_reload_hooks.__file__).parent
NAME = PACKAGE.name

# A module may import from lower layers only. The core knows no server; an adapter knows the core and one server.
CORE = {
    "lines": 0,
    "console": 1,
    "settings": 0,
    "proof": 0,
    "native": 0,
    "subreaper": 0,
    "gitignore": 0,
    "private": 0,
    "control": 1,
    "generation": 0,
    "files": 1,
    "scanner": 2,
    "reports": 2,
    "frameworks": 0,
    "warmup": 0,
    "gate": 2,
    "imports": 3,
    "checkout": 2,
    "django_assets": 2,
    "mounts": 2,
    "pidfile": 2,
    "ear": 2,
    "hearing": 3,
    "interest": 3,
    "engines": 4,
    "watcher": 5,
    "reloader": 3,
    "journal": 3,
    "classic": 4,
    "watchlist": 4,
    "assets": 4,
    "record": 0,
    "systemd": 2,
    "metrics": 4,
    "rehearsal": 3,
    "callbacks": 4,
    "announce": 5,
    "chronicle": 5,
    "stage": 4,
    "desk": 4,
    "terminal": 0,
    "sockets": 0,
    "guard": 1,
    "supervised": 4,
    "child": 5,
    "trial": 5,
    "supervisor": 6,
    "scripts": 7,
    "__init__": 8,
}
GUNICORN = {
    "gunicorn_log": 7,
    "lameduck": 7,
    "configuration": 7,
    "lookout": 7,
    "worker": 8,
    "zygote": 9,
    "crew": 10,
    "gunicorn_clerk": 11,
    "offspring": 12,
    "arbiter": 13,
    "attach": 14,
    "gunicorn_conf": 15,
    # Run by the doctor in gunicorn's interpreter.
    "interview": 7,
}
UWSGI = {
    "bell": 7,
    "ledger": 7,
    "uwsgi_server": 7,
    "targets": 7,
    "station": 8,
    "departure": 8,
    "uwsgi_checks": 8,
    "roll": 9,
    "leader": 10,
    "uwsgi_attach": 11,
    "uwsgi_timer": 12,
}
# The command line and what it starts: it uses the core; `serve` becomes gunicorn.
COMMANDS = {
    "surroundings": 9,
    "outside": 10,
    "reach": 10,
    "status": 11,
    "reload": 11,
    "resume": 12,
    "pause": 11,
    "explain": 11,
    "command_line": 7,
    "process_checks": 8,
    "project_checks": 8,
    "gunicorn_setup": 9,
    "doctor": 11,
    "run": 11,
    "serve": 11,
    "hup": 11,
    "check": 11,
    "cli": 13,
    "__main__": 14,
}
# What is known of a server and needs none: for its adapter and for the command line, not for the core.
FACTS = {"findings": 2, "gunicorn_checks": 3, "uwsgi_traps": 0}
LAYERS = {**CORE, **GUNICORN, **UWSGI, **COMMANDS, **FACTS}
# gunicorn with what its worker classes run on.
OF_GUNICORN = {"gunicorn", "uvicorn", "uvicorn_worker", "tornado", "gevent"}
SERVERS = OF_GUNICORN | {"uwsgi", "uwsgidecorators", "werkzeug"}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def imports(module: str) -> Iterator[str]:
    """Dotted names of all that *module* imports, at any depth of its code; ours begin with the package's name."""
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1
            base = ".".join(filter(None, [NAME if node.level else "", node.module]))
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def ours(module: str) -> set[str]:
    """Our modules that *module* imports; what the package has by another name is `__init__`'s."""
    found = [name.split(".") for name in imports(module)]
    names = {parts[1] for parts in found if parts[0] == NAME and len(parts) > 1}
    return {name if name in MODULES else "__init__" for name in names}


def test_each_module_has_its_layer() -> None:
    """The table names each module of the package and no other."""
    assert set(MODULES) == set(LAYERS)


def test_the_map_shows_each_module() -> None:
    """The map at the head of the package names each module once, and none that is not there."""
    shown = re.findall(r"`(\w+)`", wsgi_reload_hooks.__doc__ or "")
    assert sorted(shown) == sorted(set(MODULES) - {"__init__"})


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    """A module imports our modules of lower layers only."""
    assert {name for name in ours(module) if LAYERS[name] >= LAYERS[module]} == set()


@pytest.mark.parametrize("module", sorted(CORE))
def test_core_knows_no_adapter_and_no_server(module: str) -> None:
    """A module of the core imports neither an adapter nor a server."""
    assert ours(module) <= set(CORE)
    assert {name.partition(".")[0] for name in imports(module)} & SERVERS == set()


@pytest.mark.parametrize("module", sorted(FACTS))
def test_facts_need_no_server(module: str) -> None:
    """What is known of a server can be read without it, and without an adapter."""
    assert ours(module) <= {*CORE, *FACTS}
    assert {name.partition(".")[0] for name in imports(module)} & SERVERS == set()


@pytest.mark.parametrize("module", sorted(GUNICORN))
def test_adapter_knows_one_server(module: str) -> None:
    """The gunicorn adapter imports gunicorn and what its workers run on, and no other server."""
    assert {name.partition(".")[0] for name in imports(module)} & SERVERS <= OF_GUNICORN


@pytest.mark.parametrize("module", sorted(COMMANDS))
def test_commands_know_no_adapter(module: str) -> None:
    """The command line imports the core, not what runs inside a server; `serve` asks gunicorn what it would load."""
    assert ours(module) <= {*CORE, *COMMANDS, *FACTS}
    assert {name.partition(".")[0] for name in imports(module)} & SERVERS <= (
        {"gunicorn"} if module == "serve" else set()
    )


@pytest.mark.parametrize("module", MODULES)
def test_private_names_stay_at_home(module: str) -> None:
    """No module takes a private name from another one."""
    taken = [name.split(".") for name in imports(module) if name.startswith(NAME)]
    assert [parts for parts in taken if parts[-1].startswith("_") and not parts[-1].endswith("__")] == []


def test_table_can_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The reader of imports sees them however they are spelled and wherever they stand."""
    (tmp_path / "odd.py").write_text(
        "from . import arbiter\nfrom .crew import Crew\nimport wsgi_reload_hooks.worker as w\n"
        "def f():\n    from wsgi_reload_hooks import journal\n    import gunicorn.sock\n    importlib.import_module('uwsgi')\n"
    )
    monkeypatch.setattr("test_layers.PACKAGE", tmp_path)
    assert ours("odd") == {"arbiter", "crew", "worker", "journal"}
    assert {"gunicorn.sock", "uwsgi"} <= set(imports("odd"))
