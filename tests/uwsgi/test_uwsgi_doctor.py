"""`wsgi-reload doctor` asks a real uWSGI, which answers by its live options."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from unittest import mock

import pytest
from harness import HAVE_UWSGI, IS_PYUWSGI, Project, Uwsgi, patterns, wait_until

from wsgi_reload_hooks.cli import doctor as command
from wsgi_reload_hooks.cli.main import main
from wsgi_reload_hooks.control.channel import remotes

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")

LOADED = r"WSGI app 0 .* ready in"
Found = list[dict[str, str]]
Doctor = Callable[..., Found]


@pytest.fixture
def doctor(capfd: pytest.CaptureFixture[str]) -> Doctor:
    """`wsgi-reload doctor --json WORDS`: what it found."""

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
    return [each["id"] for each in found if each["id"] != "open-files"]


def answers(server: Uwsgi) -> bool:
    """Whether the hooks in *server* may be asked."""
    with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=str(server.runtime)):
        return any(remote.pid == server.pid for remote in remotes())


# Under pyuwsgi a roll needs no help, a reload of all does.
BOUND = ["pyuwsgi"] if IS_PYUWSGI else []
SETUPS: dict[str, tuple[Mapping[str, object], Sequence[str], list[str]]] = {
    "good": ({}, (), BOUND),
    "no lazy-apps": ({"lazy": False}, (), ["lazy-apps", "listen"]),
    "no lazy-apps, need-app": ({"lazy": False}, ("--need-app", "--listen=200"), ["lazy-apps", "need-app"]),
    "router": ({"lazy": False, "router": True}, ("--listen", "200"), ["lazy-apps", "http-router"]),
    "one worker": ({"workers": 1}, ("--listen", "200"), ["one-worker", *BOUND]),
    "py-autoreload": ({}, ("--py-autoreload", "60"), [*BOUND, "another-reloader"]),
    "touch-reload in the environment": ({"environment": {"UWSGI_TOUCH_RELOAD": "a"}}, (), [*BOUND, "another-reloader"]),
    "a mule": ({}, ("--mule", "--listen=200"), ["apart", *BOUND]),
}


@pytest.mark.parametrize("name", SETUPS)
def test_uwsgi_answers_what_is_wrong_with_it(name: str, project: Project, doctor: Doctor) -> None:
    """Asked by its master's pid or a worker's the answer is the same, in the words of the lines in the log."""
    keywords, options, expected = SETUPS[name]
    with Uwsgi(project, *options, **{"workers": 2, **keywords}) as server:  # type: ignore[arg-type]
        wait_until(lambda: answers(server), "the hooks can be asked")
        found = doctor(str(server.pid))
        assert ids(found) == expected
        assert all(each["where"].startswith(f"process {server.pid}") for each in found)
        assert doctor(str(server.workers()[0])) == found
        for each in found:
            if each["id"] in ("lazy-apps", "one-worker", "apart", "another-reloader"):
                server.wait_log(patterns.OURS + each["trap"].partition(":")[0])


WITHOUT: dict[str, tuple[Mapping[str, object], list[str]]] = {
    "no hooks": ({"hooks": False}, ["hooks-missing"]),
    "no master": ({"master": False, "workers": 0}, ["master"]),
    "hooks that do not load": ({"environment": {"PYTHONPATH": "other"}}, ["hooks-missing"]),
    "hooks switched off": ({"environment": {"WSGI_RELOAD_ENABLED": "false"}}, ["hooks-off"]),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_uwsgi_without_hooks_is_examined(
    name: str, project: Project, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the hooks do not run, the command line and the environment of the process tell why."""
    keywords, expected = WITHOUT[name]
    project.save("other/wsgi_reload_hooks.py", "raise ImportError('not this one')\n")
    monkeypatch.setattr(command, "_ANSWERS_WITHIN", 0.0)
    with Uwsgi(project, **{"workers": 2, **keywords}) as server:  # type: ignore[arg-type]
        server.wait_log(LOADED, 1 if name == "no master" else 2)
        found = doctor(str(server.pid))
        assert ids(found) == expected
        assert found[0]["where"] in (f"process {server.pid}", "WSGI_RELOAD_ENABLED")
        assert doctor(str(server.workers()[0] if server.workers() else server.pid)) == found


@pytest.mark.adapters
def test_project_of_uwsgi_is_examined(project: Project, doctor: Doctor) -> None:
    """uWSGI tells where it serves from, which application, and its own environment, also where a file sets all that."""
    project.save("sub/pyproject.toml", "")
    project.save(
        "sub/lib/site-packages/shop.py", "def app(environ, start):\n    start('200 OK', [])\n    return [b'v 0']\n"
    )
    text = "[uwsgi]\nhttp-socket = 127.0.0.1:$(PORT)\nmodule = shop:app\nchdir = sub\nmaster = true\nlazy-apps = true\n"
    text += (
        f"env = WSGI_RELOAD_EXTRA_FILES=*.js\nimport = wsgi_reload_hooks.uwsgi_timer\nbinary-path = {sys.executable}\n"
    )
    project.save("mine.ini", text + "pythonpath = lib/site-packages\nprocesses = 2\n")
    with Uwsgi(project, configuration="mine.ini") as server:
        wait_until(lambda: answers(server), "the hooks can be asked")
        outside, extra = doctor(str(server.pid))
        assert (outside["id"], outside["where"]) == ("outside", str(project.root / "sub/lib/site-packages/shop.py"))
        assert (extra["id"], extra["where"]) == ("extra-files", "WSGI_RELOAD_EXTRA_FILES")
