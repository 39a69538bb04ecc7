"""`wsgi-reload run`: real programs, real saves; what goes into service, what is refused, and how it ends."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from edits import PACKAGE_ROOT, save, save_atomically
from harness import Script, holds, processes, wait_until
from harness.script import BROKEN_START, ENDED, OURS, REFUSED, RESTARTED, REVERTED, RUN, WATCHING
from harness.steering import commanded

PYTHON = sys.executable
STAY = "import time\nprint({version!r}, flush=True)\nwhile True:\n    time.sleep(0.05)\n"
GUARDED = """\
import part
def main():
    import time
    print("serving", part.VERSION, flush=True)
    while True:
        time.sleep(0.05)
if __name__ == "__main__":
    main()
"""


def stay(version: str) -> str:
    """A script that says its version and stays."""
    return STAY.format(version=version)


def guarded(tmp_path: Path) -> Path:
    """A script that asks whether it is ``__main__``, and its module `part`; what that is."""
    save(tmp_path / "app.py", GUARDED)
    return save(tmp_path / "part.py", "VERSION = 'v1'\n")


def told(script: Script, prefix: str = "{") -> dict[str, object]:
    """The dictionary that the program has printed."""
    line = wait_until(
        lambda: next((line for line in script.log.splitlines() if line.startswith(prefix) and line.endswith("}")), ""),
        "it prints a dictionary",
    )
    found: dict[str, object] = ast.literal_eval(line)
    return found


# -- saves -----------------------------------------------------------------------------------------------------------


@pytest.mark.adapters
def test_a_save_restarts_the_script(tmp_path: Path) -> None:
    """A script without any question for ``__main__`` is started again when it is saved; one line says so."""
    path = save(tmp_path / "app.py", stay("v1"))
    with Script(tmp_path, "app.py") as script:
        script.said("v1")
        script.said(WATCHING)
        save_atomically(path, stay("v2"))
        script.said("v2")
        assert script.said(RESTARTED) == "app.py"
        assert script.log.count("v1") == script.log.count("v2") == 1


def test_a_module_of_the_script(tmp_path: Path) -> None:
    """A save of a module that the program has loaded restarts it; of one that it has not, does not."""
    part = guarded(tmp_path)
    other = save(tmp_path / "other.py", "VERSION = 1\n")
    with Script(tmp_path, "app.py") as script:
        script.said("serving v1")
        script.quiet()
        save(other, "VERSION = 2\n")
        save(part, "VERSION = 'v2'\n")
        script.said("serving v2")
        assert script.said(RESTARTED) == "part.py"
        assert script.count(RESTARTED) == 1


@pytest.mark.adapters
def test_package(tmp_path: Path) -> None:
    """``-m package`` runs its ``__main__``, and that and all modules of it are watched."""
    save(tmp_path / "shop" / "__init__.py", "")
    main = save(tmp_path / "shop" / "__main__.py", "from . import part\n" + stay("main 1"))
    part = save(tmp_path / "shop" / "part.py", "print('part 1')\n")
    with Script(tmp_path, "-m", "shop") as script:
        script.said("main 1")
        script.quiet()
        save(part, "print('part 2')\n")
        script.said("part 2\nmain 1")
        script.said(WATCHING)
        save(main, "from . import part\n" + stay("main 2"))
        script.said("main 2")
        script.said(RESTARTED, 2)
        assert script.count(RESTARTED) == 2


def test_any_command(tmp_path: Path) -> None:
    """A program that is no Python is restarted for what ``--watch`` lists, and that it tells nothing is said."""
    path = save(tmp_path / "setting.yaml", "one\n")
    with Script(tmp_path, "sh", "-c", "cat setting.yaml; exec sleep 600", options=["--watch", "*.yaml"]) as script:
        script.said("one")
        assert "watching 1 files" in script.said("the program does not tell what it loads .*")
        save(path, "two\n")
        script.said("two")
        assert script.said(RESTARTED) == "setting.yaml"
        new = save(tmp_path / "new.yaml", "one\n")
        assert script.said(RESTARTED, 2) == "new.yaml"
        # It is one of them now: a touch is no change.
        os.utime(new, (1, 1))
        assert commanded(script, "status", "--wait")[0] == 0
        assert script.count(RESTARTED) == 2


def test_a_shell_script_that_starts_python(tmp_path: Path) -> None:
    """Whoever starts the Python, what it loads is told; and its script is not run a second time beside it."""
    path = save(tmp_path / "app.py", "import part\nopen('runs', 'a').write('x')\n" + stay("v1"))
    part = save(tmp_path / "part.py", "")
    save(tmp_path / "start.sh", f"#!/bin/sh\n'{PYTHON}' app.py\n").chmod(0o755)
    with Script(tmp_path, "./start.sh") as script:
        script.said("v1")
        script.quiet()
        assert (tmp_path / "runs").read_text() == "x"
        save(part, "print('part 2')\n")
        script.said("part 2")
        save(path, stay("v2"))
        script.said("v2")


@pytest.mark.parametrize("how", ["module", "joined", "grandchild"])
def test_what_runs_as_main_is_not_run_beside_the_program(tmp_path: Path, how: str) -> None:
    """A module that does its work when it is loaded, run by ``-m``, or started by the program, is never tried by
    importing it: its work would be done twice."""
    save(tmp_path / "worker.py", "import part\nopen('runs', 'a').write('x')\n" + stay("works"))
    part = save(tmp_path / "part.py", "")
    save(tmp_path / "app.py", f"import subprocess\nsubprocess.run([{PYTHON!r}, 'worker.py'])\n")
    words = {"module": ["-m", "worker"], "joined": [PYTHON, "-umworker"], "grandchild": ["app.py"]}[how]
    with Script(tmp_path, *words) as script:
        script.said("works")
        script.quiet()
        assert (tmp_path / "runs").read_text() == "x"
        save(part, "x = 1\n")
        script.said("works", 2)
        assert (tmp_path / "runs").read_text() == "xx"


def test_many_saves(tmp_path: Path) -> None:
    """Of thirty saves in quick succession the last one wins."""
    path = save(tmp_path / "app.py", stay("v0"))
    with Script(tmp_path, "app.py") as script:
        script.said("v0")
        for number in range(1, 31):
            save_atomically(path, stay(f"version {number};"))
        script.said("version 30;")
        holds(lambda: script.log.rindex("version") == script.log.rindex("version 30;"), "it is the last")


def test_a_save_while_the_old_one_leaves(tmp_path: Path) -> None:
    """A save while the old program takes its time to leave is in the new one; two never run side by side."""
    leave = "import os, signal, time\ndef leave(*_):\n    print('leaving', flush=True)\n"
    leave += "    while not os.path.exists('go'):\n        time.sleep(0.01)\n    raise SystemExit\n"
    leave += "signal.signal(signal.SIGTERM, leave)\nprint('can leave:', os.getpid(), flush=True)\n"
    path = save(tmp_path / "app.py", leave + stay("v1"))
    with Script(tmp_path, "app.py") as script:
        script.stop_status = 0
        script.said("v1")
        save(path, leave + stay("v2"))
        script.said("leaving")
        save(path, leave + stay("v3"))
        save(tmp_path / "go", "")
        script.said("v3")
        assert script.said(RESTARTED) == "app.py"
        # A supervisor that stood still may hear of the last save when the new program runs, and start it once more.
        script.quiet()
        script.said(f"can leave: {script.program()}")
        assert "v2" not in script.log


def test_saved_between_its_import_and_our_hearing_of_it(tmp_path: Path) -> None:
    """A module that is saved just after it was loaded is loaded again."""
    save(tmp_path / "app.py", "import part, time\nprint('serving', part.VERSION, flush=True)\ntime.sleep(600)\n")
    text = "import os\nif VERSION == 'v1':\n    open('part.new', 'w').write(open('part.py').read().replace('v1', 'v2', 1))\n"
    save(tmp_path / "part.py", "VERSION = 'v1'\n" + text + "    os.replace('part.new', 'part.py')\n")
    with Script(tmp_path, "app.py") as script:
        script.said("serving v2")


def test_a_renamed_module(tmp_path: Path) -> None:
    """A module that gets another name, and its import with it, is a good save."""
    part = guarded(tmp_path)
    with Script(tmp_path, "app.py") as script:
        script.quiet()
        save(tmp_path / "piece.py", part.read_text())
        part.unlink()
        save_atomically(tmp_path / "app.py", (tmp_path / "app.py").read_text().replace("part", "piece"))
        script.said(RESTARTED)
        script.wait_for_trials()
        # What was seen in the middle of the three edits may have been refused.
        before = script.count(REFUSED)
        save(tmp_path / "piece.py", "1 / 0\n")
        assert script.said(REFUSED, before + 1).startswith("piece.py, line 1: ZeroDivisionError")


def test_a_script_by_any_name(tmp_path: Path) -> None:
    """A script without a suffix that imports nothing is watched as well."""
    tool = save(tmp_path / "tool", stay("v1"))
    with Script(tmp_path, PYTHON, "tool") as script:
        script.said("v1")
        script.said(WATCHING)
        save(tool, stay("v2"))
        script.said("v2")


def test_what_a_program_makes_runs_and_removes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Temporary scripts and modules of the program's own are no saves when they are gone."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(
        tmp_path / "app.py",
        f"""
import os, subprocess, sys, time
for number in range(3):
    name = os.path.join({str(elsewhere)!r}, f"made{{number}}.py")
    with open(name, "w") as file:
        file.write("import json")
    subprocess.run([sys.executable, name], check=True)
    time.sleep(0.3)
    os.unlink(name)
print("v1")
time.sleep(100)
""",
    )
    with Script(tmp_path, "app.py") as script:
        script.said("v1")
        script.said(WATCHING)
        holds(lambda: script.count("v1") == 1 and script.count(RESTARTED) == 0, "it runs on")


@pytest.mark.adapters
def test_a_lazy_import_is_watched(tmp_path: Path) -> None:
    """What the program imports later is watched from then on."""
    late = "import os, time\nwhile not os.path.exists('now'):\n    time.sleep(0.01)\nimport late\nprint(late.VERSION, flush=True)\n"
    save(tmp_path / "app.py", late + stay("stays"))
    path = save(tmp_path / "late.py", "VERSION = 'late 1'\n")
    with Script(tmp_path, "app.py") as script:
        script.said(WATCHING)
        save(tmp_path / "now", "")
        script.said("late 1")
        save(path, "VERSION = 'late 2'\n")
        script.said("late 2")


# -- broken saves ----------------------------------------------------------------------------------------------------


BROKEN = [
    ("app.py", GUARDED + "def f(:\n", "app.py, line 9: SyntaxError: "),
    ("app.py", "import nosuch\n" + GUARDED, "app.py, line 1: ModuleNotFoundError: "),
    ("part.py", "def f(:\n", "part.py, line 1: SyntaxError: "),
    ("part.py", "\nVERSION = nosuch\n", "part.py, line 2: NameError: "),
    ("part.py", "VERSION = 'bad'\nimport sys; sys.exit(4)\n", "part.py, line 2: SystemExit: 4"),
]


@pytest.mark.adapters
def test_broken_saves_leave_the_running_one(tmp_path: Path) -> None:
    """What does not compile, or cannot be imported, is refused: the running program never notices. Taken back, there is
    nothing to restart; repaired, it goes in."""
    guarded(tmp_path)
    with Script(tmp_path, "app.py") as script:
        script.said("serving v1")
        script.quiet()
        child = script.program()
        for number, (name, text, why) in enumerate(BROKEN, 1):
            good = (tmp_path / name).read_text()
            save(tmp_path / name, text)
            assert script.said(REFUSED, number).startswith(why)
            save(tmp_path / name, good)
            assert script.said(REVERTED, number) == name
        assert script.program() == child and script.count("serving v") == 1
        save(tmp_path / "part.py", "VERSION = nosuch\n")
        script.said(REFUSED, len(BROKEN) + 1)
        save(tmp_path / "part.py", "VERSION = 'v2'\n")
        script.said("serving v2")
        script.said(RESTARTED)
        assert script.count(RESTARTED) == 1


def test_a_deleted_module(tmp_path: Path) -> None:
    """A module that is gone makes no program that can be started: the running one stays until the module is back."""
    part = guarded(tmp_path)
    with Script(tmp_path, "app.py") as script:
        script.said("serving v1")
        script.quiet()
        part.unlink()
        assert "No module named 'part'" in script.said(REFUSED)
        save(part, "VERSION = 'v2'\n")
        script.said("serving v2")


def test_app_names_what_must_be_importable(tmp_path: Path) -> None:
    """``--app`` tells what has to be importable, where the program itself tells nothing of it."""
    save(tmp_path / "app.py", "import sys, part\nsys.exit() if __name__ != '__main__' else 0\n" + stay("stays"))
    part = save(tmp_path / "part.py", "def x(): pass\n")
    with Script(tmp_path, "app.py", options=["--app", "part:x"]) as script:
        script.said("stays")
        script.said(WATCHING)
        save(part, "y = 1\n")
        assert "part.py has no callable 'x'" in script.said(REFUSED)


@pytest.mark.adapters
@pytest.mark.parametrize("setting", ["wait", "exit"])
def test_a_broken_start(tmp_path: Path, setting: str) -> None:
    """What does not even compile at the very start waits for its repair, or ends with 1 (broken_start = exit)."""
    path = save(tmp_path / "app.py", "def f(:\n")
    with Script(tmp_path, "app.py", environment={"WSGI_RELOAD_BROKEN_START": setting}) as script:
        line = BROKEN_START if setting == "wait" else OURS + r"the application does not load: (?P<why>.*)"
        assert script.said(line).startswith("app.py, line 1: SyntaxError")
        if setting == "exit":
            assert script.ends() == 1
        else:
            save(path, stay("v1"))
            script.said("v1")


# -- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGPIPE])
def test_an_end_that_was_wanted(tmp_path: Path, status: int) -> None:
    """A program that ends with 0, or is told to leave by somebody, ends the supervisor in the same way."""
    end = f"os.kill(os.getpid(), {-status})" if status else ""
    save(tmp_path / "app.py", f"import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n{end}\n")
    command = [PYTHON, "-c", f"import os, signal\nsignal.signal({max(1, -status)}, signal.SIG_DFL)\n{end}\n"]
    with Script(tmp_path, *command) as script:
        assert script.ends() == status
        assert "ended" not in script.log


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("raise SystemExit(5)", "exit code 5"),
        ("1 / 0", "exit code 1"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
    ],
)
def test_a_crash_waits_for_a_change(tmp_path: Path, end: str, how: str) -> None:
    """A program that crashes is not started again until something changes; a mere touch is a wish to try again."""
    path = save(tmp_path / "app.py", f"print('begins', flush=True)\n{end}\n")
    with Script(tmp_path, "app.py") as script:
        assert script.said(ENDED) == how
        holds(lambda: script.count("begins") == 1, "it is not started again", 0.3)
        os.utime(path)
        script.said(ENDED, 2)
        assert script.count("begins") == 2
        save(path, stay("repaired"))
        script.said("repaired")
        assert script.said(RESTARTED) == "app.py"


def test_a_crash_with_broken_start_exit(tmp_path: Path) -> None:
    """With broken_start = exit, a crash at the very start ends the supervisor with the program's exit code."""
    # No Python: half a second after one has loaded what it loads, it has started.
    with Script(tmp_path, "sh", "-c", "exit 5", environment={"WSGI_RELOAD_BROKEN_START": "exit"}) as script:
        assert script.ends() == 5


def test_a_new_file_repairs_a_crash(tmp_path: Path) -> None:
    """A program that failed for want of a module is started when the module appears."""
    save(tmp_path / "app.py", "import part\n" + stay("v1"))
    with Script(tmp_path, "app.py") as script:
        script.said(ENDED)
        save(tmp_path / "part.py", "")
        script.said("v1")


@pytest.mark.adapters
def test_exit_code_3_asks_for_another_start(tmp_path: Path) -> None:
    """Exit code 3 means: start me again. It needs no change, and is told."""
    save(
        tmp_path / "app.py",
        "import os, sys\nif not os.path.exists('x'):\n    open('x', 'w')\n    sys.exit(3)\n" + stay("again"),
    )
    with Script(tmp_path, "app.py") as script:
        script.said("again")
        assert script.said(RESTARTED) == "exit code 3"


def test_exit_code_3_in_a_loop(tmp_path: Path) -> None:
    """A program that asks for another start at once, again and again, is not started for ever."""
    path = save(tmp_path / "app.py", "print('begins', flush=True)\nraise SystemExit(3)\n")
    with Script(tmp_path, "app.py") as script:
        assert script.said(ENDED) == "exit code 3, 3 times at once"
        # One that took its time to begin does not count.
        begun = script.count("begins")
        assert begun >= 3
        holds(lambda: script.count("begins") == begun, "it is not started again", 0.3)
        save(path, stay("repaired"))
        script.said("repaired")


def test_program_that_cannot_be_started_is_started_later(tmp_path: Path) -> None:
    """A program that the system does not start, once its old process has left, is started when that is possible again."""
    tool = save(tmp_path / "tool", "#!/bin/sh\necho one\nexec sleep 600\n")
    tool.chmod(0o755)
    with Script(tmp_path, "./tool", options=["--watch", "tool"]) as script:
        script.said("one")
        # Saved without the right to execute it.
        save_atomically(tool, "#!/bin/sh\necho two\nexec sleep 600\n")
        script.said(OURS + "cannot start the program, retrying every 5 s: Permission denied")
        assert "two" not in script.log
        tool.chmod(0o755)
        script.said("two")
        assert script.said(RESTARTED) == "tool"


def test_save_during_the_retries_of_a_start_is_started(tmp_path: Path) -> None:
    """A save does not wait for the next retry of the start that failed before it."""
    tool = save(tmp_path / "tool", "#!/bin/sh\necho one\nexec sleep 600\n")
    tool.chmod(0o755)
    with Script(tmp_path, "./tool", options=["--watch", "*o*"]) as script:
        script.said("one")
        tool.rename(tmp_path / "away")
        script.said(OURS + "cannot start the program, .*: No such file")
        (tmp_path / "away").write_text("#!/bin/sh\necho two\nexec sleep 600\n")
        (tmp_path / "away").rename(tool)
        script.said("two")
        assert script.count("cannot start the program") == 1


@pytest.mark.adapters
@pytest.mark.parametrize("cause", ["save", "end"])
def test_kill_after(tmp_path: Path, cause: str) -> None:
    """A program that ignores SIGTERM, and what it has forked, is killed after a while: at a save, and at our end."""
    deaf = "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    path = save(tmp_path / "app.py", deaf + stay("deaf"))
    with Script(tmp_path, "app.py", environment={"WSGI_RELOAD_KILL_AFTER": "0.3"}) as script:
        script.said("deaf", 2)
        old = script.programs()
        if cause == "end":
            assert script.end(signal.SIGTERM) == -signal.SIGKILL
            script.assert_nothing_left()
            return
        save(path, stay("v2"))
        script.said("v2")
        wait_until(lambda: not any(map(processes.alive, old)), "the old ones are gone")


def test_asked_twice(tmp_path: Path) -> None:
    """Told a second time to leave, the supervisor does not wait for the program any more."""
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"
    save(tmp_path / "app.py", stubborn + stay("stays"))
    with Script(tmp_path, "app.py", environment={"WSGI_RELOAD_KILL_AFTER": "600"}) as script:
        script.said("stays")
        script.send(signal.SIGTERM)
        script.said("no")
        assert script.end(signal.SIGTERM) == -signal.SIGKILL
        script.assert_nothing_left()


def test_what_it_forked_does_not_outlive_it(tmp_path: Path) -> None:
    """The program has ended, a child of it stays: it is told to leave, then the end is passed on."""
    save(tmp_path / "app.py", "import subprocess\nsubprocess.Popen(['sleep', '600'])\nprint('done', flush=True)\n")
    with Script(tmp_path, "app.py") as script:
        assert script.ends() == 0


def test_the_dead_are_not_waited_for(tmp_path: Path) -> None:
    """Children whose end nobody asks for (no init in a container) keep no restart waiting."""
    text = "import os, time\nif os.fork() == 0:\n    if os.fork() == 0:\n        os._exit(0)\n    os.setsid()\n"
    text += "    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
    path = save(tmp_path / "app.py", text + stay("v1"))
    with Script(tmp_path, "app.py", environment={"WSGI_RELOAD_KILL_AFTER": "600"}) as script:
        script.said("v1")
        stranger = tmp_path / "pid"
        wait_until(lambda: stranger.exists() and stranger.read_text(), "it has left")
        save(path, stay("v2"))
        script.said("v2")
        processes.kill(int(stranger.read_text()))


# -- surroundings ----------------------------------------------------------------------------------------------------

TELL = """\
import json, os, sys
print({
    "flags": str(sys.flags), "warn": sys.warnoptions, "x": sorted(sys._xoptions), "words": getattr(sys, "orig_argv", [""])[1:],
    "argv": sys.argv, "path": sys.path, "cwd": os.getcwd(), "executable": sys.executable,
    "pythonpath": os.environ.get("PYTHONPATH"), "site": str(sys.modules.get("sitecustomize")),
}, flush=True)
"""


def alone(tmp_path: Path, *command: str, **environment: str) -> dict[str, object]:
    """What `TELL` says when nobody supervises it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=tmp_path, env={**inherited, **environment}, capture_output=True, text=True, check=True
    )
    found: dict[str, object] = ast.literal_eval(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("options", [[], ["-W", "error", "-X", "dev", "-O"], ["-uBs", "-Wignore"], ["-I"]], ids=str)
def test_the_program_is_as_without_us(tmp_path: Path, options: list[str]) -> None:
    """Interpreter, options, search path, arguments (empty ones and spaces included) and sitecustomize are the same."""
    save(tmp_path / "app.py", TELL)
    command = [PYTHON, *options, "app.py", "a b", "", "--", "-v", "é"]
    path = os.pathsep.join(["/no/such/folder", "", str(PACKAGE_ROOT)])
    expected = alone(tmp_path, *command, PYTHONPATH=path)
    with Script(tmp_path, *command, environment={"PYTHONPATH": path}) as script:
        found = told(script)
        script.ends()
    assert str(found.pop("pythonpath")).endswith(f"{os.pathsep}{expected.pop('pythonpath')}")
    assert found == expected


def test_a_program_with_a_sitecustomize(tmp_path: Path) -> None:
    """The sitecustomize of the user is loaded as it would be, and is a module like any other: its save restarts."""
    path = save(tmp_path / "lib" / "sitecustomize.py", "print('site 1', flush=True)\n")
    save(tmp_path / "app.py", TELL + stay("v1"))
    there = os.pathsep.join([str(tmp_path / "lib"), str(PACKAGE_ROOT)])
    with Script(tmp_path, PYTHON, "app.py", environment={"PYTHONPATH": there}) as script:
        script.said("site 1")
        assert str(path) in str(told(script)["site"])
        script.said(WATCHING)
        save(path, "print('site 2', flush=True)\n")
        script.said("site 2")


@pytest.mark.parametrize("broken", ["1 / 0", "import nosuch", "def f(:", "raise ImportError('x')"])
def test_a_program_with_a_broken_sitecustomize(tmp_path: Path, broken: str) -> None:
    """A sitecustomize that fails does the same, and says the same, as without us."""
    save(tmp_path / "lib" / "sitecustomize.py", broken + "\n")
    save(tmp_path / "app.py", "print('ran', flush=True)\n")
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "lib"), str(PACKAGE_ROOT)])}
    done = subprocess.run(
        [PYTHON, "app.py"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    # The supervisor is a Python, too, and complains first.
    with Script(tmp_path, PYTHON, "app.py", environment=environment) as script:
        script.ends()
        assert script.log.count(done.stdout.replace("ran\n", "")) == 2 and script.count("ran") == 1


CHANGES = {
    "folder": "import os\nos.mkdir('elsewhere')\nos.chdir('elsewhere')\n",
    "environment": "import os\nos.environ.clear()\n",
    "descriptors": "import os\nos.closerange(3, 100)\n",
    "folder gone": "import os\nos.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')\n",
    "group": "import os\nos.fork() and os._exit(os.wait()[1])\nos.setpgid(0, os.getpgid(os.getppid()))\n",
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_program_that_changes_its_surroundings(tmp_path: Path, what: str) -> None:
    """Whatever the program does to its own process, its modules are watched, and it is started as at first."""
    first = CHANGES[what].replace("os.mkdir", "os.path.exists('elsewhere') or os.mkdir")
    save(tmp_path / "app.py", f"import sys\nsys.path[0] = {str(tmp_path)!r}\n" + first + "import part\n" + stay("v1"))
    part = save(tmp_path / "part.py", "")
    with Script(tmp_path, "app.py") as script:
        script.said("v1")
        script.said(WATCHING)
        save(part, "print('part 2')\n")
        script.said("part 2\nv1")


def test_a_program_that_closes_all_files(tmp_path: Path) -> None:
    """A daemon closes whatever it has not opened: nothing of ours gets into the files that have the numbers then."""
    text = "import os, sys\nsys.path[0] = os.getcwd()\nos.closerange(3, 1024)\n"
    text += "files = [os.open(f'own{n}', os.O_CREAT | os.O_WRONLY) for n in range(200)]\nimport part\n"
    save(tmp_path / "app.py", text + stay("v1"))
    part = save(tmp_path / "part.py", "")
    with Script(tmp_path, "app.py") as script:
        script.said("v1")
        script.said(WATCHING)
        assert {path.stat().st_size for path in tmp_path.glob("own*")} == {0}
        save(part, "print('part 2')\n")
        script.said("part 2\nv1")


@pytest.mark.adapters
def test_a_save_while_another_one_is_tried(tmp_path: Path) -> None:
    """A save that comes while the one before it is being imported is the one that is started."""
    part = guarded(tmp_path)
    with Script(tmp_path, "app.py") as script:
        script.said("serving v1")
        script.quiet()
        save(part, "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\nVERSION = 'v2'\n")
        wait_until(script.stages, "it is tried")
        save(part, "VERSION = 'v3'\n")
        script.said("serving v3")
        script.said(RESTARTED)
        assert script.count("serving v2") == 0 and script.count(RESTARTED) == 1


@pytest.mark.parametrize("method", ["fork", "spawn", "pool"])
def test_a_program_with_processes(tmp_path: Path, method: str) -> None:
    """Processes of multiprocessing and of concurrent.futures work as ever, tell what they load, and leave no trace."""
    start = {
        "fork": "multiprocessing.get_context('fork').Process(target=work.work).start()",
        "spawn": "multiprocessing.get_context('spawn').Process(target=work.work).start()",
        "pool": "concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context('spawn')).submit(work.work)",
    }[method]
    main = f"import concurrent.futures, multiprocessing, time, work\nif __name__ == '__main__':\n    held = {start}\n"
    save(tmp_path / "app.py", main + "    time.sleep(600)\n")
    save(tmp_path / "work.py", "def work():\n    import part\n    import time\n    time.sleep(600)\n")
    part = save(tmp_path / "part.py", "print('part 1', flush=True)\n")
    with Script(tmp_path, PYTHON, "app.py") as script:
        script.said("part 1")
        script.said(WATCHING)
        save(part, "print('part 2', flush=True)\n")
        script.said("part 2")


def test_a_session_of_its_own(tmp_path: Path) -> None:
    """Known limit: what leaves the program's process group is not ended with it."""
    save(
        tmp_path / "app.py",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    os.execlp('sleep', 'sleep', '600')\n" + stay("v1"),
    )
    with Script(tmp_path, "app.py") as script:
        script.said("v1")
        wait_until(lambda: len({processes.group(pid) for pid in script.programs()}) == 2, "it has left the group")
        script.end(signal.SIGTERM)
        wait_until(lambda: len(script.left()) == 1, "only that one is left")
        processes.kill(script.left()[0])


# -- output and input ------------------------------------------------------------------------------------------------


def test_megabytes(tmp_path: Path) -> None:
    """What the program prints arrives, all of it and in order, also through a pipe."""
    save(tmp_path / "app.py", "for number in range(300_000):\n    print(number)\n")
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
    done = subprocess.run([*RUN, "app.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"".join(b"%d\n" % number for number in range(300_000))


def test_a_pipe_is_not_buffered(tmp_path: Path) -> None:
    """What the program prints without flushing is seen at once, though it is no terminal."""
    save(
        tmp_path / "app.py",
        "import sys, time\nprint('one')\nprint('two', file=sys.stderr)\nprint('three')\ntime.sleep(600)\n",
    )
    with Script(tmp_path, PYTHON, "app.py") as script:
        script.said("one\ntwo\nthree\n")


def test_nobody_reads(tmp_path: Path) -> None:
    """A program whose reader is gone ends as ever, and we with it: `yes | head`."""
    done = subprocess.run(
        ["sh", "-c", '"$@" | head -n 1', "sh", *RUN, "yes"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
        capture_output=True,
        timeout=30,
        check=True,
    )
    # Somebody who takes his time to go is told of what has run for a while.
    said = [line for line in done.stderr.splitlines() if b"the program does not tell what it loads" not in line]
    assert (done.stdout, said) == (b"y\n", [])


def test_somebody_reads_no_further(tmp_path: Path) -> None:
    """A reader of our log that has paused (`| less`) keeps us neither from starting the program nor from ending it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    save(tmp_path / "app.py", stay("v1"))
    start = "import os, sys\nos.dup2(int(sys.argv[1]), 2)\nos.execv(sys.argv[2], sys.argv[2:])\n"
    command = [PYTHON, "-c", start, str(writing), *RUN, "-v", "app.py"]
    try:
        with Script(tmp_path, command=command, pass_fds=[writing]) as script:
            script.said("v1")
            assert script.end(signal.SIGTERM) == -signal.SIGTERM
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_files(tmp_path: Path, closed: str) -> None:
    """With standard input, output or error closed the program finds it closed, as without us, and is restarted."""
    text = "import os\nopened = [os.path.exists(f'/dev/fd/{{n}}') for n in range(3)]\n"
    text += "open('told', 'a').write('{} {{}} {{}} {{}}\\n'.format(*opened))\n"
    path = save(tmp_path / "app.py", text.format(1) + "import time; time.sleep(600)\n")
    expected = " ".join(str(sign not in closed.split()) for sign in ("<&-", ">&-", "2>&-"))
    with Script(tmp_path, command=["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *RUN, "app.py"]) as script:
        found = tmp_path / "told"
        wait_until(lambda: found.exists() and found.read_text() == f"1 {expected}\n", "it has started")
        save(path, text.format(2) + "import time; time.sleep(600)\n")
        wait_until(lambda: found.read_text() == f"1 {expected}\n2 {expected}\n", "it has started again")
        assert "rror" not in script.log and "usage" not in script.log


def test_nohup(tmp_path: Path) -> None:
    """What was started with SIGHUP ignored goes on after it, and so does its program."""
    path = save(tmp_path / "app.py", stay("v1"))
    with Script(tmp_path, command=["nohup", *RUN, PYTHON, "app.py"]) as script:
        script.said("v1")
        for pid in (script.pid, *script.programs()):
            os.kill(pid, signal.SIGHUP)
        save(path, stay("v2"))
        script.said("v2")


def test_in_the_background_of_a_script(tmp_path: Path) -> None:
    """A shell has what it starts in the background ignore SIGINT: it stays ignored, here and in the program."""
    text = "import signal\nprint(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, flush=True)\n"
    path = save(tmp_path / "app.py", text + stay("v1"))
    with Script(
        tmp_path, command=["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh", *RUN, PYTHON, "app.py"]
    ) as script:
        script.said("v1")
        assert script.log.startswith("True\n")
        for pid in (script.pid, *script.programs()):
            os.kill(pid, signal.SIGINT)
        save(path, stay("v2"))
        script.said("v2")


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "status", "text"),
    [
        (("KILL_AFTER", "soon"), 2, "wsgi-reload: setting kill_after = 'soon' (from WSGI_RELOAD_KILL_AFTER): must be "),
        (("NOSUCH", "1"), 2, "wsgi-reload: unknown setting 'nosuch'"),
    ],
)
def test_wrong_settings(tmp_path: Path, setting: tuple[str, str], status: int, text: str) -> None:
    """Settings that cannot be used are told in one line, before anything is started."""
    name, value = setting
    with Script(tmp_path, "true", environment={f"WSGI_RELOAD_{name}": value}) as script:
        assert script.ends() == status
        assert script.log.startswith(text) and script.log.count("\n") == 1


def test_switched_off(tmp_path: Path) -> None:
    """With enabled off the program takes our place, as if it had been started by hand."""
    off = {"WSGI_RELOAD_ENABLED": "false"}
    code = "import os, sys; print(os.getpid(), os.environ.get('WSGI_SUPERVISED')); sys.exit(7)"
    with Script(tmp_path, PYTHON, "-c", code, environment=off) as script:
        assert script.ends() == 7
        assert script.log == f"{script.pid} None\n"
    with Script(tmp_path, "true", options=["--listen", "0"], environment=off) as script:
        assert script.ends() == 2
        assert script.log.startswith("wsgi-reload: the setting enabled is off") and script.log.count("\n") == 1


def test_without_rehearsal(tmp_path: Path) -> None:
    """With the setting `trial` off nothing is imported beside the program: what compiles is started."""
    part = guarded(tmp_path)
    with Script(tmp_path, "app.py", environment={"WSGI_RELOAD_TRIAL": "0"}) as script:
        script.said(WATCHING)
        save(part, "1 / 0\n")
        assert script.said(ENDED) == "exit code 1"


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    """Started in a folder that was deleted, one line says so."""
    (tmp_path / "gone").mkdir()
    code = 'cd gone && rmdir ../gone && exec "$@"'
    with Script(tmp_path, command=["/bin/sh", "-c", code, "sh", *RUN, PYTHON, "-c", "print(1)"]) as script:
        assert script.ends() in (1, 126)
        assert "the working directory is not there" in script.log and script.log.count("\n") == 1


# -- idle ------------------------------------------------------------------------------------------------------------


def is_idle(folder: Path, state: str) -> None:
    """Bring a supervisor into that state, and count what it does there."""
    part = guarded(folder)
    if state in ("crashed", "broken start"):
        save(folder / "app.py", "1 / 0\n" if state == "crashed" else "def f(:\n")
    if state == "leaving":
        save(folder / "app.py", "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + GUARDED)
    with Script(folder, "app.py", interval=0.2, environment={"WSGI_RELOAD_KILL_AFTER": "60"}) as script:
        if state == "crashed":
            script.said(ENDED)
        elif state == "broken start":
            script.said(BROKEN_START)
        else:
            script.quiet()
        if state == "refused":
            save(part, "def f(:\n")
            script.said(REFUSED)
        elif state == "stopped":
            os.kill(script.program(), signal.SIGSTOP)
        elif state == "leaving":
            # A save at the same moment must not make it hurry.
            save(part, "VERSION = 'v2'\n")
            script.send(signal.SIGTERM)
        woken, used, began = processes.sleeps(script.pid), processes.cpu_seconds(script.pid), time.monotonic()
        holds(lambda: not script.exited(), "it waits", 1.0)
        woken, used = processes.sleeps(script.pid) - woken, processes.cpu_seconds(script.pid) - used
        seconds = time.monotonic() - began
        # It looks five times a second, and says hello to nobody else.
        assert woken < 40 * seconds, state
        assert used < 0.25 * seconds, state
        if state == "leaving":
            script.end(signal.SIGKILL)
            wait_until(lambda: not script.left(), "nothing is left")


def test_idle(tmp_path: Path) -> None:
    """Whatever it waits for, the supervisor hardly uses the processor: a few wakeups a second, those of its looks."""
    states = ["running", "crashed", "refused", "broken start", "stopped", "leaving"]
    with ThreadPoolExecutor(len(states)) as several:
        for each in [several.submit(is_idle, tmp_path / state, state) for state in states]:
            each.result()


# -- sockets ---------------------------------------------------------------------------------------------------------

SERVE = """import os, socket
VERSION = 'v1'
number = int(os.environ["LISTEN_FDS"]) and int(os.environ["LISTEN_PID"]) == os.getpid() and 3
listening = socket.socket(fileno=number)
print("listens", listening.getsockname(), os.environ["LISTEN_FDS"], flush=True)
while True:
    connection, _ = listening.accept()
    connection.sendall(VERSION.encode())
    connection.close()
"""


def ask(address: Any) -> str:
    """What a visitor of *address* gets."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as connection:
        connection.settimeout(15)
        connection.connect(address)
        return connection.recv(100).decode()


@pytest.mark.adapters
@pytest.mark.parametrize("kind", ["port", "unix"])
def test_listen(tmp_path: Path, kind: str) -> None:
    """The supervisor listens, the program gets the socket, and no connection is refused while it is restarted."""
    path = save(tmp_path / "app.py", SERVE)
    with Script(tmp_path, PYTHON, "app.py", options=["--listen", "0" if kind == "port" else "unix:s"]) as script:
        told = script.said(r"listens (.*) 1\n")
        address = ast.literal_eval(told) if kind == "port" else told
        assert ask(address) == "v1"
        save(path, SERVE.replace("v1", "v2"))
        wait_until(lambda: ask(address) == "v2", "the new one answers")
    assert not (tmp_path / "s").exists()


def test_listen_on_what_cannot_be(tmp_path: Path) -> None:
    """An address that is busy, or none, is told in one line."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        for address, text in (
            (port, "Address already in use"),
            ("nonsense", "is no address"),
            ("unix:/no/s", "No such"),
        ):
            with Script(tmp_path, "true", options=["--listen", address]) as script:
                assert script.ends() == (2 if address == "nonsense" else 1)
                assert text in script.log and address in script.log and script.log.count("\n") == 1


@pytest.mark.adapters
def test_sockets_that_we_were_given(tmp_path: Path) -> None:
    """Sockets that the supervisor itself was started with, in systemd's way, go to the program, under the numbers they had."""
    save(tmp_path / "app.py", SERVE)
    start = "import os, sys\nos.dup2(int(sys.argv[1]), 3)\nos.dup2(int(sys.argv[1]), 4)\n"
    start += "os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()))\nos.execv(sys.argv[2], sys.argv[2:])\n"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = fcntl.fcntl(listening.fileno(), fcntl.F_DUPFD, 50)
        os.set_inheritable(number, True)
        wrapper = f'exec \'{PYTHON}\' -c "$0" {number} "$@"'
        try:
            with Script(
                tmp_path, pass_fds=[number], command=["/bin/sh", "-c", wrapper, start, *RUN, "app.py"]
            ) as script:
                script.said(r"listens (.*) 2\n")
                assert ask(listening.getsockname()) == "v1"
        finally:
            os.close(number)
