"""The doctor beside a real uWSGI: what is wrong with it is found by its process, as uWSGI itself would have it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import pytest
from harness import HAVE_UWSGI, IS_PYUWSGI, Project, Uwsgi, patterns, wait_until

from wsgi_reload_hooks import running
from wsgi_reload_hooks.cli import main
from wsgi_reload_hooks.running import from_pid
from wsgi_reload_hooks.uwsgi_options import read

pytestmark = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")

LOADED = r"WSGI app 0 .* ready in"
Found = list[dict[str, str]]
Doctor = Callable[..., Found]


@pytest.fixture
def doctor(capfd: pytest.CaptureFixture[str]) -> Doctor:
    """`wsgi-reload doctor --json WORDS`: what it found."""

    def doctor(*words: str) -> Found:
        capfd.readouterr()
        status = main(["doctor", "--json", *words])
        output, errors = capfd.readouterr()
        found: Found = json.loads(output)
        assert errors == "" and status == bool(found)
        return found

    return doctor


def ids(found: Found) -> list[str]:
    return [each["id"] for each in found if each["id"] != "open-files"]


# Under pyuwsgi a roll needs no help, a reload of all does.
BOUND = ["pyuwsgi"] if IS_PYUWSGI else []
SETUPS: dict[str, tuple[Mapping[str, object], Sequence[str], list[str]]] = {
    "good": ({}, (), BOUND),
    "no hooks": ({"hooks": False}, (), ["hooks-missing", *BOUND]),
    "no master": ({"master": False, "workers": 0}, (), ["master", "one-worker", *BOUND, "listen"]),
    "no lazy-apps": ({"lazy": False}, (), ["lazy-apps", "listen"]),
    "router": ({"lazy": False, "router": True}, ("--listen", "200"), ["lazy-apps", "http-router"]),
    "one worker": ({"workers": 1}, ("--listen", "200"), ["one-worker", *BOUND]),
    "py-autoreload": ({}, ("--py-autoreload", "60"), [*BOUND, "another-reloader"]),
    "a mule": ({}, ("--mule", "--listen=200"), ["apart", *BOUND]),
}


@pytest.mark.parametrize("name", SETUPS)
def test_what_is_wrong_with_a_server(name: str, project: Project, doctor: Doctor) -> None:
    """The master and a worker tell the same, and what the hooks tell themselves in the log is told in the same words."""
    keywords, options, expected = SETUPS[name]
    with Uwsgi(project, *options, **{"workers": 2, **keywords}) as server:  # type: ignore[arg-type]
        if name == "no hooks":
            # Earlier a worker may miss the end.
            server.wait_log(LOADED, 2)
        found = doctor(str(server.pid))
        assert ids(found) == expected
        assert doctor(str(server.workers()[0])) == found
        if keywords.get("hooks", True) and keywords.get("master", True):
            wait_until(lambda: from_pid(server.pid).hooks_run, "the hooks are seen to run")
            for each in found:
                if each["id"] in ("lazy-apps", "one-worker", "apart", "another-reloader"):
                    server.wait_log(patterns.OURS + each["trap"].partition(":")[0])


def test_hooks_that_did_not_load(project: Project, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """uWSGI goes on without what it cannot import."""
    project.save("other/wsgi_reload_hooks.py", "raise ImportError('not this one')\n")
    environment = {"PYTHONPATH": str(project.root / "other")}
    with Uwsgi(project, "--listen=200", workers=2, environment=environment) as server:
        server.wait_log("ImportError: not this one", 2)
        server.wait_log(LOADED, 2)
        assert "hooks-missing" not in ids(doctor(str(server.pid)))
        monkeypatch.setattr(running, "_STARTS_WITHIN", 0.0)
        assert ids(doctor(str(server.pid))) == ["hooks-missing", *BOUND]


def test_a_configuration_and_its_folder(project: Project, doctor: Doctor) -> None:
    """The files on its command line are read where it was started, and its environment counts."""
    project.save("sub/app.py", "def app(environ, start):\n    start('200 OK', [])\n    return [b'v 0']\n")
    text = "[uwsgi]\nhttp-socket = 127.0.0.1:$(PORT)\nmodule = app:app\nchdir = sub\nmaster = true\nlazy-apps = true\n"
    text += "env = WSGI_RELOAD_ENABLED=false\nimport = wsgi_reload_hooks.uwsgi_timer\nbinary-path = /bin/python\n"
    path = project.save("mine.ini", text)
    assert path is not None
    environment = {"UWSGI_PROCESSES": "2", "PWD": str(project.root)}
    with Uwsgi(project, configuration="mine.ini", environment=environment) as server:
        (found,) = doctor(str(server.pid))
        assert (found["id"], found["where"]) == ("hooks-off", "WSGI_RELOAD_ENABLED")


OPTIONS = {
    "mine.ini": """
        [uwsgi]
        http-socket = 127.0.0.1:$(PORT)
        set-ph = count=2
        set-placeholder = count=4
        processes = %(count)
        master = true
        lazy-apps = true
        ; not this one
        pidfile = %d%n-%c.pid
        if-env = PORT
        listen = 7
        endif =
        if-not-env = PORT
        listen = 9
        endif =
        if-exists = more.ini
        ini = more.ini
        endif =
        if-opt = vacuum
        buffer-size = 8192
        endif =
        if-reload =
        max-requests = 1
        endif =
        ini = mine.ini:last
        [last]
        module = dump:%(name)
        """,
    "more.ini": "[other]\nstrict = true\n[uwsgi]\n# a comment\nvacuum = true\nset-ph = name=app\n",
}
DUMP = """
import json, uwsgi
text = {key: value.decode() if isinstance(value, bytes) else "" for key, value in uwsgi.opt.items()}
open("options.json", "w").write(json.dumps(text))
def app(environ, start):
    start("200 OK", [])
    return [b"v 0"]
"""


def test_options_are_read_as_the_server_reads_them(project: Project) -> None:
    """Sections, placeholders, conditions, files in files, the command line and the environment: as in ``uwsgi.opt``."""
    for name, text in OPTIONS.items():
        project.save(name, "\n".join(map(str.strip, text.split("\n"))))
    project.save("dump.py", DUMP)
    words = ["mine.ini", "--max-requests", "50", "-b", "9000", "--die-on-term"]
    with Uwsgi(project, *words[1:], configuration=words[0], environment={"UWSGI_SOCKET_TIMEOUT": "3"}) as server:
        # Earlier a worker may miss the end.
        server.wait_log(LOADED, 2)
        theirs = json.loads((project.root / "options.json").read_text())
        environ = {"UWSGI_SOCKET_TIMEOUT": "3", "PORT": str(server.port)}
    ours = read(words, environ, str(project.root))
    logic = ("if", "end", "set-")
    expected = {name: value for name, value in theirs.items() if not name.startswith(logic)}
    assert {name: ours.value(name) for name in ours.names()} == expected
    assert (expected["processes"], expected["listen"], expected["buffer-size"]) == ("2", "7", "8192")
