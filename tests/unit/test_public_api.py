"""What a user imports, and what importing it does: nothing."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path

import pytest
from edits import PACKAGE_ROOT, python

import wsgi_reload_hooks

pytestmark = pytest.mark.unit


def test_names() -> None:
    """The promised names are there, and no others are promised."""
    assert set(wsgi_reload_hooks.__all__) >= {
        "FILE_MODIFIED", "I18N_MODIFIED", "Settings", "SettingsError", "code_changed", "watch",
    }  # fmt: skip
    assert all(hasattr(wsgi_reload_hooks, name) for name in wsgi_reload_hooks.__all__)
    assert sorted(wsgi_reload_hooks.__all__) == wsgi_reload_hooks.__all__


def test_answers_are_true_and_differ() -> None:
    """The two answers of `code_changed()` are true and can be told apart."""
    assert wsgi_reload_hooks.FILE_MODIFIED and wsgi_reload_hooks.I18N_MODIFIED
    assert wsgi_reload_hooks.FILE_MODIFIED != wsgi_reload_hooks.I18N_MODIFIED


@pytest.mark.parametrize("name", ["Settings", "SettingsError", "watch", "code_changed"])
def test_names_are_documented(name: str) -> None:
    """Each public function and class has a docstring."""
    assert inspect.getdoc(getattr(wsgi_reload_hooks, name))


def test_typed() -> None:
    """The package says that it is typed."""
    assert (Path(wsgi_reload_hooks.__file__).parent / "py.typed").exists()


def test_version() -> None:
    """The version is that of the distribution."""
    pyproject = PACKAGE_ROOT / "pyproject.toml"
    if not pyproject.exists():
        pytest.skip("not a checkout")
    found = re.search(r'^version = "(.+)"$', pyproject.read_text(), re.MULTILINE)
    assert found is not None and found[1] == wsgi_reload_hooks.__version__


def test_import_starts_nothing(tmp_path: Path) -> None:
    """Importing the package imports no server, starts no thread and no process, and puts no hook anywhere."""
    code = """
    import os, signal, sys, threading
    state = lambda: (list(sys.meta_path), list(sys.path_hooks), list(sys.path), dict(os.environ), os.listdir("/dev/fd"),
                     [signal.getsignal(each) for each in signal.valid_signals()], sys.excepthook, os.getcwd(),
                     threading.enumerate())
    before = state()
    import wsgi_reload_hooks
    assert state() == before
    servers = {"gunicorn", "uwsgi", "uvicorn", "tornado", "gevent", "django"}
    print(sorted({name.partition(".")[0] for name in sys.modules} & servers))
    """
    assert python(code, tmp_path, preamble="import inspect, json\n") == "[]"


def test_import_is_quick(tmp_path: Path) -> None:
    """Importing the package loads nothing heavy."""
    code = """
    import sys, wsgi_reload_hooks
    print(sorted({"asyncio", "subprocess", "multiprocessing", "logging", "tomllib", "socket", "http"} & set(sys.modules)))
    """
    assert python(code, tmp_path, preamble="") == "[]"


def test_no_warnings_at_import(tmp_path: Path) -> None:
    """All sources compile without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in Path(wsgi_reload_hooks.__file__).parent.rglob("*.py"):
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
