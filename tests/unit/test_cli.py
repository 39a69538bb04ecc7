"""`wsgi-reload`, the command line: one line for whatever is wrong, the right exit code, and never a traceback."""

from __future__ import annotations

import atexit
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from edits import PACKAGE_ROOT, save

import wsgi_reload_hooks
from wsgi_reload_hooks.cli import run
from wsgi_reload_hooks.cli.main import COMMANDS, main

pytestmark = pytest.mark.unit

MODULE = (sys.executable, "-m", "wsgi_reload_hooks")
# What the script does that the installer makes of the entry point.
SCRIPT = (sys.executable, "-c", "import sys\nfrom wsgi_reload_hooks.__main__ import main\nsys.exit(main())")
LIMIT = 30
# No server of another test is seen in it.
RUNTIME = tempfile.TemporaryDirectory(prefix="wrh-")
atexit.register(RUNTIME.cleanup)


def environment(**settings: str) -> dict[str, str]:
    """That of the tests, without settings but these, and with the package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WSGI_", "PYTHON"))}
    return {**kept, "PYTHONPATH": str(PACKAGE_ROOT), "COLUMNS": "80", "XDG_RUNTIME_DIR": RUNTIME.name, **settings}


def cli(folder: Path, *words: str, program: Sequence[str] = MODULE, shell: str = "") -> tuple[int, str, str]:
    """Exit code, output and error output of ``wsgi-reload WORDS``. *shell*: what a shell would have behind the command."""
    command = ["/bin/sh", "-c", f'"$@" {shell}', "sh", *program, *words] if shell else [*program, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False
    )
    return done.returncode, done.stdout, done.stderr


def complaint(folder: Path, *words: str, program: Sequence[str] = MODULE) -> tuple[int, str]:
    """Exit code and the one line on standard error."""
    status, output, errors = cli(folder, *words, program=program)
    assert output == ""
    assert re.fullmatch(r"wsgi-reload: [^\n]+\n", errors), errors
    return status, errors[len("wsgi-reload: ") : -1]


# -- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_fits_a_screen(tmp_path: Path, words: list[str]) -> None:
    """What there is to know fits on one screen, of 80 columns."""
    status, output, errors = cli(tmp_path, *words)
    assert (status, errors) == (0, "")
    assert output.startswith("usage: wsgi-reload")
    rows = sum(max(1, math.ceil(len(line) / 80)) for line in output.splitlines())
    assert rows <= 50
    assert all(name in output for name in COMMANDS) or words != ["--help"]


def test_version(tmp_path: Path) -> None:
    """The version is that of the package."""
    assert cli(tmp_path, "--version") == (0, f"wsgi-reload {wsgi_reload_hooks.__version__}\n", "")


@pytest.mark.parametrize("program", [MODULE, SCRIPT], ids=["module", "script"])
def test_module_and_script_are_alike(tmp_path: Path, program: tuple[str, ...]) -> None:
    """``python -m wsgi_reload_hooks`` and the console script are the same program."""
    assert cli(tmp_path, "--version", program=program)[0] == 0
    assert cli(tmp_path, "run", "--", "sh", "-c", "echo out; exit 0", program=program) == (0, "out\n", "")
    assert complaint(tmp_path, "nosuch", program=program)[0] == 2


def test_installed_script() -> None:
    """Where it is installed, the command is on the path of its interpreter."""
    found = shutil.which("wsgi-reload", path=os.path.dirname(sys.executable))
    if found is None:
        pytest.skip("not installed")
    assert subprocess.run([found, "--version"], capture_output=True, timeout=LIMIT, check=False).returncode == 0


def test_completion(tmp_path: Path) -> None:
    """A shell that asks argcomplete's way is told what may come next."""
    pytest.importorskip("argcomplete")
    line = "wsgi-reload re"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": " ", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = subprocess.run(
        [*SCRIPT],
        cwd=tmp_path,
        env={**environment(), **asked, "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "told")},
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.stderr == b""
    assert sorted((tmp_path / "told").read_text().split()) == ["reload", "resume"]


# -- complaints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ([], 2, "the following arguments are required: COMMAND; see wsgi-reload --help"),
        (["nosuch"], 2, "'nosuch'"),
        (["--nosuch"], 2, "see wsgi-reload --help"),
        (["run"], 2, "there is no program to run: wsgi-reload run -- python app.py"),
        (["run", "--"], 2, "there is no program to run"),
        (["run", "--nosuch", "--", "true"], 2, "unrecognized arguments: --nosuch; see wsgi-reload run --help"),
        (["run", "-m"], 2, "there is no module to run: wsgi-reload run -m shop.worker"),
        (["run", "--listen", "99999", "--", "true"], 2, "'99999' is no address: use HOST:PORT"),
        (["serve", "module.py:app"], 2, "'module.py:app' names a file: name its module, as in shop.wsgi:application"),
        (["hup"], 2, "the following arguments are required: PIDFILE; see wsgi-reload hup --help"),
        (["status", "--nosuch"], 2, "unrecognized arguments: --nosuch; see wsgi-reload status --help"),
        (["status", "\033]0;x\007"], 2, "\\x1b]0;x\\x07"),
        (["status"], 1, "no server of this user runs with these hooks; one of another user: sudo -u USER"),
        (["run", "--watch"], 2, "argument --watch: expected one argument; see wsgi-reload run --help"),
        (["run", "--wat", "*.py", "--", "true"], 2, "--wat"),
        (["run", "--app", "a b", "true"], 2, "'a b' names no application"),
        (["run", "nosuch"], 127, "nosuch: there is no such program"),
        (["run", "./nosuch"], 127, "./nosuch: there is no such program"),
        (["run", ""], 127, ": there is no such program"),
        (["run", "nosuch.py"], 2, "nosuch.py: there is no such file"),
        (["run", "./plain"], 126, "./plain: is not executable: chmod +x it, or name an interpreter"),
        (["run", "plain"], 127, "plain: there is no such program"),
        (["run", "./folder"], 126, "./folder: is"),
        (["run", "./noformat"], 126, "./noformat: cannot be run: Exec format error"),
        (["run", "./nointerpreter"], 126, "./nointerpreter: cannot be run: No such file or directory"),
        (["run", "--", "no\nsuch"], 127, "no such: there is no such program"),
        (["status", "12x"], 2, "argument PID: '12x' is no pid; see wsgi-reload status --help"),
        (["status", "--timeout", "soon"], 2, "argument --timeout: 'soon' is no number of seconds"),
        (["status", "999999999"], 1, "999999999 is no server of this user with these hooks: see wsgi-reload status"),
        (["status", "--wait"], 1, "no server of this user runs with these hooks"),
        (["reload"], 1, "no server of this user runs with these hooks"),
        (["resume", "1"], 1, "1 is no server of this user with these hooks"),
        (["pause", "--for", "soon"], 2, "argument --for: 'soon' is no time: give seconds, or 90s, 10m, 2h, 1d"),
        (["pause", "--for", "0"], 2, "'0' is no time"),
        (["explain"], 2, "the following arguments are required: PATH; see wsgi-reload explain --help"),
        (["explain", "--pid", "1", "x"], 1, "1 is no server of this user with these hooks"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_complaints(tmp_path: Path, words: list[str], status: int, text: str) -> None:
    """Whatever is wrong with the words is told in one line; 127 for a program that is missing, 126 for one that cannot be
    run."""
    (tmp_path / "folder").mkdir()
    save(tmp_path / "module.py", "")
    save(tmp_path / "plain", "#!/bin/sh\n")
    save(tmp_path / "noformat", "no format\n").chmod(0o755)
    save(tmp_path / "nointerpreter", "#!/no/such/interpreter\n").chmod(0o755)
    found = complaint(tmp_path, *words)
    assert found[0] == status and text in found[1]


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """A table of settings that cannot be read is told in one line."""
    save(tmp_path / "pyproject.toml", "[tool.wsgi_reload_hooks]\nx = \n")
    status, text = complaint(tmp_path, "run", "true")
    assert status == 2 and "pyproject.toml" in text


@pytest.mark.parametrize("status", [0, 1, 2, 5, 126, 127, 255])
def test_exit_code_of_the_program(tmp_path: Path, status: int) -> None:
    """The exit code is that of the program, where its end is an end."""
    words = ["sh", "-c", f"exit {status}"]
    code = f"import os; os.environ['WSGI_RELOAD_BROKEN_START'] = 'exit'; from wsgi_reload_hooks.cli.main import main; raise SystemExit(main(['run', *{words!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


@pytest.mark.parametrize(
    ("words", "ours", "program"),
    [
        ([], [], []),
        (["app.py", "-v", "--help"], [], ["app.py", "-v", "--help"]),
        (["-v", "--", "-x"], ["-v"], ["--", "-x"]),
        (["--watch", "*.a", "--watch=*.b", "-m", "x"], ["--watch", "*.a", "--watch=*.b"], ["-m", "x"]),
        (["-c", "pass"], [], ["-c", "pass"]),
        (["--listen", "0", "--app", "a:b", "x", "--", "y"], ["--listen", "0", "--app", "a:b"], ["x", "--", "y"]),
        (["--app"], ["--app"], []),
    ],
)
def test_where_the_program_begins(words: list[str], ours: list[str], program: list[str]) -> None:
    """Our options end where the program begins: what follows is all its own."""
    assert run.split(words) == (ours, program)


def test_main_raises_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called from Python, it answers with the exit code, and leaves the signals alone."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    assert main(["run", "nosuch"]) == 127
    assert capfd.readouterr() == ("", "wsgi-reload: nosuch: there is no such program\n")
    assert signal.getsignal(signal.SIGINT) is before


def test_explain_of_what_is_not_there(tmp_path: Path) -> None:
    """Of a name that is mistyped it is said that there is no such file."""
    save(tmp_path / "there.py", "")
    assert "no such file" not in cli(tmp_path, "explain", "there.py")[1]
    assert "\n  no such file\n" in cli(tmp_path, "explain", "their.py")[1]


@pytest.mark.parametrize("words", [["check", "x"], ["doctor"], ["explain", "x"], ["run", "true"]], ids=" ".join)
def test_a_working_directory_that_is_gone(tmp_path: Path, words: list[str]) -> None:
    """A command that needs its working directory says that it is gone."""
    (tmp_path / "gone").mkdir()
    leave = ("/bin/sh", "-c", 'cd gone && rmdir ../gone && exec "$@"', "sh", *MODULE)
    text = "the working directory is not there any more: change to another one"
    assert complaint(tmp_path, *words, program=leave) == (1, text)


# -- closed and broken files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["run", "true"],
        ["nosuch"],
        ["explain", "x"],
        ["status", "--json"],
        ["doctor", "--", "uwsgi"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_files(tmp_path: Path, words: list[str], shell: str) -> None:
    """With its files closed it does what it can, and says nothing of it."""
    status, output, errors = cli(tmp_path, *words, shell=shell)
    assert "Traceback" not in errors and "rror" not in errors
    assert status == (2 if words == ["nosuch"] else status)
    if words == ["run", "true"]:
        assert (status, output, errors) == (0, "", "")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"], ["explain", "x"]], ids=" ".join)
def test_a_pipe_that_nobody_reads(tmp_path: Path, words: list[str]) -> None:
    """Whoever has seen enough of the help is told nothing more."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*MODULE, *words],
            cwd=tmp_path,
            env=environment(),
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=LIMIT,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """What cannot be written is told once."""
    status, _, errors = cli(tmp_path, "--help", shell="> /dev/full")
    assert (status, errors) == (1, "wsgi-reload: No space left on device\n")


# -- Ctrl-C ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [MODULE, SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize(
    "words", [["--help"], ["run", "sleep", "600"], ["run", "-c", "import time; time.sleep(600)"]], ids=" ".join
)
def test_ctrl_c_at_any_moment(tmp_path: Path, program: tuple[str, ...], words: list[str]) -> None:
    """Ctrl-C ends it, whenever it comes: as one that was interrupted, and without a word of ours.

    Until the interpreter has begun with our first instruction, it is Python's own word.
    """
    chance = random.Random(repr((program, words)))
    lost = 0
    for _ in range(4):
        began = subprocess.Popen(
            [program[0], "-X", "importtime", *program[1:], *words],
            cwd=tmp_path,
            env=environment(WSGI_RELOAD_KILL_AFTER="3"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert began.stderr is not None
        # The first module that we load after our first instruction.
        for line in began.stderr:
            if line.rpartition("|")[2].strip() == "argparse":
                break
        time.sleep(chance.uniform(0, 0.25))
        began.send_signal(signal.SIGINT)
        _, errors = began.communicate(timeout=LIMIT)
        said = "\n".join(line for line in errors.splitlines() if not line.startswith("import time:"))
        theirs = said[said.find("Traceback") :] if "Traceback" in said else ""
        # A Python that is still beginning makes a fatal error of it, and that is what it ends with.
        begins = "init_import_site" in said and "-c" in words
        expected = {130, -signal.SIGINT, *([0] if words == ["--help"] else []), *([1] if begins else [])}
        if "-c" in words and began.returncode == -signal.SIGKILL:
            # Or it loses it, about once in a thousand times, without us as well.
            lost += 1
            continue
        assert began.returncode in expected, said
        # A Python that runs the program and is interrupted has something to say; it is not ours.
        assert "wsgi_reload_hooks" not in theirs or "-c" in words, said
        assert "supervisor.py" not in said and "cli.py" not in said, said
    assert lost <= 1
