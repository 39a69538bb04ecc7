"""`wsgi-reload hup`: what it sends, to whom, and when it had better not."""

from __future__ import annotations

import argparse
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pathspec
import pytest
from edits import LONG_AGO, PACKAGE_ROOT, date
from harness import PACKAGE, Hup, LittleServer, Project, holds, patterns, processes, wait_until
from harness.project import APPS

from wsgi_reload_hooks import Settings
from wsgi_reload_hooks.cli import hup, main
from wsgi_reload_hooks.core.log import ReloadLog
from wsgi_reload_hooks.core.streams import Console
from wsgi_reload_hooks.hup import pidfile
from wsgi_reload_hooks.hup.pidfile import PidFile
from wsgi_reload_hooks.hup.sender import COMMAND_AT_MOST, SignalSender
from wsgi_reload_hooks.watching.rules import Files

AS_ROOT = ("--user", "root") if os.geteuid() == 0 else ()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights away")
SLOW = "import time; open('began', 'a').close(); time.sleep(1000)\n"


@pytest.fixture
def server(project: Project) -> Iterator[LittleServer]:
    """A server in the project's folder."""
    with LittleServer(project.root) as server:
        yield server


def pid_of_the_dead() -> int:
    """The number of a process that is gone."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
    child.wait()
    return child.pid


# -- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.adapters
@pytest.mark.parametrize("engine", ["stat", "auto"])
def test_a_change_is_sent_once(engine: str, project: Project, server: LittleServer) -> None:
    """The first line says what is watched and for whom. A touch is no change; changed, new and deleted files are."""
    project.save("old.py", "")
    with Hup(project, "server.pid", environment={"WSGI_RELOAD_ENGINE": engine}) as watcher:
        assert re.search(rf"watching 2 files .* engine\), for {server.pid} \(python.*\)\n", watcher.log)
        (project.root / "app.py").touch()
        project.save("shop/views.py", "")
        assert watcher.wait_sent(1) == "shop/views.py"
        # Each by itself: a process that stands still takes two for one.
        server.wait_got("SIGHUP")
        project.save("shop/views.py", "x = 1\n")
        assert watcher.wait_sent(2) == "shop/views.py"
        server.wait_got("SIGHUP", "SIGHUP")
        (project.root / "old.py").unlink()
        assert watcher.wait_sent(3) == "old.py"
        server.wait_got("SIGHUP", "SIGHUP", "SIGHUP")
        assert f"HUP sent to {server.pid} (python" in watcher.log


def test_an_error_in_the_hooks_is_told_and_the_next_save_is_sent(project: Project, server: LittleServer) -> None:
    """It ends nothing."""
    raising = str(APPS / "raising_step" / "raising.py")
    with Hup(project, "server.pid", program=(raising,)) as watcher:
        (project.root / "raise").touch()
        watcher.wait_for_log("an error in the hooks themselves, the server goes on; please report it")
        watcher.wait_for_log("RuntimeError: odd")
        project.save("shop/views.py", "")
        assert watcher.wait_sent(1) == "shop/views.py"
        server.wait_got("SIGHUP")


def test_what_does_not_count(project: Project, server: LittleServer) -> None:
    """What git ignores, caches, editors' temporaries, other patterns, `--ignore`, and the setting `exclude`."""
    (project.root / ".git").mkdir()
    project.save(".gitignore", "generated/\n")
    project.save("pyproject.toml", "[tool.wsgi_reload_hooks]\nexclude = ['excluded.py']\n")
    environment = {} if sys.version_info >= (3, 11) else {"WSGI_RELOAD_EXCLUDE": "excluded.py"}
    if environment:
        (project.root / "pyproject.toml").unlink()
    with Hup(project, "server.pid", "--ignore", "test_*.py", environment=environment) as watcher:
        for name in (
            "generated/a.py",
            "__pycache__/a.py",
            ".#a.py",
            "a.txt",
            "tests/test_a.py",
            "excluded.py",
            ".git/a.py",
        ):
            project.save(name, "x = 1\n")
        project.save("z.py", "x = 1\n")
        assert watcher.wait_sent(1) == "z.py"
        server.wait_got("SIGHUP")


def test_half_a_checkout_is_waited_for(project: Project, server: LittleServer) -> None:
    """While git holds its lock, nothing is sent."""
    lock = project.root / ".git" / "index.lock"
    lock.parent.mkdir()
    with Hup(project, "server.pid") as watcher:
        lock.touch()
        project.release()
        holds(lambda: not watcher.sent(), "nothing is sent", 0.4)
        lock.unlink()
        assert watcher.wait_sent(1) == "app.py"


def test_another_signal(project: Project, server: LittleServer) -> None:
    """By any of its names."""
    with Hup(project, "server.pid", "--signal", "usr2") as watcher:
        project.release()
        server.wait_got("SIGUSR2")
        watcher.wait_sent(1)
        assert f"USR2 sent to {server.pid}" in watcher.log


def test_it_can_be_switched_off(project: Project) -> None:
    """By the setting that switches the hooks off."""
    watcher = Hup(project, "server.pid", environment={"WSGI_RELOAD_ENABLED": "off"})
    assert watcher.run_to_its_end() == 0
    assert watcher.output.count("\n") == 1 and "switched off (WSGI_RELOAD_ENABLED)" in watcher.output


# -- which files -----------------------------------------------------------------------------------------------------


def rules(*words: str) -> tuple[Settings, Files]:
    """What the command makes of these *words*."""
    parser = argparse.ArgumentParser()
    hup.arguments(parser)
    return hup.rules(parser.parse_args(["server.pid", *words]))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a few files, and a folder beside it; the project is the working directory."""
    for name in ("a.py", "a.html", "src/b.py", "src/deep/c.py", "src/[x]/d.py", "src/dx.py/e.txt"):
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).touch()
    (tmp_path / "beside" / "deep").mkdir(parents=True)
    (tmp_path / "beside" / "f.py").touch()
    (tmp_path / "beside" / "deep" / "test_f.py").touch()
    (tmp_path / "project" / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


@pytest.mark.adapters
@pytest.mark.parametrize(
    ("words", "files"),
    [
        ((), "a.py src/b.py src/deep/c.py src/[x]/d.py src/dx.py/e.txt"),
        (("src/deep", "a.html"), "a.html src/deep/c.py"),
        (("src/[x]",), "src/[x]/d.py"),
        (("--pattern", "*.html"), "a.html"),
        (("--pattern", "*.html", "--pattern", "b.*"), "a.html src/b.py"),
        (("--no-recursive",), "a.py"),
        (("--no-recursive", "--pattern", "*"), "a.html a.py pyproject.toml"),
        (("src/deep", ".", "--no-recursive"), "a.py src/deep/c.py"),
        (("--ignore", "src", "--ignore", "!c.py"), "a.py src/deep/c.py"),
        (("../beside",), "{beside}/f.py {beside}/deep/test_f.py"),
        (("../beside", "a.html", "--ignore", "test_*"), "{beside}/f.py {project}/a.html"),
        (("a.html", "../beside", "--ignore", "test_*"), "a.html {beside}/f.py"),
        (("../beside/f.py",), "{beside}/f.py"),
    ],
)
def test_which_files_are_watched(tree: Path, words: Sequence[str], files: str) -> None:
    """Folders by pattern, files by name, wherever they lie."""
    names = files.format(beside=tree / "beside", project=tree / "project").split()
    assert rules(*words)[1].extra() == {str(tree / "project" / name) for name in names}


def test_the_project_is_that_of_what_is_watched(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory's where that is watched, else that of the first path."""
    monkeypatch.chdir("/")
    assert rules(str(tree / "project" / "src"))[1].root == str(tree / "project")
    monkeypatch.chdir(tree)
    assert rules(str(tree / "project" / "src"))[1].root == str(tree / "project")
    assert rules(str(tree / "beside" / "f.py"))[1].root == str(tree)
    monkeypatch.chdir(tree / "project" / "src")
    assert rules("deep", str(tree / "beside"))[1].root == str(tree / "project")


def test_without_pathspec_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Which files count is told by patterns, the default as well."""
    monkeypatch.setitem(sys.modules, "pathspec", None)
    assert main.main(["hup", "server.pid"]) == 2
    why = "hup finds its files by patterns: pathspec is not installed; pip install pathspec"
    assert capfd.readouterr().err == f"wsgi-reload: {why}\n"


def test_listed_files_count_too(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting `extra_files` adds to the paths; the pid file itself never counts."""
    monkeypatch.setenv("WSGI_RELOAD_EXTRA_FILES", "*.html,**/*.pid")
    Path("server.pid").touch()
    assert rules("src/deep")[1].extra() == {str(Path("a.html").absolute()), str(Path("src/deep/c.py").absolute())}


# -- code that is no good --------------------------------------------------------------------------------------------


@pytest.mark.adapters
@pytest.mark.parametrize("options", [(), ("--python", sys.executable)], ids=["ours", "the server's"])
def test_what_does_not_compile_is_withheld(options: Sequence[str], project: Project, server: LittleServer) -> None:
    """Told once with its place; a good save beside it changes nothing; the repair brings both."""
    project.save("views.py", "")
    with Hup(project, "server.pid", *options) as watcher:
        project.save("views.py", "x = 1\n\ndef\n")
        watcher.wait_for_log(patterns.refused(r"views\.py, line 3: SyntaxError"))
        project.release()
        watcher.wait_for_log(r"still refused: views\.py, line 3: SyntaxError")
        project.save("views.py", "x = 1\n")
        assert watcher.wait_sent(1) == "app.py, views.py"
        server.wait_got("SIGHUP")
        assert watcher.count(patterns.REFUSED) == 1


def test_what_is_taken_back(project: Project, server: LittleServer) -> None:
    """What was refused and is as before is nothing to send."""
    project.save("views.py", "")
    with Hup(project, "server.pid") as watcher:
        project.save("views.py", "def\n")
        watcher.wait_for_log(patterns.REFUSED)
        project.save("views.py", "")
        watcher.wait_for_log(r"views\.py: change reverted, nothing to reload")
        project.release()
        assert watcher.wait_sent(1) == "app.py"


@pytest.mark.adapters
def test_what_does_not_load_is_withheld(project: Project, server: LittleServer) -> None:
    """With `--app` all that fails at import is refused, with the traceback; a repair outside of PATH counts, too."""
    outside = project.root / "outside"
    outside.mkdir()
    project.save("outside/part.py", "VALUE = 1\n")
    with Hup(
        project, "server.pid", "app.py", "--app", "app:app", environment={"PYTHONPATH": f"{outside}:{PACKAGE_ROOT}"}
    ) as watcher:
        project.broken(top="import part; part.OTHER")
        watcher.wait_for_log(patterns.refused(r"app\.py, line \d+: AttributeError: module 'part' has no"))
        assert "  Traceback" in watcher.log
        project.save("outside/part.py", "VALUE = OTHER = 1\n")
        watcher.wait_sent(1)
        server.wait_got("SIGHUP")
        project.broken(bottom="del app")
        watcher.wait_for_log(patterns.refused(r"has no callable 'app'"))
        project.release()
        watcher.wait_sent(2)
        server.wait_got("SIGHUP", "SIGHUP")


@pytest.mark.adapters
def test_the_last_save_wins(project: Project, server: LittleServer) -> None:
    """Saved while the one before is being tried: that is tried in its place."""
    with Hup(project, "server.pid", "--app", "app:app") as watcher:
        project.save("app.py", SLOW)
        wait_until((project.root / "began").exists, "it is being tried")
        project.broken(top="undefined_name")
        watcher.wait_for_log(patterns.refused("NameError"))
        project.release()
        watcher.wait_sent(1)
        server.wait_got("SIGHUP")
        assert watcher.count(patterns.REFUSED) == 1


def test_where_the_server_runs(project: Project, server: LittleServer, tmp_path: Path) -> None:
    """`--chdir` and `--python`: the application is found from there, with what that interpreter has by itself."""
    project.save("app/code/shop.py", "import part\ndef make(): return lambda: None\n")
    project.save("venv/part.py", "")
    python = project.root / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={project.root}/venv:$PYTHONPATH exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    options = ("--app", "shop:make()", "--chdir", "app/code", "--python", "./python")
    with Hup(project, "server.pid", "app", *options) as watcher:
        project.save("app/code/shop.py", "import part\ndef make(): return lambda: 1\n")
        assert watcher.wait_sent(1) == "app/code/shop.py"


# -- nobody to send it to --------------------------------------------------------------------------------------------


def test_a_server_that_comes_later(project: Project) -> None:
    """No pid file: told once, and waited for. Who was started after the save has it, and is told nothing."""
    with Hup(project, "server.pid") as watcher:
        assert "for no server yet (server.pid: there is no such file)" in watcher.log
        project.release()
        watcher.wait_for_log(patterns.NOT_YET + r"there is no such file")
        # What the system tells of times is coarse.
        holds(lambda: watcher.count(patterns.NOT_YET) == 1, "told once", 0.3)
        with LittleServer(project.root) as server:
            assert watcher.wait_for_log(patterns.TOO_LATE)["what"] == "app.py"
            project.release()
            server.wait_got("SIGHUP")
            watcher.wait_sent(1)
        assert watcher.count(patterns.NOT_YET) == 1 and len(watcher.sent()) == 1


def put(server: LittleServer, text: str, mtime_ns: int | None = None) -> None:
    """A pid file in one piece."""
    new = server.pidfile.with_suffix(".new")
    new.write_text(text)
    date(new, mtime_ns or time.time_ns())
    new.rename(server.pidfile)


def test_a_pid_file_that_is_no_good_for_a_while(project: Project, server: LittleServer) -> None:
    """Each state is told once; the change waits until the file is good again, and goes out once."""
    put(server, "")
    with Hup(project, "server.pid", "--verbose") as watcher:
        project.release()
        watcher.wait_for_log(patterns.NOT_YET + "it is empty")
        put(server, str(pid_of_the_dead()))
        watcher.wait_for_log(patterns.NOT_YET + "is gone")
        put(server, str(server.pid), LONG_AGO)
        watcher.wait_for_log(patterns.NOT_YET + "was started after it was written")
        project.save("views.py", "")
        watcher.wait_for_log("TRYING -> SWITCHING", 2)
        holds(lambda: not server.got(), "nothing is sent", 0.6)
        server.pidfile.touch()
        assert watcher.wait_sent(1) == "app.py, views.py"
        server.wait_got("SIGHUP")
        assert watcher.count(patterns.NOT_YET) == 3


def test_a_process_that_would_not_survive(project: Project) -> None:
    """Somebody that catches no HUP is left alone."""
    bystander = subprocess.Popen([shutil.which("sleep") or "sleep", "1000"])
    try:
        (project.root / "server.pid").write_text(str(bystander.pid))
        with Hup(project, "server.pid") as watcher:
            project.release()
            watcher.wait_for_log(patterns.NOT_YET + r"\(sleep\) does not catch SIGHUP")
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_what_waits_is_not_sent_with_what_is_broken(project: Project, server: LittleServer) -> None:
    """A good save that could not be sent, then a broken one, and the file is good again: still nothing. The broken
    one taken back: the good one goes out."""
    project.save("views.py", "")
    away = server.pidfile.rename(project.root / "away.pid")
    with Hup(project, "server.pid") as watcher:
        project.release()
        watcher.wait_for_log(patterns.NOT_YET)
        project.save("views.py", "def\n")
        watcher.wait_for_log(patterns.REFUSED)
        away.rename(server.pidfile)
        holds(lambda: not server.got(), "nothing is sent", 0.6)
        project.save("views.py", "")
        assert watcher.wait_sent(1) == "app.py"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter: the ones of pytest are for their owner alone."""
    folder = Path(tempfile.mkdtemp(prefix="wrh-public-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def our_package(public: Path) -> dict[str, str]:
    """An environment in which every user finds our package and what it needs: not in ours where that lives in root's home."""
    for folder in (PACKAGE, Path(pathspec.__file__).parent):
        shutil.copytree(folder, public / "lib" / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    return {"PYTHONPATH": str(public / "lib")}


def python_of(user: str) -> str:
    """An interpreter that *user* may run: not ours where that lives in root's home."""
    code = "import sys; sys.exit(sys.version_info < (3, 10))"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            if subprocess.run([python, "-c", code], user=user, extra_groups=[], check=False).returncode == 0:
                return python
        except OSError:
            continue
    pytest.skip(f"there is no interpreter that {user} may run")


@pytest.mark.adapters
@needs_root
def test_somebody_elses_server(server: LittleServer, public: Path) -> None:
    """Neither the right to signal it, nor to read the file: told once, nothing is sent, and it goes on."""
    project = Project(public / "project")
    project.release()
    pidfile = public / "server.pid"
    pidfile.write_text(str(server.pid))
    with AsNobody(project, pidfile, environment=our_package(public)) as watcher:
        project.release()
        watcher.wait_for_log(patterns.NOT_YET + f"{server.pid} is not ours to signal")
        pidfile.chmod(0)
        watcher.wait_for_log(patterns.NOT_YET + r".*cannot be read \(Permission denied\)")
        assert server.got() == [] and watcher.count(patterns.NOT_YET) == 2


class AsNobody(Hup):
    """Run by an ordinary user."""

    def __init__(self, project: Project, *options: str | Path, environment: Mapping[str, str]) -> None:
        super().__init__(project, *options, run_as="nobody", environment=environment)
        self._command[0] = python_of("nobody")


@needs_root
def test_code_is_tried_without_the_rights_of_root(public: Path) -> None:
    """As root it needs a user: with his rights the code is tried, and the interpreter asked."""
    project = Project(public / "project")
    project.release()
    (public / "notes").write_text("")
    (public / "notes").chmod(0o666)
    note = f"open({str(public / 'notes')!r}, 'a').write('%s %s\\n' % (os.getresuid(), os.getgroups()))"
    options = ["server.pid", "--app", "app:app", "--user", "nobody", "--python", python_of("nobody")]
    with (
        LittleServer(project.root) as server,
        Hup(project, *options, environment=our_package(public)) as watcher,
    ):
        project.release(top=note)
        watcher.wait_sent(1)
        server.wait_got("SIGHUP")
        user = pwd.getpwnam("nobody")
        assert (public / "notes").read_text().startswith(f"{(user.pw_uid,) * 3} [{user.pw_gid}")


@needs_root
def test_root_has_to_name_a_user(capfd: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2."""
    assert main.main(["hup", "x.pid", "--app", "app"]) == 2
    assert "name the user of the server's workers, --user" in capfd.readouterr().err


# -- a command instead -----------------------------------------------------------------------------------------------


def test_a_command_instead(project: Project, server: LittleServer) -> None:
    """It gets the number; nothing is signalled; what fails or is not there is told, and it goes on."""
    (project.root / "run.sh").write_text("echo $* >> ran; test $(wc -l < ran) = 1")
    with Hup(project, "server.pid", "--exec", "sh run.sh 'a b' pid={pid}") as watcher:
        project.release()
        watcher.wait_for_log(patterns.COMMAND + rf"for {server.pid} \(.*\): app\.py")
        wait_until((project.root / "ran").exists, "it ran")
        project.release()
        watcher.wait_for_log(patterns.OURS + rf"the command ended with exit code 1: sh run.sh 'a b' pid={server.pid}")
        assert (project.root / "ran").read_text() == f"a b pid={server.pid}\n" * 2
        assert server.got() == []


def test_one_command_after_the_other(project: Project, server: LittleServer) -> None:
    """Saved while it runs: it runs once more when it has ended."""
    (project.root / "run.sh").write_text("echo >> ran; until test -e go; do sleep 0.02; done")
    with Hup(project, "server.pid", "--exec", "sh run.sh") as watcher:
        project.release()
        watcher.wait_for_log(patterns.COMMAND)
        project.save("views.py", "")
        holds(lambda: watcher.count(patterns.COMMAND) == 1, "one at a time", 0.3)
        (project.root / "go").touch()
        assert watcher.wait_for_log(patterns.COMMAND, 2)["what"].endswith(": views.py")


def test_a_command_that_is_not_there(project: Project, server: LittleServer) -> None:
    """One line for each change."""
    with Hup(project, "server.pid", "--exec", "no-such-command {pid}") as watcher:
        for count in (1, 2):
            project.release()
            watcher.wait_for_log(patterns.OURS + "the command cannot be started: no-such-command", count)


def test_a_command_that_does_not_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed when its time is over, with what it has started; the time is an argument."""
    monkeypatch.chdir(tmp_path)
    command = ["sh", "-c", "sleep 1000 & echo $! > child; wait"]
    with LittleServer(tmp_path) as server:
        journal = ReloadLog(Console(), str(tmp_path))
        sender = SignalSender(PidFile(str(server.pidfile)), signal.SIGHUP, command, journal)
        assert sender.step({"app.py"}, time.monotonic(), 0.0)
        child = wait_until(lambda: (Path("child").exists() and Path("child").read_text().strip()) or "", "its child")
        sender.look(COMMAND_AT_MOST - 1)
        assert sender.busy and not sender.step({"app.py"}, time.monotonic(), COMMAND_AT_MOST - 1)
        sender.look(COMMAND_AT_MOST + 1)
        assert not sender.busy
        wait_until(lambda: not processes.alive(int(child)), "its child is gone")
        assert "the command did not end within 60 s, and was killed: sh -c" in capfd.readouterr().err


def test_a_server_that_began_just_before_the_save(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not have it, however long we stand still between our questions."""
    with LittleServer(project.root) as server:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() > began + 0.3, "a save after its start")
        saved = time.monotonic()

        def stand_still(*given: object) -> None:
            wait_until(lambda: time.monotonic() > saved + 1.0, "it goes on")

        monkeypatch.setattr(pidfile, "_check_children", stand_still)
        journal = ReloadLog(Console(), str(project.root))
        sender = SignalSender(PidFile(str(server.pidfile)), signal.SIGHUP, None, journal)
        assert sender.step({"app.py"}, saved, time.monotonic())
        server.wait_got("SIGHUP")


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.adapters
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "arguments are required: PIDFILE"),
        (("x.pid", "--no-such-option"), "--no-such-option"),
        (("x.pid", "no/such/path"), "no/such/path: there is no such file or folder"),
        (("x.pid", "--chdir", "no/such/path"), "--chdir no/such/path: there is no such folder"),
        (("x.pid", "--signal", "HUPP"), "there is no signal 'HUPP'"),
        (("x.pid", "--signal", "0"), "there is no signal '0'"),
        (("x.pid", "--signal", "99999"), "there is no signal '99999'"),
        (("x.pid", "--exec", "'"), "No closing quotation"),
        (("x.pid", "--exec", ""), "no command"),
        (("x.pid", "--exec", "true", "--signal", "HUP"), "not allowed with"),
        (("x.pid", "--app", "shop/wsgi.py"), "'shop/wsgi.py' is not like shop.wsgi"),
        (("x.pid", *AS_ROOT, "--python", "no-such-python"), "no-such-python: there is no such program"),
        (("x.pid", *AS_ROOT, "--app", "app", "--python", "true"), "does not tell its search path"),
        (("x.pid", "--user", "no-such-user"), "there is no user 'no-such-user'"),
    ],
)
def test_wrong_arguments(words: Sequence[str], complaint: str, capfd: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2."""
    assert main.main(["hup", *words]) == 2
    said = capfd.readouterr().err
    assert complaint in said and said.count("\n") == 1 and said.startswith("wsgi-reload: ")


def test_a_wrong_setting(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, exit code 2."""
    monkeypatch.setenv("WSGI_RELOAD_STEP", "soon")
    assert main.main(["hup", "x.pid"]) == 2
    assert re.fullmatch(r"wsgi-reload: setting step = 'soon' .*\n", capfd.readouterr().err)


@pytest.mark.adapters
@pytest.mark.parametrize("name", ["HUP", "hup", "SIGHUP", "1"])
def test_the_names_of_a_signal(name: str) -> None:
    """With SIG, without, or its number."""
    parser = argparse.ArgumentParser()
    hup.arguments(parser)
    assert parser.parse_args(["x.pid", "--signal", name]).signal is signal.SIGHUP
    assert parser.parse_args(["x.pid"]).signal is None


# -- the end ---------------------------------------------------------------------------------------------------------


def test_interrupted_at_once(project: Project) -> None:
    """As soon as it says anything."""
    with Hup(project, "server.pid", "--app", "app:app", wait=False) as watcher:
        wait_until(lambda: watcher.log, "a line")
        watcher.interrupt()


def test_interrupted_while_it_tries(project: Project, server: LittleServer) -> None:
    """The interpreter in which the code is tried goes, too."""
    with Hup(project, "server.pid", "--app", "app:app") as watcher:
        project.save("app.py", SLOW)
        wait_until((project.root / "began").exists, "it is being tried")
        watcher.interrupt()


def test_interrupted_while_a_command_runs(project: Project, server: LittleServer) -> None:
    """The command goes, too."""
    with Hup(project, "server.pid", "--exec", "sleep 1000") as watcher:
        project.release()
        watcher.wait_for_log(patterns.COMMAND)
        watcher.interrupt()


def test_interrupted_while_it_waits(project: Project) -> None:
    """For a pid file."""
    with Hup(project, "server.pid") as watcher:
        project.release()
        watcher.wait_for_log(patterns.NOT_YET)
        watcher.interrupt()


def test_told_to_end_while_it_tries(project: Project, server: LittleServer) -> None:
    """SIGTERM is as good, with its own exit code."""
    with Hup(project, "server.pid", "--app", "app:app") as watcher:
        project.save("app.py", SLOW)
        wait_until((project.root / "began").exists, "it is being tried")
        watcher.stop()
        assert "Traceback" not in watcher.log


def test_killed_while_it_tries(project: Project, server: LittleServer) -> None:
    """Nothing outlives it, even so."""
    with Hup(project, "server.pid", "--app", "app:app") as watcher:
        project.save("app.py", SLOW)
        wait_until((project.root / "began").exists, "it is being tried")
        left = watcher.processes()
        watcher.send(signal.SIGKILL)
        assert watcher.exit_status() == -signal.SIGKILL
        watcher.assert_nothing_left(left)
        watcher.forget()
