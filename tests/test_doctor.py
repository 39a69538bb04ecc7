"""`wsgi-reload doctor`: each trap is found and nothing else, and it is silent about a good set-up. No server is needed."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import py_compile
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from edits import LONG_AGO, PACKAGE_ROOT, date, python, save
from harness import wait_until

from wsgi_reload_hooks import running
from wsgi_reload_hooks.cli import main
from wsgi_reload_hooks.console import Failure
from wsgi_reload_hooks.diagnosis import diagnose
from wsgi_reload_hooks.findings import Finding, some
from wsgi_reload_hooks.invocation import Command, command
from wsgi_reload_hooks.mounts import Mount
from wsgi_reload_hooks.project_checks import System, examine, granted, skew_of
from wsgi_reload_hooks.running import hooks_run
from wsgi_reload_hooks.settings import Settings
from wsgi_reload_hooks.setups import Broken, Gunicorn, Setup, Uwsgi, setup
from wsgi_reload_hooks.uwsgi_options import Unreadable, read

HOOKS = ("--import", "wsgi_reload_hooks.uwsgi_timer")
LIMIT = 30
NOBODY = 65534
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of processes")


def ids(findings: Iterator[Finding]) -> list[str]:
    """Their names; each of them says something, and what to do."""
    found = list(findings)
    assert all(each.where and each.trap and each.fix for each in found)
    return [each.id for each in found]


# -- gunicorn ----------------------------------------------------------------------------------------------------------

DEFAULTS = {"preload_app": False, "reload": False, "backlog": 2048, "chdir": "/srv", "raw_env": [], "config": None}


def gunicorn(hooks: bool = True, **values: Any) -> Gunicorn:
    """A set-up of gunicorn: what is no field is a setting."""
    fields = {field.name for field in dataclasses.fields(Gunicorn)}
    settings = {**DEFAULTS, **{name: value for name, value in values.items() if name not in fields}}
    given = {name: value for name, value in values.items() if name in fields}
    return Gunicorn("command line", "/srv", {}, hooks=hooks, settings=settings, **given)


OFF = Settings.load("/", {"WSGI_RELOAD_ENABLED": "false"})
ALWAYS = Settings.load("/", {"WSGI_RELOAD_SHARE": "always"})
NEVER = Settings.load("/", {"WSGI_RELOAD_SHARE": "never"})
OF_GUNICORN: dict[str, tuple[Gunicorn, dict[str, Any], list[str]]] = {
    "good": (gunicorn(), {}, []),
    "preload": (gunicorn(preload_app=True), {}, []),
    "preload, not Linux": (gunicorn(preload_app=True), {"platform": "darwin"}, ["preload"]),
    "preload that is not shared, not Linux": (
        gunicorn(preload_app=True),
        {"platform": "darwin", "settings": NEVER},
        [],
    ),
    "share, not Linux": (gunicorn(), {"platform": "darwin", "settings": ALWAYS}, ["preload"]),
    "preload, no hooks": (gunicorn(False, preload_app=True), {}, ["hooks-missing", "preload"]),
    "preload, hooks that come later": (gunicorn(False, preload_app=True, hooks_run=True), {}, ["preload"]),
    "no hooks": (gunicorn(False), {}, ["hooks-missing"]),
    "hooks that the application brings": (gunicorn(False, hooks_run=True), {}, []),
    "hooks that do not run": (gunicorn(hooks_run=False), {}, ["hooks-missing"]),
    "hooks switched off": (gunicorn(), {"settings": OFF}, ["hooks-off"]),
    "reload": (gunicorn(reload=True), {}, ["another-reloader"]),
    "reload, no hooks": (gunicorn(False, reload=True), {}, ["hooks-missing", "another-reloader"]),
    "two configurations": (gunicorn(configs=["a.py", "b.py"]), {}, ["two-configurations"]),
    "one configuration, twice": (gunicorn(configs=["a.py", "a.py"]), {}, []),
    "one more in the environment": (
        gunicorn(False, configs=["a.py"], variable_configs=["b.py"]),
        {},
        ["hooks-missing", "two-configurations"],
    ),
    "settings that come too late": (gunicorn(raw_env=["A=1", "WSGI_RELOAD_STEP=1"]), {}, ["raw-env"]),
    "backlog": (gunicorn(backlog=5000), {"somaxconn": 4096}, ["backlog"]),
    "default backlog": (gunicorn(), {"somaxconn": 128}, []),
    "broken": (gunicorn(broken=Broken("a.py, line 1", "NameError")), {}, ["configuration"]),
}


@pytest.mark.parametrize("name", OF_GUNICORN)
def test_traps_of_one_server(name: str) -> None:
    """A set-up of gunicorn: exactly what is wrong with it is found."""
    found, keywords, expected = OF_GUNICORN[name]
    keywords = {"platform": "linux", "settings": Settings(), **keywords}
    assert ids(diagnose(found, **keywords)) == expected


def test_where_a_setting_comes_from() -> None:
    """A finding names the place of the setting, its value, and what is lost."""
    found = gunicorn(reload=True, places={"reload": "gunicorn.conf.py"}, configs=["ours.py", "mine.py"])
    two, reload = diagnose(found, Settings())
    assert reload.where == "gunicorn.conf.py: reload = True"
    assert two.where == "command line: -c ours.py -c mine.py" and "what is in ours.py is lost" in two.trap


# -- uWSGI -------------------------------------------------------------------------------------------------------------

GOOD = ("--master", "--lazy-apps", "-p", "2", "--http-socket", ":0", "--module", "app:app", *HOOKS)


def uwsgi(*words: str, **fields: Any) -> Uwsgi:
    """What ``uwsgi WORDS`` starts."""
    found = setup(Command("uwsgi", (), "/no/such/uwsgi", words), {}, "/")
    assert isinstance(found, Uwsgi)
    return dataclasses.replace(found, **{"files": 1024, **fields})


def without(*names: str) -> list[str]:
    """The good command line, without these words."""
    return [word for word in GOOD if word not in names]


OF_UWSGI: dict[str, tuple[Sequence[str], dict[str, Any], list[str]]] = {
    "good": (GOOD, {}, []),
    "router, lazy": ([*without("--http-socket", ":0"), "--http", ":0"], {}, []),
    "no hooks": (without(*HOOKS), {}, ["hooks-missing"]),
    "hooks for the master only": ([*without(*HOOKS), "--shared-import", HOOKS[1]], {}, ["hooks-missing"]),
    "no master": (without("--master"), {}, ["master"]),
    "a master by another option": ([*without("--master"), "--cheaper", "1"], {}, []),
    "no lazy-apps": (without("--lazy-apps"), {}, ["lazy-apps", "listen"]),
    "no lazy-apps, a long queue": ([*without("--lazy-apps"), "--listen", "1024"], {}, ["lazy-apps"]),
    "router": (
        [*without("--lazy-apps", "--http-socket", ":0"), "--http", ":0", "-l", "1024"],
        {},
        ["lazy-apps", "http-router"],
    ),
    "one worker": (without("-p", "2"), {}, ["one-worker", "listen"]),
    "workers that only uWSGI can count": ([*without("-p", "2"), "-p", "%(a * b)"], {}, []),
    "a queue that the system does not grant": ([*GOOD, "--listen=5000"], {}, ["listen"]),
    "threads": (GOOD, {"version": (2, 0, 20)}, ["threads"]),
    "threads that are asked for": ([*GOOD, "--threads", "2"], {"version": (2, 0, 20)}, []),
    "threads of newer ones": (GOOD, {"version": (2, 0, 27)}, []),
    "py-autoreload": ([*GOOD, "--py-autoreload", "1"], {}, ["another-reloader"]),
    "py-autoreload, off": ([*GOOD, "--py-autoreload", "0"], {}, []),
    "touch-reload": ([*GOOD, "--touch-reload", "a.ini"], {}, ["another-reloader"]),
    "touch-chain-reload": ([*GOOD, "--touch-chain-reload", "a"], {}, ["another-reloader"]),
    "fs-reload": ([*GOOD, "--fs-reload=/a"], {}, ["another-reloader"]),
    "a mule": ([*GOOD, "--mule"], {}, ["apart", "listen"]),
    "a spooler, and many files": ([*GOOD, "-Q", "/a"], {"files": 10**9}, ["apart", "open-files", "listen"]),
    "many files, lazy": (GOOD, {"files": 10**9}, []),
    "need-app": ([*without("--lazy-apps"), "--need-app", "-l", "1024"], {}, ["lazy-apps", "need-app"]),
    "pyuwsgi": (GOOD, {"bound": True}, ["pyuwsgi"]),
    "pyuwsgi that knows": ([*GOOD, "--binary-path", "/venv/bin/python"], {"bound": True}, []),
    "pyuwsgi that is told": ([*without("--lazy-apps"), "-l", "1024"], {"bound": True}, ["lazy-apps"]),
    "broken": (["--ini", "/no/such.ini"], {}, ["configuration"]),
}


@pytest.mark.parametrize("name", OF_UWSGI)
def test_traps_of_the_other_server(name: str) -> None:
    """A set-up of uWSGI: exactly what is wrong with it is found."""
    words, fields, expected = OF_UWSGI[name]
    assert ids(diagnose(uwsgi(*words, **fields), Settings(), somaxconn=4096)) == expected


FILES = {
    "main.ini": """
        [other]
        lazy = true
        [uwsgi]
        ; a comment
        set-ph = count=3
        set-placeholder = count=5
        processes = %(count)
        module = $(MODULE):app
        pidfile = %d%n.pid
        if-env = MODULE
        listen = 7
        endif =
        if-not-env = MODULE
        listen = 8
        endif =
        if-exists = no-such-file
        master = true
        endif =
        strict = no
        ini = :last
        ini = more.ini
        json = options.json
        xml = options.xml
        [last]
        py-import = last
        """,
    "more.ini": "[uwsgi]\npy-import = first\npy-import = second\n",
    "options.json": '{"uwsgi": {"py-import": ["third", "fourth"], "lazy-apps": true, "buffer-size": 5}}',
    "options.xml": "<x><uwsgi><vacuum/><py-import>fifth</py-import></uwsgi></x>",
    "options.yaml": "uwsgi:\n  py-import: a\n  py-import: b\n  master: true\n  env: [A=1, B=2]\n",
    "endless.ini": "[uwsgi]\ninclude = endless.ini\n",
    "plain.ini": "[app:main]\nuse = egg:app\n",
    "broken.json": "{",
    "broken.xml": "<uwsgi>",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with configurations of uWSGI."""
    for name, text in FILES.items():
        save(tmp_path / name, "\n".join(line.strip() if name == "main.ini" else line for line in text.split("\n")))
    return tmp_path


def test_files_of_options(folder: Path) -> None:
    """Sections, placeholders, conditions and files in files mean what they mean to uWSGI; the last value counts."""
    environ = {"MODULE": "shop", "UWSGI_MAX_REQUESTS": "9", "HOME": "/"}
    options = read(["--strict", "-p", "2", "main.ini", "--vacuum"], environ, str(folder))
    values = {name: options.value(name) for name in ("processes", "module", "pidfile", "listen", "max-requests")}
    assert values == {
        "processes": "3",
        "module": "shop:app",
        "pidfile": f"{folder}/main.pid",
        "listen": "7",
        "max-requests": "9",
    }
    assert options.lazy and not options.master and options.find("strict") is None
    assert options.values("py-import") == ["last", "first", "second", "third", "fourth", "fifth"]
    place = options.find("py-import"), options.find("max-requests"), options.find("vacuum")
    assert [each.place for each in place if each] == ["options.xml", "UWSGI_MAX_REQUESTS", "options.xml"]


def test_files_of_options_in_yaml(folder: Path) -> None:
    """YAML is read where a library is, with a name that comes twice."""
    pytest.importorskip("yaml")
    options = read(["--yaml", "options.yaml"], {}, str(folder))
    assert options.master and options.values("py-import") == ["a", "b"] and options.values("env") == ["A=1", "B=2"]


def test_yaml_without_a_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a library one line says so."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(Failure, match="YAML is not read without PyYAML: pip install"):
        read(["options.yaml"], {}, str(folder))


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("no.ini", "No such file"),
        ("plain.ini", "there is no section uwsgi in it"),
        ("main.ini:nosuch", "there is no section nosuch in it"),
        ("endless.ini", "files include each other without end"),
        ("broken.json", "Expecting property name"),
        ("broken.xml", "no element found"),
    ],
)
def test_files_that_cannot_be_read(folder: Path, word: str, why: str) -> None:
    """A file that uWSGI could not read either is told with its name."""
    with pytest.raises(Unreadable, match=why) as error:
        read([word], {}, str(folder))
    assert error.value.place == word.partition(":")[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--unknown-flag", "a.ini"], {"unknown-flag": [""], "ini": ["a.ini"]}),
        (["-M", "-p4", "--processes", "5"], {"master": [""], "processes": ["4", "5"]}),
        (["--ini", "a.ini", "--touch-reload", "a.ini"], {"ini": ["a.ini"], "touch-reload": ["a.ini"]}),
        (["--master", "app.py", "--", "x.wsgi"], {"master": [""], "wsgi-file": ["app.py", "x.wsgi"]}),
        (["--set", "a=b", "--plugin", "%(a)", "--lazy-apps=no"], {"a": ["b"], "plugin": ["b"]}),
    ],
)
def test_words_of_a_command_line(tmp_path: Path, words: list[str], expected: dict[str, list[str]]) -> None:
    """An option takes the word behind it, unless that is a configuration, or the option is a flag."""
    save(tmp_path / "a.ini", "[uwsgi]\nstrict = no\n")
    options = read(words, {}, str(tmp_path))
    assert {name: options.values(name) for name in options.names()} == expected


# -- command lines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "server", "python", "rest"),
    [
        (["gunicorn", "app:app"], "gunicorn", [sys.executable], ["app:app"]),
        (["./bin/gunicorn", "-c", "x"], "gunicorn", [sys.executable], ["-c", "x"]),
        (["PY", "-X", "dev", "-u", "-m", "gunicorn", "a"], "gunicorn", [sys.executable, "-X", "dev", "-u"], ["a"]),
        (["PY", "bin/gunicorn", "a"], "gunicorn", [sys.executable], ["a"]),
        (["gunicorn-3.11", "app:app"], "gunicorn", [sys.executable], ["app:app"]),
        (["uwsgi_python3", "-M"], "uwsgi", [], ["-M"]),
        (["gunicornc", "a"], None, [], []),
        (["bin/uwsgi", "-M"], "uwsgi", [], ["-M"]),
        (["PY", "-m", "pyuwsgi", "-M"], "uwsgi", [sys.executable], ["-M"]),
        (["PY", "-c", "gunicorn"], None, [], []),
        (["PY", "app.py"], None, [], []),
        (["PY", "/x/gunicorn/__main__.py", "a"], "gunicorn", [sys.executable], ["a"]),
        (["PY", "/x/shop/__main__.py", "a"], None, [], []),
        (["PY"], None, [], []),
        ([], None, [], []),
    ],
)
def test_who_is_started(
    tmp_path: Path, words: list[str], server: str | None, python: list[str], rest: list[str]
) -> None:
    """A command line tells the server, and the interpreter that runs it: by the script's first line."""
    for folder in ("", "bin"):
        save(tmp_path / folder / "gunicorn", f"#!{sys.executable}\nimport gunicorn\n").chmod(0o755)
    save(tmp_path / "bin" / "uwsgi", "\x7fELF").chmod(0o755)
    found = command(
        [sys.executable if word == "PY" else word for word in words], {"PATH": str(tmp_path)}, str(tmp_path)
    )
    if found is None:
        assert server is None
        return
    assert (found.server, list(found.python), list(found.words)) == (server, python, rest)


def test_a_script_with_a_long_path(tmp_path: Path) -> None:
    """The first lines that an installer writes where the path is too long for one are understood."""
    text = f"#!/bin/sh\n'''exec' {sys.executable} \"$0\" \"$@\"\n' '''\nimport gunicorn\n"
    save(tmp_path / "gunicorn", text).chmod(0o755)
    found = command(["./gunicorn"], {}, str(tmp_path))
    assert found is not None and found.python == (sys.executable,)


def test_an_interpreter_without_the_server(tmp_path: Path) -> None:
    """Where the interpreter has no gunicorn, or there is no interpreter, one line says so."""
    for program, why in (
        (sys.executable, "cannot import gunicorn"),
        ("/no/such/python", "cannot be run: No such file"),
    ):
        found = command([program, "-I", "-S", "-m", "gunicorn", "app:app"], {}, str(tmp_path))
        assert found is not None
        with pytest.raises(Failure, match=why):
            setup(found, {}, str(tmp_path))


# -- the project and the system ----------------------------------------------------------------------------------------


def system(**fields: Any) -> System:
    """A machine without a fault, but for *fields*."""
    healthy = System([Mount("/", "ext4")], time.time(), lambda folders: (0, ""), lambda folder: 0.0, 4096)
    return dataclasses.replace(healthy, **fields)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one module."""
    save(tmp_path / "shop" / "views.py", "x = 1\n")
    save(tmp_path / "pyproject.toml", "")
    return tmp_path


def examined(
    project: Path, settings: Settings | None = None, source: Path | None = None, **fields: Any
) -> list[Finding]:
    """What speaks against *project*, on a machine with *fields*."""
    found = Setup(
        "command line",
        str(project),
        {},
        application="shop.views:app",
        source=str(source) if source else None,
        watchfiles=True,
    )
    return list(examine(found, settings or Settings(), system(**fields)))


def test_a_healthy_project(project: Path) -> None:
    """Of a project and a machine without a fault nothing is told, whatever lies in the folders of others."""
    py_compile.compile(str(project / "shop" / "views.py"))
    for name in ("node_modules/a.pyc", "venv/pyvenv.cfg", "venv/a.pyc"):
        save(project / name, "")
    asked: list[Sequence[str]] = []

    def grant(folders: Sequence[str]) -> tuple[int, str]:
        asked.append(folders)
        return 0, ""

    assert examined(project, source=project / "shop" / "views.py", grant=grant) == []
    assert asked == ([[str(project / "shop")]] if sys.platform == "linux" else [])


@pytest.mark.parametrize("kind", ["nfs4", "9p", "vboxsf", "fuse.drvfs"])
def test_a_project_on_another_machine(project: Path, kind: str) -> None:
    """A project on a file system that others write to is told, and a clock that differs; no watch is asked for there."""

    def grant(folders: Sequence[str]) -> tuple[int, str]:
        raise AssertionError

    table = [Mount("/", "ext4"), Mount(os.path.realpath(project), kind)]
    (found,) = examined(project, mounts=table, grant=grant)
    assert found.id == "mount" and kind in found.trap and found.where == str(project)
    _, clock = examined(project, mounts=table, grant=grant, skew=lambda folder: -7.4)
    assert clock.id == "clock" and "7 s behind" in clock.trap


def test_files_from_the_future(project: Path) -> None:
    """A file whose time is yet to come is told, with how far."""
    now = date(project / "shop" / "views.py").stat().st_mtime - 3600
    (found,) = examined(project, now=now)
    assert (found.id, found.where) == ("clock", "shop/views.py") and "shop/views.py by 3600 s" in found.trap


@on_linux
def test_watches_that_are_not_granted(project: Path) -> None:
    """A limit of inotify is named, with what it is and what would do; not asked for where nobody listens."""
    save(project / "templates" / "a.html", "")
    settings = Settings(extra_files=("templates/*.html",))
    asked: list[Sequence[str]] = []

    def grant(folders: Sequence[str]) -> tuple[int, str]:
        asked.append(folders)
        return 1, "max_user_watches"

    (found,) = examined(project, settings, grant=grant)
    assert found.id == "inotify" and "1 of 2 folders" in found.trap and "fs.inotify.max_user_watches=" in found.fix
    assert asked == [[str(project / "shop"), str(project / "templates")]]
    assert examined(project, Settings(engine="stat"), grant=grant) == []


@on_linux
def test_watches_are_really_asked_for(project: Path) -> None:
    """The machine grants watches for a few folders; where it grants no listener, the limit is named."""
    assert granted([str(project), str(project / "no such")]) == (0, "")
    code = """
    import resource
    from wsgi_reload_hooks.project_checks import granted
    granted([])
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    print(granted(["/", "/tmp"]))
    """
    assert python(code, project).strip() == "(2, 'max_user_instances')"


def test_the_clock_of_a_folder(project: Path) -> None:
    """A local folder has our clock, and is left as it was; of one that cannot be written to nothing is known."""
    before = sorted(project.iterdir())
    skew = skew_of(str(project))
    assert skew is not None and abs(skew) < 2
    assert sorted(project.iterdir()) == before
    assert skew_of(str(project / "no such")) is None


def test_the_whole_machine_as_a_project() -> None:
    """A server that works in / has everything for its project: told, and not walked through."""
    found = list(examine(Setup("command line", "/", {}), Settings(), system()))
    assert [each.id for each in found] == ["project"] or os.path.exists("/pyproject.toml")


def test_an_application_that_is_not_watched(project: Path) -> None:
    """The application is excluded, lies where packages are installed, or is a copy of what is in the project."""
    views = project / "shop" / "views.py"
    installed = save(project / "venv" / "site-packages" / "shop" / "views.py", "")
    (excluded,) = examined(project, Settings(exclude=("shop/*",)), views)
    assert excluded.id == "outside" and "exclude = 'shop/*'" in excluded.trap and "exclude" in excluded.fix
    (copy,) = examined(project, source=installed)
    assert copy.id == "outside" and "a save of shop changes nothing" in copy.trap and copy.fix == "pip install -e ."
    os.rename(project / "shop", project / "other")
    (third,) = examined(project, source=installed)
    assert third.id == "outside" and "third-party" in third.trap
    assert examined(project, Settings(third_party=True), installed) == []


def test_a_glob_that_lists_nothing(project: Path) -> None:
    """An entry of extra_files that lists no file is told; one for a file that is yet to come is not."""
    settings = Settings(extra_files=("shop/*.py", "static/*.js", "!shop/b*", ".env"))
    (found,) = examined(project, settings)
    assert found.id == "extra-files" and "'static/*.js' lists no file" in found.trap


def compiled(source: Path, mode: py_compile.PycInvalidationMode) -> Path:
    """The byte code of *source*."""
    path = py_compile.compile(str(source), invalidation_mode=mode)
    assert path is not None
    return Path(path)


def test_byte_code_that_is_never_compared(project: Path) -> None:
    """Byte code of the kind that Python never compares with its source is told; the kind that it does is not."""
    source = project / "shop" / "views.py"
    compiled(source, py_compile.PycInvalidationMode.CHECKED_HASH)
    assert examined(project) == []
    path = compiled(source, py_compile.PycInvalidationMode.UNCHECKED_HASH)
    (found,) = examined(project)
    assert found.id == "byte-code" and found.where == f"shop/__pycache__/{path.name}" and "never compares" in found.trap


def test_byte_code_of_the_text_before(project: Path) -> None:
    """A source saved twice in a second with the same size: told where the byte code is of the other text, and only there."""
    source = date(project / "shop" / "views.py", LONG_AGO)
    path = compiled(source, py_compile.PycInvalidationMode.TIMESTAMP)
    date(path, LONG_AGO + 100_000_000)
    date(source, LONG_AGO + 200_000_000)
    assert examined(project) == []
    source.write_text("x = 2\n")
    date(source, LONG_AGO + 200_000_000)
    (found,) = examined(project)
    assert found.id == "byte-code" and "the text of before" in found.trap
    assert python("import shop.views; print(shop.views.x)", project).strip() == "1"
    date(source, LONG_AGO + 1_200_000_000)
    assert examined(project) == []


def test_byte_code_of_another_version(project: Path) -> None:
    """Of byte code that only another Python can read the times decide."""
    source = date(project / "shop" / "views.py", LONG_AGO)
    path = compiled(source, py_compile.PycInvalidationMode.TIMESTAMP)
    other = path.with_name("views.other-1.pyc")
    path.rename(other)
    other.write_bytes(b"\1\2\r\n" + other.read_bytes()[4:])
    date(other, LONG_AGO + 100_000_000)
    assert examined(project) == []
    date(source, LONG_AGO + 200_000_000)
    (found,) = examined(project)
    assert found.id == "byte-code" and found.where == "shop/__pycache__/views.other-1.pyc"


def test_byte_code_without_a_source(project: Path) -> None:
    """Byte code in the place of a source is told where there is no source; what a cache keeps of one is nobody's."""
    source = project / "shop" / "views.py"
    cached = compiled(source, py_compile.PycInvalidationMode.TIMESTAMP)
    beside = project / "shop" / "views.pyc"
    beside.write_bytes(cached.read_bytes())
    save(project / "shop" / "views.cpython-1.pyc", "")
    save(project / "shop" / "cart" / "__init__.py", "")
    save(project / "shop" / "cart.pyc", "")
    assert examined(project) == []
    source.unlink()
    (found,) = examined(project)
    assert found.id == "byte-code" and found.where == "shop/views.pyc" and "without a source" in found.trap


# -- the command -------------------------------------------------------------------------------------------------------

ONE_WORKER = (
    "[uwsgi]\nmaster = true\nlazy-apps = true\nlisten = 1024\nimport = wsgi_reload_hooks.uwsgi_timer\nmodule = a\n"
)
UNCONFIGURED = "where no server is configured; name its pid, or what starts it: wsgi-reload doctor -- gunicorn ..."
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`wsgi-reload doctor WORDS` in the project: exit code, output and error output."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("WSGI_RELOAD_ENGINE", "stat")

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["doctor", *words])
        return (status, *capfd.readouterr())

    return run


def test_silence(run: Run, project: Path) -> None:
    """Of a good set-up one line is said, what was looked at, and the exit code is 0."""
    assert run() == (0, f"nothing found: {project}, {UNCONFIGURED}\n", "")
    assert run("--json") == (0, "[]\n", "")
    save(project / "uwsgi.ini", ONE_WORKER + "processes = 2\n")
    status, output, errors = run()
    assert (
        (status, errors) == (0, "")
        and output.startswith("nothing found that will bite: uWSGI")
        and output.endswith("uwsgi.ini\n")
    )
    assert output.count("\n") == 1


def test_findings(run: Run, project: Path) -> None:
    """A finding is a line with the place and the trap, and one with what to do; the exit code is 1."""
    save(project / "uwsgi.ini", ONE_WORKER + "touch-reload = uwsgi.ini\nprocesses = 2\n")
    trap = "touch-reload is on, too: it reloads all of uWSGI, with code that nobody has tried"
    where = "uwsgi.ini: touch-reload = uwsgi.ini"
    expected = f"{where}: {trap}\n  fix: remove it\n"
    for words in ((), ("uwsgi.ini",), ("file:uwsgi.ini",)):
        assert run(*words)[:2] == (1, expected)
    assert run("--", "uwsgi", "uwsgi.ini")[:2] == (1, expected)
    status, output, errors = run("--json", "uwsgi.ini")
    assert (status, errors) == (1, "")
    assert json.loads(output) == [{"id": "another-reloader", "where": where, "trap": trap, "fix": "remove it"}]


def test_colours(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are for terminals whose user has not said no."""
    save(project / "uwsgi.ini", ONE_WORKER)
    assert "\033" not in run()[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run()[1].startswith("\033[1muwsgi.ini\033[0m: \033[33mone worker")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in run()[1]


def test_wrong_settings(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting is told as the hooks tell it, those that uWSGI sets itself too, and the rest is looked at all the same."""
    save(project / "uwsgi.ini", ONE_WORKER + "processes = 2\nenv = WSGI_RELOAD_STEP=soon\n")
    status, output, _ = run()
    assert status == 1
    assert output.startswith(
        "uwsgi.ini: setting step = 'soon' (from WSGI_RELOAD_STEP): must be seconds, a number above 0"
    )
    save(project / "uwsgi.ini", ONE_WORKER + "env = WSGI_RELOAD_STEPP=1\n")
    assert "unknown setting 'stepp'" in run()[1] and "one worker" in run()[1]


def test_what_a_terminal_would_obey(run: Run, project: Path) -> None:
    """Nothing of what is looked at reaches a terminal as a command."""
    save(
        project / "uwsgi.ini",
        ONE_WORKER + "processes = 2\ntouch-reload = \033]0;x\007\udc80\n".encode("utf-8", "replace").decode(),
    )
    output = run()[1]
    assert "\033" not in output and "\\x1b]0;x\\x07" in output


WRONG = {
    "no such file": (["nosuch.ini"], 1, "nosuch.ini: there is no such file, and it is no number of a process"),
    "another file": (["pyproject.toml"], 2, "pyproject.toml: neither gunicorn's configuration"),
    "two things": (["a", "--", "uwsgi"], 2, "not two of them"),
    "no command": (["--"], 2, "an empty command line: starts neither gunicorn nor uWSGI"),
    "another command": (["--", "ls", "-l"], 2, "ls -l: starts neither gunicorn nor uWSGI"),
    "an option": (["--nosuch"], 2, "unrecognized arguments: --nosuch"),
    "an emperor": (["--", "uwsgi", "--emperor", "/etc"], 1, "an Emperor serves nothing itself"),
    "a kind of file": (
        ["--", "uwsgi", "--config", "a.lua"],
        1,
        "a.lua (from command line): only ini, json, xml and yaml",
    ),
    "another machine": (["--", "uwsgi", "--ini", "http://a/b.ini"], 1, "http://a/b.ini: only files are read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_complaints(run: Run, name: str) -> None:
    """Where it cannot look one line says why: exit code 1, and 2 where the words are wrong."""
    words, status, text = WRONG[name]
    found, output, errors = run(*words)
    assert (found, output) == (status, "") and errors.count("\n") == 1 and text in errors


def test_the_first_few() -> None:
    """A long list is cut."""
    assert some(["a"]) == "a" and some(list("abc")) == "a, b, c" and some(list("abcde")) == "a, b, c and 2 more"


# -- processes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts a process: its number. It ends with the test."""
    began: list[subprocess.Popen[bytes]] = []

    def start(*words: str, **keywords: Any) -> int:
        began.append(subprocess.Popen(words, **{"cwd": tmp_path, **keywords}))
        return began[-1].pid

    yield start
    for each in began:
        each.send_signal(signal.SIGKILL)
        each.wait(LIMIT)


def words_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@on_linux
def test_a_process_that_is_no_server(run: Run, project: Path, start: Callable[..., int]) -> None:
    """Another program, one that has written over its command line, and one that is gone: one line each."""
    pid = start("sleep", "600")
    wait_until(lambda: words_of(pid).startswith(b"sleep"), "sleep runs")
    assert run(str(pid))[::2] == (1, f"wsgi-reload: process {pid} is neither gunicorn nor uWSGI: sleep 600\n")
    renamed = start("gunicorn: master [app:app]", "600", executable="/bin/sleep")
    wait_until(lambda: words_of(renamed).startswith(b"gunicorn"), "the other one runs")
    assert run(str(renamed))[2].startswith(f"wsgi-reload: process {renamed} has written over its command line: name it")
    gone = project / "gone"
    gone.mkdir()
    lost = start("uwsgi", "600", executable="/bin/sleep", cwd=gone)
    wait_until(lambda: words_of(lost).startswith(b"uwsgi"), "it runs")
    gone.rmdir()
    assert run(str(lost))[2] == f"wsgi-reload: process {lost} works in a folder that has been deleted: start it anew\n"
    assert run("4194999")[::2] == (1, "wsgi-reload: there is no process 4194999\n")


@on_linux
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_a_process_of_another_user(tmp_path: Path, start: Callable[..., int]) -> None:
    """Who may not look at it is told so; root looks with the rights of its user, at its configuration, too."""
    code = """
    import os, sys
    from wsgi_reload_hooks.console import Failure
    from wsgi_reload_hooks.running import from_pid
    os.setuid(int(sys.argv[1]))
    try:
        print(from_pid(int(sys.argv[2])).broken, os.getresuid(), os.getgroups())
    except Failure as failure:
        print(failure)
    """
    secret = save(tmp_path / "secret.ini", "[uwsgi]\nmaster = true\n")
    secret.chmod(0o600)
    tmp_path.chmod(0o755)

    def look(user: int, pid: int) -> str:
        words = [sys.executable, "-c", textwrap.dedent(code), str(user), str(pid)]
        environ = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
        done = subprocess.run(
            words, cwd="/", env=environ, capture_output=True, text=True, timeout=LIMIT, check=False, extra_groups=[4242]
        )
        assert done.stderr == ""
        return done.stdout.strip()

    assert look(NOBODY, os.getpid()) == f"process {os.getpid()} cannot be looked at: run this as its user, or as root"
    theirs = start(
        "uwsgi", "600", executable="/bin/sleep", user=NOBODY, extra_groups=[], env={"UWSGI_INI": str(secret)}
    )
    wait_until(lambda: words_of(theirs).startswith(b"uwsgi"), "it runs")
    assert look(0, theirs) == f"secret.ini: Permission denied ({NOBODY}, {NOBODY}, {NOBODY}) []"


_CONTROLLED = """
import os, socket, sys, time
place = f"{sys.argv[2]}/wsgi-reload-hooks-0/{sys.argv[1]}-{os.getpid()}-1"
os.makedirs(place)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
    control.bind(place + "/control")
    time.sleep(600)
"""


@on_linux
def test_who_has_the_hooks(start: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket that the command line reaches it by tells that the hooks run in a server; without one nobody knows at
    first, and then they do not."""
    bare = start("sleep", "600")
    wait_until(lambda: words_of(bare).startswith(b"sleep"), "sleep runs")
    assert hooks_run(bare) is None
    with monkeypatch.context() as later:
        later.setattr(running, "_STARTS_WITHIN", 0.0)
        assert hooks_run(bare) is False
    # A short name: those of sockets are.
    with tempfile.TemporaryDirectory(prefix="wrh-") as folder:
        for kind in ("gunicorn", "uwsgi"):
            server = start(sys.executable, "-c", _CONTROLLED, kind, folder)
            wait_until(functools.partial(hooks_run, server), "the socket is seen")


def test_environments_are_kept_apart(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uWSGI's options in the environment count as those on the command line do."""
    monkeypatch.setenv("UWSGI_PY_AUTORELOAD", "1")
    save(project / "uwsgi.ini", ONE_WORKER + "processes = 2\n")
    assert run()[1].startswith("UWSGI_PY_AUTORELOAD: py-autoreload = 1: py-autoreload is on, too")
