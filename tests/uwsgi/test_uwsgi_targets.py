"""What uWSGI loads, told by its options: parsed alone, and compared with what a real uWSGI does."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from edits import PACKAGE_ROOT, save

from wsgi_reload_hooks.trial.plan import Target
from wsgi_reload_hooks.uwsgi.targets import NoInterpreter, interpreter, pythonized, targets

pytestmark = pytest.mark.unit

# The one of this environment, and no other.
UWSGI = shutil.which("uwsgi", path=os.path.dirname(sys.executable))
needs_uwsgi = pytest.mark.skipif(UWSGI is None, reason="no uwsgi in this environment")
# pyuwsgi's is a script that an ordinary interpreter runs.
needs_binary = pytest.mark.skipif(
    UWSGI is None or Path(UWSGI).read_bytes().startswith(b"#!"), reason="no uwsgi that is a program of its own"
)


def of_module(name: str, attribute: str = "application", call: bool = False, room: int = 0) -> Target:
    """The target of a module."""
    return Target("module", name, attribute, call, table="applications", room=room)


def of_file(name: str, alias: str, attribute: str = "application", room: int = 0) -> Target:
    """The target of a file."""
    return Target("file", name, attribute, alias=alias, room=room)


# -- from the options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({"module": b"app"}, of_module("app")),
        ({"wsgi": b"pkg.app:site"}, of_module("pkg.app", "site")),
        ({"module": b"app:create()"}, of_module("app", "create", True)),
        ({"module": b"app", "callable": b"create()"}, of_module("app", "create", True)),
        ({"module": b"app:one", "callable": b"two"}, of_module("app", "one")),
        ({"module": [b"old:one", b"app:two"]}, of_module("app", "two")),
        ({"module": b"old", "wsgi": b"new"}, of_module("new")),
        ({"wsgi-file": b"app.py"}, of_file("app.py", "uwsgi_file_app")),
        (
            {"file": b"/srv/my.site/wsgi.py", "callable": b"x"},
            of_file("/srv/my.site/wsgi.py", "uwsgi_file__srv_my_site_wsgi", "x"),
        ),
        ({"wsgi-file": b"app.wsgi"}, of_file("app.wsgi", "uwsgi_file_app_wsgi")),
        ({"paste": b"config:/srv/x.ini#main"}, Target("paste", "config:/srv/x.ini#main")),
        ({"ini-paste": b"/srv/x.ini"}, Target("paste", "config:/srv/x.ini")),
        ({"ini-paste-logged": b"/srv/x.ini"}, Target("paste", "config:/srv/x.ini")),
        ({"pecan": b"config.py"}, Target("pecan", "config.py")),
        ({"eval": b"x = 1"}, Target("code", "x = 1", "application", alias="uwsgi_eval_config")),
        ({"wsgi-lite": b"app:app"}, of_module("app", "app")),
        ({"web3": b"app"}, of_module("app")),
        ({"pump": b"app"}, of_module("app")),
        ({"wsgi-file": b"second.py", "module": b"first"}, of_module("first")),
    ],
    ids=str,
)
def test_one_application(options: Mapping[str, Any], target: Target) -> None:
    """Each way to name the application gives the target that uWSGI would load."""
    assert targets(options) == ((target,), [])


@pytest.mark.parametrize(
    ("what", "target"),
    [
        (b"/x=app.py", of_file("app.py", "uwsgi_file_app")),
        (b"/x=app.wsgi", of_file("app.wsgi", "uwsgi_file_app_wsgi")),
        (b"/x=app:create()", of_module("app", "create", True)),
        (b"/x=config:/srv/x.ini", Target("paste", "config:/srv/x.ini")),
        (b"/x=y=app:app", of_module("y=app", "app")),
    ],
)
def test_one_mount(what: bytes, target: Target) -> None:
    """Each form of a mount gives the target that uWSGI would load."""
    assert targets({"mount": what}) == ((target,), [])


def test_mounts_have_interpreters_of_their_own() -> None:
    """All applications but the first have a sub-interpreter, unless uWSGI is told otherwise."""
    options = {"module": b"app", "mount": b"/x=app.py"}
    first, second = of_module("app"), of_file("app.py", "uwsgi_file_app", room=1)
    assert targets(options) == ((first, second), [])
    assert [each.room for each in targets({**options, "single-interpreter": True})[0]] == [0, 0]


def test_mount_point_that_is_taken() -> None:
    """A mount point that is taken already is skipped, as uWSGI does."""
    assert targets({"module": b"app", "mount": b"=c:app"}) == ((of_module("app"),), [])
    assert targets({"mount": b"/x=a:app", "worker-mount": b"/x=b:app"}) == ((of_module("a", "app"),), [])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "no option names an application: new code is compiled, but not tried"),
        ({"mount": b"/x=site.psgi"}, "mount /x=site.psgi: this is not known to be Python, and is not tried"),
        ({"file": b"sym://app"}, "sym://app is no file, and is not tried"),
        (
            {"vhost": True},
            "vhost is set: applications are loaded at their first request, and that cannot be tried",
        ),
        ({"python-raw": b"a.py"}, "python-raw is set: it answers raw requests, and that cannot be tried"),
    ],
)
def test_what_is_not_known(options: Mapping[str, Any], complaint: str) -> None:
    """What cannot be known or rehearsed is said in one line."""
    assert targets(options)[1] == [complaint]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app.py", "app"),
        ("./a/app.py", "__a_app"),
        ("a_py", "a"),
        ("sym://app.py", "app"),
        ("http://host/app.py", "host_app"),
        ("x.wsgi", "x_wsgi"),
        ("pkg", "pkg"),
    ],
)
def test_names_of_files(name: str, expected: str) -> None:
    """Files get uWSGI's names in `sys.modules`."""
    assert pythonized(name) == expected


# -- the interpreter -------------------------------------------------------------------------------------------------


def test_interpreter_of_an_ordinary_process() -> None:
    """The interpreter is one with the version and the prefix of this process."""
    (path,) = interpreter()
    code = "import sys; print(sys.prefix, sys.version_info[:2])"
    assert subprocess.check_output([path, "-c", code], text=True).split(" ", 1) == [
        sys.prefix,
        f"{sys.version_info[:2]}\n",
    ]


def test_no_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is none, or none that works, the error is one line that says what to set."""
    for name in ("prefix", "exec_prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    monkeypatch.setattr(sys, "executable", "")
    for _ in range(2):
        with pytest.raises(
            NoInterpreter, match=r"^no interpreter for Python 3\.\d+ in .*set `virtualenv` \(or `home`\)"
        ):
            interpreter()
        save(tmp_path / "bin" / "python3", "#!/bin/sh\nexit 3\n").chmod(0o755)


# -- a real uWSGI ----------------------------------------------------------------------------------------------------

HOOK = """
import json, os, sys, uwsgi
sys.path.append(PACKAGE)
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.trial.trial import Plan, run_trial
from wsgi_reload_hooks.core.settings import Settings
from wsgi_reload_hooks.uwsgi.targets import interpreter, targets
sys.path.remove(PACKAGE)
import wsgi_reload_hooks.uwsgi.targets
every = wsgi_reload_hooks.uwsgi.targets._candidates
wsgi_reload_hooks.uwsgi.targets._candidates = lambda: (each for each in every() if each[-1].endswith(ONLY))
found, complaints = targets(uwsgi.opt)
command = interpreter()
plan = Plan(command, tuple(sys.path), os.getcwd(), os.getcwd(), found, os.environ, {"uwsgi": {}}, tuple(sys.argv))
outcome = run_trial(plan, Files(Settings(), os.getcwd()), 30)
note = {"complaints": complaints, "command": command, "refused": outcome.refused and vars(outcome.refused), "prefix": sys.prefix}
with open("note.json", "w") as file:
    json.dump(note, file)
"""
# What has loaded it writes down as what: the rehearsal and the live process must agree.
APP = """
import os
with open("rehearsed" if "WSGI_TRIAL" in os.environ else "live", "a") as file:
    print(__name__, __file__, file=file)
def application(environ, start_response): return []
def create(): return application
app = site = application
"""
PASTE = "[uwsgi]\nneed-app = true\n[app:main]\nuse = call:fac:make\n"


def run(folder: Path, *options: str, only: str = "", **environ: str) -> dict[str, Any]:
    """Let a uWSGI load its applications and end; what the hook found out before that."""
    assert UWSGI is not None
    save(folder / "hook.py", HOOK.replace("PACKAGE", repr(str(PACKAGE_ROOT))).replace("ONLY", repr(only)))
    save(folder / "app.py", APP)
    save(folder / "pkg" / "other.py", APP)
    save(folder / "fac.py", "import app\ndef make(*a, **k): return app.app\n")
    command = [UWSGI, "--need-app", "--no-server", "--socket", str(folder / "s"), "--import", "hook", *options]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("UWSGI_", "PYTHOND"))}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**inherited, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    assert (folder / "note.json").exists(), done.stdout
    note: dict[str, Any] = json.loads((folder / "note.json").read_text())
    note["log"] = done.stdout
    return note


def names(path: Path) -> list[str]:
    """What was loaded as what."""
    return sorted(path.read_text().splitlines())


WAYS: list[tuple[list[str], dict[str, str], str]] = [
    (["--module", "app"], {}, ""),
    (["--wsgi", "app:app"], {}, ""),
    (["-w", "app:create()"], {}, ""),
    (["--module", "pkg.other", "--callable", "site"], {}, ""),
    (["--wsgi-file", "app.py"], {}, ""),
    (["--file", "./pkg/other.py", "--callable", "site"], {}, ""),
    (["--eval", "from app import application"], {}, ""),
    (["--wsgi-lite", "app:app"], {}, ""),
    (["--mount", "/=app.py", "--manage-script-name"], {}, ""),
    (["--module", "app", "--mount", "/c=pkg.other:app"], {}, ""),
    (["--module", "app", "--mount", "/c=pkg/other.py", "--single-interpreter"], {}, ""),
    (["--module", "app", "--wsgi-file", "pkg/other.py"], {}, ""),
    (["--ini", "site.cfg"], {}, "[uwsgi]\nbase = %d\nmount = /b=%(base)$(THERE)/other.py\nmodule = app\n"),
    (["--yaml", "site.cfg"], {}, "uwsgi:\n  wsgi-file: app.py\n  callable: app\n"),
    ([], {"UWSGI_MODULE": "app:app"}, ""),
    ([], {"UWSGI_WSGI_FILE": "app.py", "UWSGI_CALLABLE": "site"}, ""),
    ([], {"UWSGI_INI": "site.cfg"}, "[uwsgi]\nwsgi-file = app.py\n"),
]


@needs_uwsgi
@pytest.mark.parametrize(("options", "environ", "text"), WAYS, ids=lambda value: "")
def test_every_way_to_name_it(tmp_path: Path, options: list[str], environ: dict[str, str], text: str) -> None:
    """However the applications are named, the rehearsal loads the same as uWSGI, under the same names."""
    save(tmp_path / "site.cfg", text)
    note = run(tmp_path, *options, THERE="pkg", **environ)
    assert (note["refused"], note["complaints"]) == (None, [])
    assert names(tmp_path / "live") == names(tmp_path / "rehearsed"), note["log"]


@needs_uwsgi
@pytest.mark.parametrize("options", [[], ["--single-interpreter"]], ids=["several", "single"])
def test_only_the_last_of_several_mounts_is_rehearsed(tmp_path: Path, options: list[str]) -> None:
    """uWSGI loads all mounts; the rehearsal loads the last one, the only value that `uwsgi.opt` has."""
    note = run(tmp_path, "--mount", "/a=app:app", "--mount", "/b=app.py", "--mount", "/c=pkg.other:app", *options)
    assert (note["refused"], note["complaints"]) == (None, [])
    assert len(names(tmp_path / "live")) == 3, note["log"]
    assert names(tmp_path / "rehearsed") == [f"pkg.other {tmp_path / 'pkg' / 'other.py'}"]


@needs_uwsgi
@pytest.mark.skipif(importlib.util.find_spec("paste") is None, reason="no paste.deploy in this environment")
@pytest.mark.parametrize("option", ["--paste", "--ini-paste"])
def test_paste(tmp_path: Path, option: str) -> None:
    """Applications of paste.deploy are rehearsed, too."""
    path = save(tmp_path / "site.ini", PASTE)
    note = run(tmp_path, option, f"config:{path}" if option == "--paste" else "site.ini")
    assert (note["refused"], note["complaints"]) == (None, [])
    assert names(tmp_path / "live") == names(tmp_path / "rehearsed"), note["log"]


@needs_uwsgi
def test_interpreter_of_uwsgi(tmp_path: Path) -> None:
    """uWSGI's `sys.executable` is uWSGI; the interpreter is that of the environment."""
    note = run(tmp_path, "--module", "app")
    assert os.path.dirname(note["command"][0]) == os.path.join(note["prefix"], "bin")
    assert os.path.basename(note["command"][0]).startswith("python")


@needs_binary
def test_uwsgi_as_the_interpreter(tmp_path: Path) -> None:
    """Where there is no interpreter, uWSGI itself runs the rehearsal, and starts no server with its own options."""
    note = run(tmp_path, "--file", "app.py", only="--pyrun", UWSGI_HTTP_SOCKET=str(tmp_path / "never"))
    assert (note["refused"], note["complaints"]) == (None, [])
    assert note["command"][-2:] == [UWSGI, "--pyrun"] and "UWSGI_HTTP_SOCKET" in note["command"]
    assert names(tmp_path / "live") == names(tmp_path / "rehearsed"), note["log"]


@needs_binary
def test_broken_code_and_uwsgi_as_the_interpreter(tmp_path: Path) -> None:
    """Also what uWSGI runs is refused with its place."""
    save(tmp_path / "pkg" / "__init__.py", "\n1 / 0\n")
    note = run(tmp_path, "--module", "pkg", only="--pyrun")
    assert note["refused"]["reason"] == "ZeroDivisionError: division by zero"
    assert (note["refused"]["path"], note["refused"]["line"]) == (str(tmp_path / "pkg" / "__init__.py"), 2)
