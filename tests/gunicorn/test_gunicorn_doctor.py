"""`wsgi-reload doctor` asks a real gunicorn: one that runs, or the one that a command line or a configuration would start."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import pytest
from harness import CONFIGURATION, MODULE, PACKAGE, Gunicorn, Project, patterns, processes, wait_until

from wsgi_reload_hooks.cli import doctor as command
from wsgi_reload_hooks.cli.main import main

LINE = "import wsgi_reload_hooks.gunicorn_conf\n"
Found = list[dict[str, str]]
Doctor = Callable[..., Found]


@pytest.fixture
def doctor(project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Doctor:
    """`wsgi-reload doctor --json WORDS` in the project's folder: what it found."""
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent))
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)

    def doctor(*words: str) -> Found:
        capfd.readouterr()
        with mock.patch.dict(os.environ), mock.patch.object(tempfile, "tempdir", None):
            status = main(["doctor", "--json", *words])
        output, errors = capfd.readouterr()
        found: Found = json.loads(output)
        assert errors == "" and status == bool(found)
        return found

    return doctor


def ids(found: Found) -> list[str]:
    return [each["id"] for each in found]


# What is found of a process; what more is found of its command line.
SETUPS: dict[str, tuple[str | None, Sequence[str], list[str], list[str]]] = {
    "good": (str(CONFIGURATION), (), [], []),
    "good, shared": (MODULE, ("--preload",), [], []),
    "one worker": ("mine.py", ("--workers", "1"), [], []),
    "no hooks": (None, (), ["hooks-missing"], []),
    "no hooks, preload": ("bare.py", ("--preload",), ["hooks-missing"], ["preload"]),
    "reload": ("mine.py", ("--reload",), ["another-reloader"], []),
    "two configurations": ("mine.py", ("-c", "bare.py"), ["hooks-missing", "two-configurations"], []),
    "two configurations, with hooks": ("bare.py", ("-c", "mine.py"), ["two-configurations"], []),
    "settings that come too late": ("mine.py", ("--env", "WSGI_RELOAD_STEP=1"), ["raw-env"], []),
    "backlog": ("mine.py", ("--backlog", "1000000"), ["backlog"], []),
}


REPEATED = ("good, shared", "no hooks, preload", "two configurations")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.adapters, pytest.mark.versions] if name in REPEATED else [])
        for name in SETUPS
    ],
)
def test_what_is_wrong_with_a_server(
    name: str, project: Project, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arbiter, a worker and the command line tell the same; of a good one nothing is told."""
    configuration, options, expected, more = SETUPS[name]
    project.save("mine.py", LINE)
    project.save("bare.py", "timeout = 20\n")
    with Gunicorn(project, *options, workers=0, configuration=configuration) as server:
        if "hooks-missing" in expected:
            monkeypatch.setattr(command, "_ANSWERS_WITHIN", 0.0)
        else:
            server.wait_for_log(patterns.WATCHING)
        found = doctor(str(server.pid))
        assert ids(found) == expected
        assert doctor(str(server.workers()[0])) == found
    given = ["-c", configuration] if configuration else []
    assert ids(doctor("--", sys.executable, "-m", "gunicorn", *given, *options, "app:app")) == expected + more


def test_settings_after_a_hangup(project: Project, doctor: Doctor) -> None:
    """What a HUP changes in gunicorn's configuration, the running server tells."""
    project.save("mine.py", LINE)
    with Gunicorn(project, workers=1, configuration="mine.py") as server:
        server.wait_for_log(patterns.WATCHING)
        assert doctor(str(server.pid)) == []
        project.save("mine.py", f"{LINE}reload = True\n")
        server.send(signal.SIGHUP)
        wait_until(lambda: ids(doctor(str(server.pid))) == ["another-reloader"], "the new configuration is told")


def test_configurations_and_their_places(project: Project, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default configuration, the variable and the command line: each setting is told with where it is from."""
    project.save("gunicorn.conf.py", f"{LINE}reload = True\nraw_env = ['WSGI_RELOAD_STEP=1']\n")
    by_default = doctor()
    assert [each["where"] for each in by_default] == ["gunicorn.conf.py: reload = True", "gunicorn.conf.py: raw_env"]
    assert doctor("gunicorn.conf.py") == doctor("file:gunicorn.conf.py") == by_default
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--reload -c other.py --backlog 1000000")
    project.save("other.py", "")
    (project.root / "gunicorn.conf.py").rename(project.root / "mine.py")
    assert ids(doctor())[0] == "hooks-missing" and doctor()[0]["where"] == "GUNICORN_CMD_ARGS"
    (project.root / "mine.py").rename(project.root / "gunicorn.conf.py")
    found = {each["id"]: each["where"] for each in doctor("--", "gunicorn", "-c", "gunicorn.conf.py", "app:app")}
    assert found["another-reloader"] == "GUNICORN_CMD_ARGS: reload = True"
    assert found["backlog"] == "GUNICORN_CMD_ARGS: backlog = 1000000"
    assert found["two-configurations"] == "GUNICORN_CMD_ARGS: -c other.py -c gunicorn.conf.py"


BROKEN = {
    "an exception": ("x = 1\n1 / 0\n", "mine.py, line 2", "ZeroDivisionError: division by zero"),
    "a syntax error": ("\ndef\n", "mine.py, line 2", "SyntaxError: invalid syntax"),
    "a wrong value": ("workers = 'many'\n", "command line", "Invalid value for workers: many"),
    "a library": ("\nimport json\njson.loads('{')\n", "mine.py, line 3", "JSONDecodeError"),
    "an import": ("import nosuch\n", "mine.py, line 1", "ModuleNotFoundError: No module named 'nosuch'"),
    "a death": ("import os\nos._exit(7)\n", "command line", "it ends gunicorn, exit code 7"),
    "an end": ("import sys\nsys.exit(0)\n", "command line", "it ends gunicorn, exit code 0"),
    "words": (None, "command line", "unrecognized arguments: --nosuch"),
    "no application": ("", "command line", "No application module specified"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_configuration_that_does_not_load(name: str, project: Project, doctor: Doctor) -> None:
    """It is a finding, in one line with its place; what it prints goes nowhere."""
    text, where, why = BROKEN[name]
    project.save("mine.py", "print('hello')\n" * (text == "") + (text or ""))
    words = [
        "-c",
        "mine.py",
        *([] if name == "no application" else ["app:app"]),
        *(["--nosuch"] if text is None else []),
    ]
    (found,) = doctor("--", sys.executable, "-m", "gunicorn", *words)
    assert (found["id"], found["where"]) == ("configuration", where)
    assert why in found["trap"] and "\n" not in found["trap"]


def test_a_configuration_alone(project: Project, doctor: Doctor) -> None:
    """A file need not name an application; what it says of one counts, and what else is wrong with it."""
    project.save("pyproject.toml", "")
    project.save("gone/site-packages/shop.py", "")
    project.save("mine.py", f"{LINE}chdir = 'gone/site-packages'\nwsgi_app = 'shop:app'\n")
    (found,) = doctor("mine.py")
    assert (found["id"], found["where"]) == ("outside", str(project.root / "gone/site-packages/shop.py"))
    project.save("mine.py", f"{LINE}chdir = 'nosuch'\n")
    (found,) = doctor("mine.py")
    assert found["id"] == "configuration" and "nosuch" in found["trap"]


def test_a_configuration_that_never_ends(project: Project, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that hangs is ended, with what it has started, and told."""
    monkeypatch.setattr("wsgi_reload_hooks.doctor.gunicorn_setup._CONFIGURATION_AT_MOST", 4)
    project.save(
        "mine.py", "import os, time\nif os.fork(): open('pids', 'w').write(f'{os.getpid()}')\ntime.sleep(600)\n"
    )
    (found,) = doctor("mine.py")
    assert found["id"] == "configuration" and "it did not load within 4 s" in found["trap"]
    group = (project.root / "pids").read_text()
    wait_until(lambda: not Path(f"/proc/{group}").exists(), "it has ended")


def test_nothing_is_left_or_imported(project: Project, doctor: Doctor) -> None:
    """Neither is the application imported, nor a server started, nor anything written; modules of ours hide no others."""
    project.save("app.py", "raise SystemExit('imported')\n")
    project.save("settings.py", "workers = 3\n")
    project.save("gunicorn.conf.py", f"{LINE}from settings import workers\nassert workers == 3\n")
    before = sorted(project.root.rglob("*"))
    assert doctor() == doctor("--", sys.executable, "-m", "gunicorn", "app:app") == []
    assert sorted(project.root.rglob("*")) == before


def test_the_application_is_found(project: Project, doctor: Doctor) -> None:
    """An application that lies where packages are installed is told, as gunicorn would find it."""
    project.save("lib/site-packages/shop/__init__.py", "")
    project.save("lib/site-packages/shop/wsgi.py", "")
    words = ["-c", MODULE, "--pythonpath", "lib/site-packages"]
    (found,) = doctor("--", sys.executable, "-m", "gunicorn", *words, "shop.wsgi:app")
    assert (found["id"], found["where"]) == ("outside", str(project.root / "lib/site-packages/shop/wsgi.py"))
    project.save("src/shop/wsgi.py", "")
    (copy,) = doctor("--", sys.executable, "-m", "gunicorn", *words, "shop.wsgi:app")
    assert copy["fix"] == "pip install -e ."


def test_a_server_in_another_folder(project: Project, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's folder, environment and application count, not ours."""
    project.save("there/sub/pyproject.toml", "")
    text = "def app(environ, start):\n    start('200 OK', [])\n    return [b'v 0']\n"
    project.save("there/sub/lib/site-packages/shop.py", text)
    there = Project(project.root / "there")
    project.save("there/mine.py", f"{LINE}chdir = 'sub'\npythonpath = 'lib/site-packages'\nwsgi_app = 'shop:app'\n")
    environment = {"WSGI_RELOAD_EXTRA_FILES": "*.js"}
    with Gunicorn(there, workers=1, configuration="mine.py", environment=environment, application="shop:app") as server:
        server.wait_for_log(patterns.WATCHING)
        outside, extra = doctor(str(server.pid))
        assert (outside["id"], outside["where"]) == ("outside", str(there.root / "sub/lib/site-packages/shop.py"))
        assert (extra["id"], extra["where"]) == ("extra-files", "WSGI_RELOAD_EXTRA_FILES")
    monkeypatch.setattr(command, "_ANSWERS_WITHIN", 0.0)
    with Gunicorn(project, workers=1, environment={"WSGI_RELOAD_ENABLED": "off"}) as server:
        (found,) = doctor(str(server.pid))
        assert (found["id"], found["where"]) == ("hooks-off", "WSGI_RELOAD_ENABLED")


def test_the_second_of_two_arbiters(project: Project, doctor: Doctor) -> None:
    """After a USR2 each arbiter stands for itself, and each worker for its own."""
    with Gunicorn(project, workers=1, configuration=None) as server:
        server.send(signal.SIGUSR2)
        second = server.successor()
        (found,) = doctor(str(processes.children(second)[0]))
        assert found["where"] == f"process {second}" and doctor(str(second)) == [found]
        server.send(signal.SIGTERM)
        assert server.exit_status() == 0
        server.adopt(second)
