"""`wsgi-reload doctor`: each check finds its problem and nothing else. No server is needed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from edits import PACKAGE_ROOT, date, python, save
from harness import wait_until

from wsgi_reload_hooks.cli.main import main
from wsgi_reload_hooks.core.errors import Failure
from wsgi_reload_hooks.core.finding import Finding, some
from wsgi_reload_hooks.core.settings import Settings
from wsgi_reload_hooks.doctor.command_line import CommandLine, parse
from wsgi_reload_hooks.doctor.gunicorn_setup import GunicornSetup, from_command
from wsgi_reload_hooks.doctor.process import ServerProcess, check_process, has_control_socket
from wsgi_reload_hooks.doctor.project import Project, System, examine, granted, skew_of
from wsgi_reload_hooks.gunicorn.setting_checks import check_settings, configurations
from wsgi_reload_hooks.uwsgi.options import OptionCheck, option_checks, queue
from wsgi_reload_hooks.watching.mounts import Mount

pytestmark = pytest.mark.unit

HOOKS = ("--import", "wsgi_reload_hooks.uwsgi_timer")
LIMIT = 30
NOBODY = 65534
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of processes")


def ids(findings: Iterable[Finding | OptionCheck]) -> list[str]:
    """Their names; each of them says something, and what to do."""
    found = list(findings)
    assert all(all(each[:3]) for each in found)
    return [each.id for each in found]


# -- gunicorn ----------------------------------------------------------------------------------------------------------

DEFAULTS = {"preload_app": False, "reload": False, "backlog": 2048, "raw_env": []}
OFF = Settings.load("/", {"WSGI_RELOAD_ENABLED": "false"})
OF_GUNICORN: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "good": ({}, {}, []),
    "preload": ({"preload_app": True}, {}, []),
    "preload, not Linux": ({"preload_app": True}, {"platform": "darwin"}, ["preload"]),
    "preload that is not shared, not Linux": ({"preload_app": True}, {"platform": "darwin", "share": "never"}, []),
    "share, not Linux": ({}, {"platform": "darwin", "share": "always"}, ["preload"]),
    "preload, no hooks": ({"preload_app": True}, {"hooks": False}, ["preload"]),
    "reload": ({"reload": True}, {}, ["another-reloader"]),
    "reload, no hooks": ({"reload": True}, {"hooks": False}, ["another-reloader"]),
    "settings that come too late": ({"raw_env": ["A=1", "WSGI_RELOAD_STEP=1"]}, {}, ["raw-env"]),
    "backlog": ({"backlog": 5000}, {"somaxconn": 4096}, ["backlog"]),
    "backlog, no limit known": ({"backlog": 5000}, {}, []),
    "default backlog": ({}, {"somaxconn": 128}, []),
}


@pytest.mark.parametrize("name", OF_GUNICORN)
def test_gunicorn_setting_is_found(name: str) -> None:
    """Exactly what is wrong with gunicorn's settings is found."""
    given, keywords, expected = OF_GUNICORN[name]
    known = {"platform": "linux", "hooks": True, "share": "auto", "somaxconn": None, **keywords}
    assert ids(check_settings({**DEFAULTS, **given}, lambda _: "here", **known)) == expected


def gunicorn(*arguments: str, variable: str = "", **fields: Any) -> GunicornSetup:
    """A set-up of gunicorn that gunicorn has read."""
    project = Project("command line", "/srv", {"GUNICORN_CMD_ARGS": variable})
    keywords = {"settings": DEFAULTS, "hooks": True, **fields}
    return GunicornSetup("command line", "1", project, arguments, **keywords)


SETUPS: dict[str, tuple[GunicornSetup, Settings, list[str]]] = {
    "good": (gunicorn(), Settings(), []),
    "no hooks": (gunicorn(hooks=False), Settings(), ["hooks-missing"]),
    "hooks switched off": (gunicorn(), OFF, ["hooks-off"]),
    "two configurations": (gunicorn("-c", "a.py", "--config=b.py"), Settings(), ["two-configurations"]),
    "one configuration, twice": (gunicorn("-c", "a.py", "-ca.py"), Settings(), []),
    "one more in the environment": (
        gunicorn("-c", "a.py", variable="--config b.py", hooks=False),
        Settings(),
        ["hooks-missing", "two-configurations"],
    ),
    "broken": (gunicorn(broken=("a.py, line 1", "NameError")), Settings(), ["configuration"]),
}


@pytest.mark.parametrize("name", SETUPS)
def test_gunicorn_setup_is_examined(name: str) -> None:
    """Exactly what is wrong with a command line of gunicorn is found."""
    found, settings, expected = SETUPS[name]
    assert ids(found.findings(settings, None)) == expected


def test_finding_names_the_place_of_a_setting() -> None:
    """A finding names the place of the setting, its value, and what is lost."""
    places = {"reload": "gunicorn.conf.py"}
    found = gunicorn("-c", "ours.py", "-c", "mine.py", settings={**DEFAULTS, "reload": True}, places=places)
    two, reload = found.findings(Settings(), None)
    assert reload.where == "gunicorn.conf.py: reload = True"
    assert two.where == "command line: -c ours.py -c mine.py" and "what is in ours.py is lost" in two.trap


def test_configurations_on_a_command_line() -> None:
    """Each spelling of the option is found, and nothing else."""
    words = ["-w", "2", "-c", "a", "--config", "b", "--config=c", "-cd", "--chdir", "e", "app:app", "-c"]
    assert configurations(words) == ["a", "b", "c", "d", ""]


# -- uWSGI -------------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"lazy": True, "workers": 2, "threads": True, "executable": True, "files": 1024}
OF_UWSGI: dict[str, tuple[Sequence[str], dict[str, Any], list[str]]] = {
    "good": ((), {}, []),
    "router, lazy": (("http",), {}, []),
    "no lazy-apps": ((), {"lazy": False}, ["lazy-apps"]),
    "router": (("http",), {"lazy": False}, ["lazy-apps", "http-router"]),
    "one worker": ((), {"workers": 1}, ["one-worker"]),
    "threads": ((), {"threads": False}, ["threads"]),
    "py-autoreload": (("py-autoreload",), {}, ["another-reloader"]),
    "touch-reload": (("touch-reload",), {}, ["another-reloader"]),
    "touch-chain-reload": (("touch-chain-reload",), {}, ["another-reloader"]),
    "fs-reload": (("fs-reload",), {}, ["another-reloader"]),
    "a mule": (("mule",), {}, ["apart"]),
    "a spooler, and many files": (("spooler",), {"files": 10**9}, ["apart", "open-files"]),
    "many files, lazy": ((), {"files": 10**9}, []),
    "pyuwsgi": ((), {"executable": False}, ["pyuwsgi"]),
}


@pytest.mark.parametrize("name", OF_UWSGI)
def test_uwsgi_option_is_found(name: str) -> None:
    """Exactly what is wrong with uWSGI's options is found."""
    options, keywords, expected = OF_UWSGI[name]
    assert ids(option_checks(options, **{**GOOD, **keywords})) == expected


@pytest.mark.parametrize(
    ("options", "stalls", "listen", "expected"),
    [
        ((), False, 100, []),
        ((), True, 100, ["listen"]),
        ((), True, 1024, []),
        (("need-app",), False, 100, ["need-app"]),
        (("need-app", "lazy"), False, 100, []),
    ],
)
def test_uwsgi_queue_is_examined(options: Sequence[str], stalls: bool, listen: int, expected: list[str]) -> None:
    """A short queue matters where clients wait at a reload, ``need-app`` where there is no lazy-apps."""
    assert ids(queue(options, stalls=stalls, listen=listen, somaxconn=4096)) == expected


# -- command lines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "server", "python", "rest"),
    [
        (["gunicorn", "app:app"], "gunicorn", [], ["app:app"]),
        (["./bin/gunicorn", "-c", "x"], "gunicorn", [], ["-c", "x"]),
        (
            ["/bin/python3", "-X", "dev", "-u", "-m", "gunicorn", "a"],
            "gunicorn",
            ["/bin/python3", "-X", "dev", "-u"],
            ["a"],
        ),
        (["/bin/python3", "bin/gunicorn", "a"], "gunicorn", ["/bin/python3"], ["a"]),
        (["gunicorn-3.11", "app:app"], "gunicorn", [], ["app:app"]),
        (["uwsgi_python3", "-M"], "uwsgi", [], ["-M"]),
        (["gunicornc", "a"], None, [], []),
        (["bin/uwsgi", "-M"], "uwsgi", [], ["-M"]),
        (["/bin/python3", "-m", "pyuwsgi", "-M"], "uwsgi", ["/bin/python3"], ["-M"]),
        (["/bin/python3", "-m", "gunicorn.app.wsgiapp", "a"], "gunicorn", ["/bin/python3"], ["a"]),
        (["/bin/python3", "-m", "shop", "gunicorn"], None, [], []),
        (["/bin/python3", "-c", "gunicorn"], None, [], []),
        (["/bin/python3", "app.py"], None, [], []),
        (["/bin/python3", "/x/gunicorn/__main__.py", "a"], "gunicorn", ["/bin/python3"], ["a"]),
        (["/bin/python3", "/x/shop/__main__.py", "a"], None, [], []),
        (["/bin/python3"], None, [], []),
        ([], None, [], []),
    ],
)
def test_command_line_is_recognised(words: list[str], server: str | None, python: list[str], rest: list[str]) -> None:
    """A command line names the server, the interpreter with its options, and the server's arguments."""
    found = parse(words)
    assert (found and found.kind) == server
    assert found is None or (list(found.python), list(found.arguments)) == (python, rest)


@pytest.mark.parametrize(
    "first", ["#!PY", "#!/bin/sh\n'''exec' PY \"$0\" \"$@\"\n' '''"], ids=["one line", "three lines"]
)
def test_interpreter_of_a_script_is_found(tmp_path: Path, first: str) -> None:
    """The interpreter that a script names is asked for gunicorn, also where an installer writes it in three lines."""
    python = tmp_path / "python3"
    python.symlink_to(sys.executable)
    save(tmp_path / "gunicorn", first.replace("PY", str(python)) + "\nimport gunicorn\n").chmod(0o755)
    save(tmp_path / "sub" / "gunicorn.py", "raise ImportError('not this one')\n")
    command = parse(["../gunicorn", "app:app"])
    assert command is not None
    with pytest.raises(Failure, match=f"{python} cannot import gunicorn .not this one"):
        from_command(command, {"PYTHONPATH": str(tmp_path / "sub")}, str(tmp_path / "sub"))


def test_an_interpreter_without_the_server(tmp_path: Path) -> None:
    """Where the interpreter has no gunicorn, or there is no interpreter, one line says so."""
    for program, why in (
        (sys.executable, "cannot import gunicorn"),
        ("/no/such/python", "cannot be run: No such file"),
    ):
        command = CommandLine("gunicorn", [program, "-I", "-S"], "-m", ["app:app"])
        with pytest.raises(Failure, match=why):
            from_command(command, {}, str(tmp_path))


# -- the project and the system ----------------------------------------------------------------------------------------


def system(**fields: Any) -> System:
    """A machine without a fault, but for *fields*."""
    healthy = System([Mount("/", "ext4")], time.time(), lambda folders: (0, ""), lambda folder: 0.0)
    return dataclasses.replace(healthy, **fields)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one module."""
    save(tmp_path / "shop" / "views.py", "x = 1\n")
    save(tmp_path / "pyproject.toml", "")
    return tmp_path


def examined(project: Path, settings: Settings | None = None, path: Path | None = None, **fields: Any) -> list[Finding]:
    """What speaks against *project*, on a machine with *fields*; it finds its modules in *path*, too."""
    found = Project("command line", str(project), {}, "shop.views:app", [str(path)] if path else (), watchfiles=True)
    return list(examine(found, settings or Settings(), system(**fields)))


def test_a_healthy_project(project: Path) -> None:
    """Of a project and a machine without a fault nothing is told, whatever lies in the folders of others."""
    for name in ("node_modules/a.py", "venv/pyvenv.cfg", "venv/a.py"):
        save(project / name, "")
    asked: list[Sequence[str]] = []

    def grant(folders: Sequence[str]) -> tuple[int, str]:
        asked.append(folders)
        return 0, ""

    assert examined(project, grant=grant) == []
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
    from wsgi_reload_hooks.doctor.project import granted
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
    found = list(examine(Project("command line", "/", {}), Settings(), system()))
    assert [each.id for each in found] == ["project"] or os.path.exists("/pyproject.toml")


def test_an_application_that_is_not_watched(project: Path) -> None:
    """The application is excluded, lies where packages are installed, or is a copy of what is in the project."""
    (excluded,) = examined(project, Settings(exclude=("shop/*",)))
    assert excluded.id == "outside" and "exclude = 'shop/*'" in excluded.trap and "exclude" in excluded.fix
    packages = project / "venv" / "site-packages"
    save(packages / "shop" / "views.py", "")
    (project / "shop").rename(project / "other")
    (third,) = examined(project, path=packages)
    assert third.id == "outside" and "third-party" in third.trap
    assert examined(project, Settings(third_party=True), packages) == []
    (project / "src").mkdir()
    (project / "other").rename(project / "src" / "shop")
    (copy,) = examined(project, path=packages)
    assert copy.id == "outside" and "a save of src/shop changes nothing" in copy.trap
    assert copy.fix == "pip install -e ."


@pytest.mark.parametrize(
    ("application", "expected"),
    [
        ("shop.views:app", "shop/views.py"),
        ("shop.wsgi:app", "shop/wsgi.py"),
        ("shop/views.py", "shop/views.py"),
        ("shop/nosuch.py", None),
        ("shop.views.nosuch:app", None),
        ("nosuch", None),
        ("", None),
    ],
)
def test_file_of_an_application_is_found(project: Path, application: str, expected: str | None) -> None:
    """A module is found where the server would import it from, a file is itself; nothing is imported."""
    for name in ("__init__.py", "wsgi.py"):
        save(project / "shop" / name, "raise SystemExit('imported')")
    source = Project("", str(project), {}, application).source
    assert source == (None if expected is None else str(project / expected))


def test_a_glob_that_lists_nothing(project: Path) -> None:
    """An entry of extra_files that lists no file is told; one for a file that is yet to come is not."""
    settings = Settings(extra_files=("shop/*.py", "static/*.js", "!shop/b*", ".env"))
    (found,) = examined(project, settings)
    assert found.id == "extra-files" and "'static/*.js' lists no file" in found.trap


# -- the command -------------------------------------------------------------------------------------------------------

UNCONFIGURED = (
    "where gunicorn is not configured; name the pid of a server, or what starts it: wsgi-reload doctor -- gunicorn ..."
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`wsgi-reload doctor WORDS` in the project: exit code, output and error output."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("WSGI_RELOAD_ENGINE", "stat")

    def run(*words: str) -> tuple[int, str, str]:
        with mock.patch.dict(os.environ), mock.patch.object(tempfile, "tempdir", None):
            status = main(["doctor", *words])
        return (status, *capfd.readouterr())

    return run


def test_silence(run: Run, project: Path) -> None:
    """For a good set-up one line says what was examined, and the exit code is 0."""
    assert run() == (0, f"nothing found: {project}, {UNCONFIGURED}\n", "")
    assert run("--json") == (0, "[]\n", "")


def test_findings(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding is a line with the place and the trap, and one with what to do; the exit code is 1."""
    monkeypatch.setenv("WSGI_RELOAD_EXTRA_FILES", "static/*.js")
    where, trap = "WSGI_RELOAD_EXTRA_FILES", "extra_files = 'static/*.js' lists no file"
    fix = f"name it as seen from {project}; what git ignores is left out of a glob"
    assert run() == (1, f"{where}: {trap}\n  fix: {fix}\n", "")
    status, output, errors = run("--json")
    assert (status, errors) == (1, "")
    assert json.loads(output) == [{"id": "extra-files", "where": where, "trap": trap, "fix": fix}]


def test_colours(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are for terminals whose user has not said no."""
    monkeypatch.setenv("WSGI_RELOAD_EXTRA_FILES", "static/*.js")
    assert "\033" not in run()[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run()[1].startswith("\033[1mWSGI_RELOAD_EXTRA_FILES\033[0m: \033[33mextra_files")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in run()[1]


def test_wrong_settings(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting is told as the hooks tell it, and the rest is examined all the same."""
    date(project / "shop" / "views.py", int((time.time() + 3600) * 1e9))
    monkeypatch.setenv("WSGI_RELOAD_STEP", "soon")
    status, output, _ = run()
    assert status == 1
    wrong = "setting step = 'soon' (from WSGI_RELOAD_STEP): must be seconds, a number above 0"
    assert output.startswith(f"{project}: {wrong}") and "saved in the future" in output
    monkeypatch.delenv("WSGI_RELOAD_STEP")
    monkeypatch.setenv("WSGI_RELOAD_STEPP", "1")
    assert "unknown setting 'stepp'" in run()[1]


def test_what_a_terminal_would_obey(run: Run, project: Path) -> None:
    """Nothing of what is examined reaches a terminal as a command."""
    date(save(project / "\033]0;x\007.py", ""), int((time.time() + 3600) * 1e9))
    output = run()[1]
    assert "\033" not in output and "\\x1b]0;x\\x07.py" in output


WRONG = {
    "no such file": (["nosuch.ini"], 1, "nosuch.ini: there is no such file, and it is no number of a process"),
    "another file": (["pyproject.toml"], 2, "pyproject.toml: no configuration of gunicorn (.py)"),
    "two things": (["a", "--", "uwsgi"], 2, "not two of them"),
    "no command": (["--"], 2, "an empty command line: starts neither gunicorn nor uWSGI"),
    "another command": (["--", "ls", "-l"], 2, "ls -l: starts neither gunicorn nor uWSGI"),
    "an option": (["--nosuch"], 2, "unrecognized arguments: --nosuch"),
    "uWSGI": (["--", "uwsgi", "--ini", "a.ini"], 1, "only when it runs: start it, then wsgi-reload doctor PID"),
    "uWSGI's configuration": (["uwsgi.ini"], 1, "only when it runs: start it, then wsgi-reload doctor PID"),
}


@pytest.mark.parametrize("name", WRONG)
def test_complaints(run: Run, project: Path, name: str) -> None:
    """Where it cannot look one line says why: exit code 1, and 2 where the words are wrong."""
    words, status, text = WRONG[name]
    save(project / "uwsgi.ini", "[uwsgi]\n")
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
    """Another program, one whose folder is gone, and one that has ended: one line each. setproctitle hides no gunicorn."""
    pid = start("sleep", "600")
    wait_until(lambda: words_of(pid).startswith(b"sleep"), "sleep runs")
    assert run(str(pid))[::2] == (1, f"wsgi-reload: process {pid} is neither gunicorn nor uWSGI: sleep 600\n")
    renamed = start("gunicorn: master [app:app]", "600", executable="/bin/sleep")
    wait_until(lambda: words_of(renamed).startswith(b"gunicorn"), "the other one runs")
    assert run(str(renamed))[1].startswith(f"process {renamed}: the hooks are not loaded")
    gone = project / "gone"
    gone.mkdir()
    lost = start("uwsgi", "600", executable="/bin/sleep", cwd=gone)
    wait_until(lambda: words_of(lost).startswith(b"uwsgi"), "it runs")
    gone.rmdir()
    assert run(str(lost))[2] == f"wsgi-reload: process {lost} works in a folder that has been deleted: restart it\n"
    assert run("4194999")[::2] == (1, "wsgi-reload: there is no process 4194999\n")


@on_linux
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_a_process_of_another_user(tmp_path: Path, start: Callable[..., int]) -> None:
    """Who may not look at it is told so; root looks with the rights of its user."""
    code = """
    import argparse, os, sys, sysconfig
    from wsgi_reload_hooks.cli import doctor
    # Another user may not be able to read root's Python.
    sysconfig.get_config_vars()
    os.setuid(int(sys.argv[1]))
    try:
        print(doctor.main(argparse.Namespace(what=sys.argv[2], command=[], json=False)), os.getresuid(), os.getgroups())
    except doctor.Failure as failure:
        print(failure)
    """
    tmp_path.chmod(0o755)
    save(tmp_path / "pyproject.toml", "[tool.wsgi_reload_hooks]\n").chmod(0o600)

    def look(user: int, pid: int) -> str:
        words = [sys.executable, "-c", textwrap.dedent(code), str(user), str(pid)]
        environ = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
        done = subprocess.run(
            words, cwd="/", env=environ, capture_output=True, text=True, timeout=LIMIT, check=False, extra_groups=[4242]
        )
        assert done.stderr == ""
        return done.stdout

    assert look(NOBODY, os.getpid()) == f"process {os.getpid()} cannot be examined: run this as its user, or as root\n"
    theirs = start("uwsgi", "600", executable="/bin/sleep", user=NOBODY, extra_groups=[], env={})
    wait_until(lambda: words_of(theirs).startswith(b"uwsgi"), "it runs")
    output = look(0, theirs)
    assert output.endswith(f"1 ({NOBODY}, {NOBODY}, {NOBODY}) []\n") and "Permission denied" in output


CONTROLLED = """
import os, socket, sys, time
place = f"{sys.argv[2]}/wsgi-reload-hooks-0/{sys.argv[1]}-{os.getpid()}-1"
os.makedirs(place)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
    control.bind(place + "/control")
    time.sleep(600)
"""


@on_linux
@pytest.mark.parametrize("kind", ["gunicorn", "uwsgi"])
def test_a_server_out_of_reach(kind: str, run: Run, project: Path, start: Callable[..., int]) -> None:
    """A server whose control socket lies where the command does not look is not called one without the hooks."""
    script = save(project / kind, CONTROLLED)
    # A short name: those of sockets are.
    with tempfile.TemporaryDirectory(prefix="wrh-") as folder:
        server = start(sys.executable, str(script), kind, folder)
        wait_until(lambda: has_control_socket(server), "the socket is seen")
        status, output, errors = run(str(server))
    assert (status, output) == (1, "") and "its control socket cannot be reached from here" in errors


def process(kind: str, *words: str, **environ: str) -> ServerProcess:
    """A process that was started by *words* with *environ*."""
    return ServerProcess(7, 1, kind, [kind, *words], environ, "/srv", 0, 0, [])


OURS = "python:wsgi_reload_hooks.gunicorn_conf"
PROCESSES: dict[str, tuple[ServerProcess, list[str]]] = {
    "gunicorn": (process("gunicorn", "app:app"), ["hooks-missing"]),
    "gunicorn, hooks that do not run": (process("gunicorn", "-c", OURS, "app:app"), ["hooks-missing"]),
    "gunicorn, a second configuration": (
        process("gunicorn", "-c", OURS, "-c", "a.py"),
        ["hooks-missing", "two-configurations"],
    ),
    "gunicorn, a second one in the environment": (
        process("gunicorn", "-c", "a.py", GUNICORN_CMD_ARGS=f"-c {OURS}"),
        ["hooks-missing", "two-configurations"],
    ),
    "uWSGI": (process("uwsgi", "--http", ":0"), ["master", "hooks-missing"]),
    "uWSGI, hooks without a master": (process("uwsgi", *HOOKS), ["master"]),
    "uWSGI, hooks in the environment": (process("uwsgi", UWSGI_IMPORT="wsgi_reload_hooks.uwsgi_timer"), ["master"]),
    "uWSGI, a master in the environment": (process("uwsgi", UWSGI_MASTER="1"), ["hooks-missing"]),
    "uWSGI, a master by another option": (process("uwsgi", "--cheaper", "1"), ["hooks-missing"]),
    "uWSGI, a master that may be in a file": (process("uwsgi", "--ini", "a.ini:b"), ["hooks-missing"]),
    "uWSGI, hooks that do not run": (process("uwsgi", "-M", *HOOKS), ["hooks-missing"]),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_process_without_hooks_is_examined(name: str) -> None:
    """The command line and the environment tell why the hooks do not run."""
    found, expected = PROCESSES[name]
    assert ids(check_process(found, Settings())) == expected
    assert ids(check_process(found, OFF))[0] == "hooks-off"


def test_hooks_that_are_named_and_do_not_run() -> None:
    """Where the command line loads the hooks, the log says why they do not run; where a second -c replaces them, it does."""
    named, _ = PROCESSES["gunicorn, hooks that do not run"]
    (found,) = check_process(named, Settings())
    assert "in its log" in found.fix
    replaced, _ = PROCESSES["gunicorn, a second configuration"]
    missing, second = check_process(replaced, Settings())
    assert OURS in missing.fix and "is lost, with these hooks" in second.trap
