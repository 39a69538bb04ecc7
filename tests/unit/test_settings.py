"""Settings: where values come from, and what is said about wrong ones."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from edits import save
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tools.settings_page import table

from wsgi_reload_hooks import Settings, SettingsError
from wsgi_reload_hooks.core.settings import FIELDS, project_root

pytestmark = pytest.mark.unit

reads_toml = pytest.mark.skipif(
    all(importlib.util.find_spec(name) is None for name in ("tomllib", "tomli")),
    reason="neither tomllib nor tomli",
)


def complaint(root: Path, environ: dict[str, str] | None = None, **keywords: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load(str(root), environ or {}, **keywords)
    text = str(caught.value)
    assert len(text.splitlines()) == 1, text
    return text


@reads_toml
def test_keyword_environment_pyproject_default(tmp_path: Path) -> None:
    """A keyword wins over the environment, that over pyproject.toml, that over the default."""
    pyproject = save(
        tmp_path / "pyproject.toml", "[tool.wsgi_reload_hooks]\ninterval = 5\nstep = 5\ndebounce = 5\nsurge = 5\n"
    )
    environ = {"WSGI_RELOAD_STEP": "4", "WSGI_RELOAD_DEBOUNCE": "4", "WSGI_RELOAD_BOOT_TIMEOUT": "4"}
    settings = Settings.load(str(tmp_path), environ, debounce=3.0, boot_timeout=3.0)
    assert (settings.interval, settings.step, settings.debounce, settings.boot_timeout) == (5.0, 4.0, 3.0, 3.0)
    assert settings.surge == 5 and settings.broken_start == "wait"
    assert dict(settings.sources) == {
        "interval": str(pyproject),
        "step": "WSGI_RELOAD_STEP",
        "debounce": "keyword",
        "surge": str(pyproject),
        "boot_timeout": "keyword",
    }


def test_defaults_have_no_source(tmp_path: Path) -> None:
    """Without any source all is default, and the sources say so."""
    settings = Settings.load(str(tmp_path), {"PATH": "/bin", "RELOAD_STEP": "x"})
    assert settings == Settings() and not settings.sources


def test_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an environment given, the one of the process counts."""
    monkeypatch.setenv("WSGI_RELOAD_SURGE", "3")
    assert Settings.load(str(tmp_path)).surge == 3


WRONG: list[tuple[str, Any]] = [
    ("enabled", "maybe"),
    ("enabled", 1),
    ("enabled", None),
    ("interval", "fast"),
    ("interval", ""),
    ("interval", 0),
    ("interval", -1.5),
    ("interval", float("nan")),
    ("interval", "nan"),
    ("interval", float("inf")),
    ("interval", True),
    ("interval", None),
    ("interval", [1]),
    ("interval", 10**400),
    ("step", "0"),
    ("debounce", "1,5"),
    ("surge", -1),
    ("surge", 1.0),
    ("surge", "1.5"),
    ("surge", False),
    ("boot_timeout", "soon\nnot"),
    ("broken_start", "explode"),
    ("broken_start", 1),
    ("extra_files", 5),
    ("extra_files", [1]),
    ("extra_files", b"x"),
    ("exclude", None),
    ("exclude", ["a", "!"]),
    ("extra_files", "a, ! ,b"),
    ("warmup", "healthz"),
    ("warmup", ["/good", "http://host:port/"]),
    ("warmup", "ftp://host/"),
    ("on_change", "notify 'shop"),
    ("on_reloaded", " "),
    ("on_refused", "'' shop"),
    ("on_refused", ["notify"]),
    ("metrics_file", "a\0b"),
    ("log_format", "xml"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_value_is_one_line(tmp_path: Path, name: str, value: Any) -> None:
    """A wrong value is told on one line: setting, value, source and what is allowed."""
    text = complaint(tmp_path, **{name: value})
    assert f"setting {name} = {value!r} " in text
    assert "(from keyword)" in text
    assert FIELDS[name].metadata["rule"].allowed in text


@pytest.mark.parametrize(("name", "value"), [pair for pair in WRONG if isinstance(pair[1], str)])
def test_wrong_variable_is_named(tmp_path: Path, name: str, value: str) -> None:
    """A wrong value from the environment names its variable."""
    variable = f"WSGI_RELOAD_{name.upper()}"
    assert f"setting {name} = {value!r} (from {variable}): must be " in complaint(tmp_path, {variable: value})


@reads_toml
def test_pyproject_that_is_no_file(tmp_path: Path) -> None:
    """A FIFO, with and without a writer, and a device with nothing in it set nothing; an endless one is refused."""
    path = tmp_path / "pyproject.toml"
    os.mkfifo(path)
    assert Settings.load(str(tmp_path), {}) == Settings()
    writer = os.open(path, os.O_RDWR)
    assert Settings.load(str(tmp_path), {}) == Settings()
    os.close(writer)
    path.unlink()
    path.symlink_to(os.devnull)
    assert Settings.load(str(tmp_path), {}) == Settings()
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "pyproject.toml is larger than 1048576 bytes" in complaint(tmp_path)


def test_wrong_value_in_pyproject_names_the_file(tmp_path: Path) -> None:
    """A wrong value from pyproject.toml names that file."""
    path = save(tmp_path / "pyproject.toml", '[tool.wsgi_reload_hooks]\ninterval = "x"\n')
    assert f"setting interval = 'x' (from {path}): must be seconds" in complaint(tmp_path)


def test_unknown_names_are_told_with_the_known_ones(tmp_path: Path) -> None:
    """An unknown name is refused wherever it stands, and all known names are listed."""
    assert "unknown setting 'intervall' = 1 (from keyword); known are: " in complaint(tmp_path, intervall=1)
    text = complaint(tmp_path, {"WSGI_RELOAD_NO\nSUCH": "1"})
    assert "'no\\nsuch' = '1'" in text and all(name in text for name in FIELDS)


@reads_toml
def test_unknown_name_in_pyproject(tmp_path: Path) -> None:
    """An unknown name in the table is refused with the path of the file."""
    path = save(tmp_path / "pyproject.toml", "[tool.wsgi_reload_hooks]\nsources = 1\n")
    assert f"unknown setting 'sources' = 1 (from {path})" in complaint(tmp_path)


@reads_toml
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.wsgi_reload_hooks]\ninterval =\n", "is not valid TOML"),
        ("[tool]\nwsgi_reload_hooks = 7\n", "tool.wsgi_reload_hooks in"),
        ("[tool]\nwsgi_reload_hooks.surge = -7\n", "surge = -7"),
        ("tool.wsgi_reload_hooks.surge = -7\n", "surge = -7"),
        ('[ tool . "wsgi_reload_hooks" ]\nsurge = -7\n', "surge = -7"),
    ],
)
def test_broken_table_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    """A table that cannot be read is told on one line with the path of its file, however it is spelled."""
    path = save(tmp_path / "pyproject.toml", text)
    told = complaint(tmp_path)
    assert said in told and str(path) in told


@reads_toml
def test_undecodable_pyproject_is_one_line(tmp_path: Path) -> None:
    """A table in a file that is not UTF-8 is told as such."""
    (tmp_path / "pyproject.toml").write_bytes(b"[tool.wsgi_reload_hooks]\n# \xff\n")
    assert "is not valid TOML" in complaint(tmp_path)


def test_unreadable_pyproject_is_one_line(tmp_path: Path) -> None:
    """A pyproject.toml that cannot be read is told, for settings in it would be lost."""
    (tmp_path / "pyproject.toml").mkdir()
    assert f"{tmp_path / 'pyproject.toml'} cannot be read" in complaint(tmp_path)


def test_old_python_without_toml_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no TOML reader is to be had, one line says what to install or to use instead."""
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    path = save(tmp_path / "pyproject.toml", "[tool.wsgi_reload_hooks]\nsurge = 1\n")
    text = complaint(tmp_path)
    assert text.startswith(f"[tool.wsgi_reload_hooks] in {path} cannot be read by this Python")
    assert "install tomli" in text and "WSGI_RELOAD_*" in text


@pytest.mark.parametrize(
    "text",
    [
        '[project]\ndependencies = ["wsgi_reload_hooks"]\n',
        '[tool.hatch]\npackages = [\n    "wsgi_reload_hooks",\n]\n',
        "# wsgi_reload_hooks is great\n[project]\n",
        "[tool.wsgi_reload_hooks_extra]\nsurge = 7\n",
        "this is no TOML at all",
    ],
)
def test_pyproject_without_the_table_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A pyproject.toml that merely mentions the package needs no TOML reader."""
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    save(tmp_path / "pyproject.toml", text)
    assert Settings.load(str(tmp_path), {}) == Settings()


@pytest.mark.parametrize(
    ("word", "value"), [("1", True), ("Yes", True), (" on ", True), ("0", False), ("OFF", False), ("no", False)]
)
def test_words_for_yes_and_no(tmp_path: Path, word: str, value: bool) -> None:
    """Environment variables have the usual words for yes and no."""
    assert Settings.load(str(tmp_path), {"WSGI_RELOAD_ENABLED": word}).enabled is value


def test_lists_in_the_environment(tmp_path: Path) -> None:
    """A comma separates the names of a list, blanks around them do not count."""
    environ = {"WSGI_RELOAD_EXTRA_FILES": " a.yaml, templates/**/*.html ,,", "WSGI_RELOAD_EXCLUDE": ""}
    settings = Settings.load(str(tmp_path), environ)
    assert settings.extra_files == ("a.yaml", "templates/**/*.html")
    assert settings.exclude == ()


def test_project_root_is_the_nearest_pyproject(tmp_path: Path) -> None:
    """The project starts at the nearest pyproject.toml above, else where one stands."""
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    assert project_root(str(inner)) == str(inner)
    save(tmp_path / "pyproject.toml", "")
    assert project_root(str(inner)) == str(tmp_path)
    save(tmp_path / "a" / "b" / "pyproject.toml", "")
    assert project_root(str(inner)) == str(tmp_path / "a" / "b")


def test_settings_do_not_change() -> None:
    """Settings are read-only values."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().surge = 3  # type: ignore[misc]


def test_table_has_each_setting() -> None:
    """The Markdown table has one row for each setting, with its variable."""
    rows = table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(FIELDS)
    assert all(row.split("`")[3] == "WSGI_RELOAD_" + name.upper() for row, name in zip(rows, FIELDS, strict=False))


@hypothesis_settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(FIELDS)), value=st.text() | st.integers() | st.floats() | st.none() | st.binary())
def test_any_value_is_taken_or_refused_on_one_line(tmp_path: Path, name: str, value: Any) -> None:
    """Whatever the value, it is either used as the type of its setting or refused on one line."""
    told = ""
    try:
        used = getattr(Settings.load(str(tmp_path), {}, **{name: value}), name)
    except SettingsError as error:
        told = str(error)
    assert len(told.splitlines()) == 1 if told else type(used) is type(FIELDS[name].default)
