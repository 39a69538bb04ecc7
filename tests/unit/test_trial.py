"""New code tried in a fresh interpreter: what is told of it, and that nothing stays behind."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from edits import PACKAGE_ROOT, python, save
from harness.waiting import wait_until

from wsgi_reload_hooks.core.refusal import Refusal
from wsgi_reload_hooks.core.settings import Settings
from wsgi_reload_hooks.trial.plan import Outcome, Plan, Target
from wsgi_reload_hooks.trial.trial import FLAG, Trial, run_trial
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.watching.signature import signature

pytestmark = pytest.mark.unit

LIMIT = 30.0
GOOD = "def app(environ, start_response): return []\n"
MODULE = Target("module", "app", "app")
FILE = Target("file", "app.py", "app", alias="file_app")


def plan(folder: Path, *targets: Target, modules: Mapping[str, Any] | None = None, **environ: str) -> Plan:
    """What a server that stands in *folder* would have tried."""
    return Plan(
        command=(sys.executable,),
        path=(".", *(each for each in sys.path if each != str(Path(__file__).parents[1]))),
        folder=str(folder),
        root=str(folder),
        targets=targets or (MODULE,),
        environ={**os.environ, **environ},
        modules=modules or {},
        argv=("server", "--option"),
    )


def tried(folder: Path, *targets: Target, timeout: float = LIMIT, **more: Any) -> Outcome:
    """What came of a rehearsal in *folder*."""
    return run_trial(plan(folder, *targets, **more), Files(Settings(), str(folder)), timeout)


def refused(folder: Path, *targets: Target, **more: Any) -> Refusal:
    """Why the code in *folder* was refused."""
    outcome = tried(folder, *targets, **more)
    assert outcome.refused is not None
    return outcome.refused


def begun(folder: Path, timeout: float) -> Outcome:
    """What came of a rehearsal whose code says that it has begun: where it has not by its end, the machine stood still."""

    def outcome() -> Outcome | None:
        found = tried(folder, timeout=timeout)
        return found if (folder / "begun").exists() else None

    return wait_until(outcome, "the code is reached in time")


def is_gone(pid: int) -> bool:
    """Whether the process has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def number_in(path: Path) -> int:
    """The number that somebody will have written to *path*."""
    wait_until(lambda: path.exists() and path.read_text().strip(), f"{path.name} is written")
    return int(path.read_text())


# -- good code -------------------------------------------------------------------------------------------------------


def test_good_code(tmp_path: Path) -> None:
    """Good code is told as good, with the files of it that were loaded and their signatures."""
    files = [save(tmp_path / "app.py", "import dep\n" + GOOD), save(tmp_path / "dep.py", "import json\n")]
    outcome = tried(tmp_path)
    assert outcome.refused is None
    assert outcome.loaded == {str(path): signature(str(path)) for path in files}
    assert 0 < outcome.seconds < LIMIT


def test_a_class_and_an_object_are_callables_too(tmp_path: Path) -> None:
    """Whatever can be called is a callable."""
    save(tmp_path / "app.py", "class app:\n    def __call__(self): pass\nthing = app()\n")
    assert tried(tmp_path, MODULE, Target("module", "app", "thing")).refused is None


def test_file_has_the_name_that_the_server_gives_it(tmp_path: Path) -> None:
    """A file is a module of the name that is asked for, and knows its path as it was given."""
    save(
        tmp_path / "app.py",
        "import sys\nassert __name__ == 'file_app' and sys.modules[__name__].__dict__ is globals()\n"
        "assert __file__ == 'app.py' and __spec__.name == __name__\n" + GOOD,
    )
    outcome = tried(tmp_path, FILE)
    assert outcome.refused is None and list(outcome.loaded) == [str(tmp_path / "app.py")]
    assert not (tmp_path / "__pycache__").exists()


def test_folder_as_a_file(tmp_path: Path) -> None:
    """A folder is loaded as a package."""
    save(tmp_path / "pkg" / "__init__.py", "from .part import app\n")
    save(tmp_path / "pkg" / "part.py", GOOD)
    target = Target("file", "pkg", "app", alias="file_pkg")
    outcome = tried(tmp_path, target)
    assert outcome.refused is None
    assert list(outcome.loaded) == [str(tmp_path / "pkg" / "__init__.py"), str(tmp_path / "pkg" / "part.py")]
    assert target.files(str(tmp_path)) == [str(tmp_path / "pkg" / "__init__.py")]


def test_code(tmp_path: Path) -> None:
    """A text is run as a module of its own."""
    save(tmp_path / "app.py", GOOD)
    assert tried(tmp_path, Target("code", "from app import app", "app", alias="text")).refused is None
    why = refused(tmp_path, Target("code", "from app import nothing", "app", alias="text"))
    assert why.reason.startswith("ImportError: cannot import name 'nothing'")


def test_factories_are_called(tmp_path: Path) -> None:
    """A factory is called, and what it returns must be callable."""
    save(tmp_path / "app.py", "def create():\n    return lambda *both: []\ndef none(): pass\ndef bad(): 1 / 0\n")
    assert tried(tmp_path, Target("module", "app", "create", call=True)).refused is None
    why = refused(tmp_path, Target("module", "app", "none", call=True))
    assert (why.reason, why.path) == (
        "none() in app.py is no callable: its type is NoneType",
        str(tmp_path / "app.py"),
    )
    why = refused(tmp_path, Target("module", "app", "bad", call=True))
    assert (why.reason, why.line) == ("ZeroDivisionError: division by zero", 4)


@pytest.mark.parametrize("package", ["paste", "pecan"])
def test_what_a_library_loads(tmp_path: Path, package: str) -> None:
    """Applications of paste.deploy and pecan are loaded by these; the configuration file counts as loaded."""
    if importlib.util.find_spec(package):
        pytest.skip("the real one is there, and would be loaded")
    save(tmp_path / package / "__init__.py", "")
    loader = {"paste": "loadapp", "pecan": "deploy"}[package]
    save(
        tmp_path / package / "deploy.py",
        f"def {loader}(name):\n    assert 'site.ini' in name\n    import app\n    return app.app\n",
    )
    save(tmp_path / "app.py", GOOD)
    path = str(save(tmp_path / "site.ini", "[app:main]\n"))
    target = Target(package, f"config:{path}#main" if package == "paste" else path)
    assert target.files() == [path]
    outcome = tried(tmp_path, target)
    assert outcome.refused is None
    assert {path, str(tmp_path / "app.py")} <= set(outcome.loaded)
    save(tmp_path / "app.py", "app = 1\n")
    assert "is no callable: its type is int" in refused(tmp_path, target).reason


def test_tables_of_callables(tmp_path: Path) -> None:
    """Where a server takes a table of callables, each of them is looked at."""
    target = Target("module", "app", "nothing", table="applications")
    save(tmp_path / "app.py", GOOD + "applications = {'/': app, '/b': 'app'}\n")
    assert tried(tmp_path, target).refused is None
    save(tmp_path / "app.py", GOOD + "applications = {'/': app, '/b': 'wrong'}\n")
    assert refused(tmp_path, target).reason == "applications['/b'] in app.py is no callable: its type is NoneType"
    save(tmp_path / "app.py", GOOD + "import server\nserver.applications = {'/': 5}\n")
    assert refused(tmp_path, target, modules={"server": {}}).reason.startswith("applications['/'] in app.py")


def test_rooms_do_not_share_an_interpreter(tmp_path: Path) -> None:
    """Targets of different rooms see nothing of each other, and the files of all are told."""
    for name, other in ("ab", "ba"):
        save(tmp_path / f"{name}.py", f"import sys\nassert {other!r} not in sys.modules\ndef app(): pass\n")
    targets = Target("module", "a", "app"), Target("module", "b", "app", room=1)
    outcome = tried(tmp_path, *targets)
    assert outcome.refused is None and list(outcome.loaded) == [str(tmp_path / "a.py"), str(tmp_path / "b.py")]
    assert refused(tmp_path, targets[0], dataclasses.replace(targets[1], room=0)).reason == "AssertionError"


# -- the surroundings ------------------------------------------------------------------------------------------------


def test_surroundings_are_those_of_the_live_process(tmp_path: Path) -> None:
    """Search path, arguments, working directory and environment are as planned, and nothing of ours hides a name."""
    for name in ("files", "settings", "native"):
        save(tmp_path / f"{name}.py", "theirs = True\n")
    save(
        tmp_path / "app.py",
        f"""
import os, sys, files, settings, native, __main__
assert files.theirs and settings.theirs and native.theirs
assert sys.path == {list(plan(tmp_path).path)!r}, sys.path
assert sys.argv == ["server", "--option"] and os.getcwd() == {str(tmp_path)!r}
assert os.environ["{FLAG}"] == "1" and os.environ["THEIRS"] == "x\\udcff"
assert not hasattr(__main__, "__file__")
assert os.getpid() == os.getpgrp()
assert os.read(0, 1) == b""
import wsgi_reload_hooks
"""
        + GOOD,
    )
    assert tried(tmp_path, THEIRS="x\udcff").refused is None


def test_stand_in_modules(tmp_path: Path) -> None:
    """A stand-in has the values it was given; whatever else is asked of it does nothing."""
    save(
        tmp_path / "app.py",
        """
import server
from server import spooler, lock as held
assert server.version == b"2.0\\xff" and server.numproc == 4 and server.loop is None
assert server.opt == {"module": b"app", "master": True, "many": [b"1", "2"], "deep": {"x": 1.5}}
assert held() is None and server.register(5, "x", call=held) is None
assert server.number() == 1 and server.workers() == [{"id": 1}]
server.hook = held
assert server.hook is held and not hasattr(server, "__path__") and not hasattr(server, "__wrapped__")
"""
        + GOOD,
    )
    options = {"module": b"app", "master": True, "many": [b"1", "2"], "deep": {"x": 1.5}}
    values = {
        "version": b"2.0\xff",
        "numproc": 4,
        "loop": None,
        "opt": options,
        "number()": 1,
        "workers()": ({"id": 1},),
    }
    assert tried(tmp_path, modules={"server": values}).refused is None


def test_nothing_is_inherited(tmp_path: Path) -> None:
    """Neither open files, however inheritable, nor blocked or ignored signals reach the new code."""
    save(
        tmp_path / "app.py",
        """
import os, signal
numbers = {int(name) for name in os.listdir("/dev/fd")}
stale = [n for n in numbers - {0, 1, 2} if os.path.exists(f"/dev/fd/{n}") and os.get_inheritable(n)]
assert not stale, stale
assert len(numbers) <= 6, numbers
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
assert signal.getsignal(signal.SIGHUP) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
"""
        + GOOD,
    )
    pairs = [os.pipe() for _ in range(20)]
    theirs = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
    try:
        for number in [number for pair in pairs for number in pair]:
            os.set_inheritable(number, True)
        assert tried(tmp_path).refused is None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGHUP, theirs)
        for number in [number for pair in pairs for number in pair]:
            os.close(number)


def test_what_is_printed_is_not_printed_twice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What the code prints stays out of the server's log."""
    save(tmp_path / "app.py", "import os\nprint('hello')\nos.system('echo there')\n" + GOOD)
    assert tried(tmp_path).refused is None
    assert capfd.readouterr() == ("", "")


def test_nobody_is_waited_for(tmp_path: Path) -> None:
    """Neither a thread of the application nor what it has registered for the end keeps the rehearsal."""
    save(
        tmp_path / "app.py",
        "import atexit, threading, time\natexit.register(time.sleep, 60)\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n" + GOOD,
    )
    outcome = tried(tmp_path)
    assert outcome.refused is None and outcome.seconds < LIMIT


def test_a_fork_of_the_application_tells_nothing(tmp_path: Path) -> None:
    """Of an application that forks while it loads, only the first process is heard."""
    save(tmp_path / "app.py", "import os\nif os.fork() == 0:\n    raise SystemExit\nos.wait()\n" + GOOD)
    assert tried(tmp_path).refused is None


# -- code that is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [MODULE, FILE], ids=lambda target: str(target.kind))
@pytest.mark.parametrize(
    ("code", "reason", "line"),
    [
        ("x = 1\ndef f(:\n", "SyntaxError: ", 2),
        ("\nimport sys; sys.exit(3)", "SystemExit: 3", 2),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", 1),
        ("raise MemoryError", "MemoryError", 1),
        ("class E(BaseException): pass\nraise E(5)", "E: 5", 2),
        ("def f(): f()\nf()", "RecursionError: ", 1),
        ("import nosuchmodule", "ModuleNotFoundError: No module named 'nosuchmodule'", 1),
        ("x = 1\n1 / 0", "ZeroDivisionError: division by zero", 2),
    ],
)
def test_code_that_raises(tmp_path: Path, target: Target, code: str, reason: str, line: int) -> None:
    """Whatever loading raises is told with its place, without the frames of the machinery."""
    path = str(save(tmp_path / "app.py", code))
    outcome = tried(tmp_path, target)
    why = outcome.refused
    assert why is not None and why.reason.startswith(reason)
    assert (why.path, why.line) == (path, line) and path in why.files
    assert "importlib" not in why.traceback and "trial_main.py" not in why.traceback
    assert list(outcome.loaded) == [path]


def test_place_in_a_dependency(tmp_path: Path) -> None:
    """The place is the deepest file that is ours, and all files of the traceback are named, absolute."""
    app = save(tmp_path / "app.py", "import dep\n" + GOOD)
    dep = save(tmp_path / "dep.py", "import json\njson.loads('{')\n")
    outcome = tried(tmp_path)
    assert outcome.refused is not None
    assert (outcome.refused.path, outcome.refused.line) == (str(dep), 2)
    assert {str(app), str(dep)} <= set(outcome.refused.files)
    assert set(outcome.loaded) == {str(app), str(dep)}


def test_missing_callable(tmp_path: Path) -> None:
    """A callable that is missing, or is none, is told with the file that should have it."""
    path = str(save(tmp_path / "app.py", "app = 5\n"))
    for target in (MODULE, FILE):
        assert refused(tmp_path, target) == Refusal(
            "'app' in app.py is no callable: its type is int", path, None, "", (path,)
        )
        wrong = dataclasses.replace(target, attribute="application")
        assert refused(tmp_path, wrong) == Refusal("app.py has no callable 'application'", path, None, "", (path,))


def test_missing_module_and_missing_file(tmp_path: Path) -> None:
    """What is not there at all is told by its name."""
    assert refused(tmp_path).reason == "ModuleNotFoundError: No module named 'app'"
    assert "No such file or directory: 'app.py'" in refused(tmp_path, FILE).reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os._exit(7)", "ended with exit code 7"),
        ("os._exit(0)", "ended with exit code 0"),
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
    ],
)
def test_death_without_a_word(tmp_path: Path, code: str, reason: str) -> None:
    """Code that ends the interpreter is refused with how it ended, the last file, and what it had printed last."""
    save(tmp_path / "app.py", "import dep\n" + GOOD)
    path = str(save(tmp_path / "dep.py", f"import os\nos.write(1, b'a\\nlast words\\n')\n{code}\n"))
    why = refused(tmp_path)
    assert why.reason == f"the interpreter that tried it {reason}; the last it began to load was dep.py"
    # Python itself says where it crashed.
    assert (why.path, why.line) == (path, 3 if "SIGSEGV" in reason else None)
    assert set(why.files) == {path, str(tmp_path / "app.py")}
    assert "last words" in why.traceback and "trial_main.py" not in why.traceback


def test_settings_that_cannot_be_used(tmp_path: Path) -> None:
    """Settings that are wrong by now are told like code: no worker would start with them."""
    save(tmp_path / "app.py", GOOD)
    save(tmp_path / "pyproject.toml", "[tool.wsgi_reload_hooks]\nnosuch = 1\n")
    assert "pyproject.toml" in refused(tmp_path).reason
    gone = dataclasses.replace(plan(tmp_path), folder=str(tmp_path / "gone"))
    why = run_trial(gone, Files(Settings(), str(tmp_path)), LIMIT).refused
    assert why is not None and "No such file or directory" in why.reason


# -- code that does not end ------------------------------------------------------------------------------------------

BEGUN = "open('begun', 'w').close()"


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("while True: pass", 2),
        ("import time\ntime.sleep(600)", 3),
        ("import threading\nthreading.Lock().__enter__\nwhile 1: pass", 4),
    ],
)
def test_timeout_tells_where(tmp_path: Path, code: str, line: int) -> None:
    """Code that takes too long is refused, with where it is at that moment."""
    path = str(save(tmp_path / "app.py", f"{BEGUN}\n{code}\n"))
    why = begun(tmp_path, 1.0).refused
    assert why is not None
    assert (why.reason, why.path, why.line) == ("it did not load within 1 s", path, line)
    assert "trial_main.py" not in why.traceback


def test_timeout_in_c(tmp_path: Path) -> None:
    """Code that keeps the interpreter's lock for ever is killed, and still it is told where it was."""
    save(tmp_path / "app.py", f"{BEGUN}\n\nx = 10 ** 10 ** 10\n")
    outcome = begun(tmp_path, 1.0)
    assert outcome.refused is not None and outcome.seconds < LIMIT / 2
    assert outcome.refused.reason == "it did not load within 1 s; the last it began to load was app.py"
    assert (outcome.refused.path, outcome.refused.line) == (str(tmp_path / "app.py"), 3)


STAY = (
    "import os, subprocess\nhelper = subprocess.Popen(['sleep', '600'])\nopen('helper', 'w').write(str(helper.pid))\n"
)
HANG = STAY + "open('pid', 'w').write(str(os.getpid()))\n"


@pytest.mark.parametrize("end", [GOOD, "1 / 0\n", "os._exit(3)\n"], ids=["good", "raises", "dies"])
def test_what_the_code_started_ends_with_it(tmp_path: Path, end: str) -> None:
    """However it ends, no process that the code has started stays."""
    save(tmp_path / "app.py", STAY + end)
    tried(tmp_path)
    wait_until(lambda: is_gone(number_in(tmp_path / "helper")), "it is gone")


def test_withdrawn(tmp_path: Path) -> None:
    """A rehearsal that is withdrawn is gone with all that it started, leaves no file open, and tells nothing."""
    save(tmp_path / "app.py", HANG + "while True: pass\n")
    before = len(os.listdir("/dev/fd"))
    rehearsal = Trial(plan(tmp_path), Files(Settings(), str(tmp_path)), LIMIT)
    pids = number_in(tmp_path / "helper"), number_in(tmp_path / "pid")
    assert rehearsal.poll() is None
    rehearsal.cancel()
    rehearsal.cancel()
    assert rehearsal.poll() is None
    with pytest.raises(ChildProcessError):
        os.waitpid(pids[1], 0)
    wait_until(lambda: all(map(is_gone, pids)), "they are gone")
    assert len(os.listdir("/dev/fd")) == before


ALONE = """
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.trial.plan import Plan, Target
from wsgi_reload_hooks.trial.trial import Trial, run_trial
plan = Plan((sys.executable,), (".", *sys.path), os.getcwd(), os.getcwd(), (Target("module", "app", "app"),), os.environ, {}, ())
files = Files(Settings(), os.getcwd())
"""


@pytest.mark.parametrize("code", ["while True: pass", "import time\ntime.sleep(600)", "x = 10 ** 10 ** 10"])
def test_no_orphans(tmp_path: Path, code: str) -> None:
    """When the process that began it is killed, the rehearsal ends with all that it has started."""
    if code.startswith("x") and not sys.platform.startswith("linux"):
        pytest.skip("no kernel but Linux can end code that keeps the lock")
    save(tmp_path / "app.py", HANG + code)
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os, sys\nfrom wsgi_reload_hooks import Settings\n{ALONE}\nrun_trial(plan, files, 60)",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
    ) as parent:
        pids = number_in(tmp_path / "helper"), number_in(tmp_path / "pid")
        parent.kill()
    wait_until(lambda: all(map(is_gone, pids)), "they are gone")


def test_children_that_somebody_else_reaps(tmp_path: Path) -> None:
    """A verdict is heard also where the kernel reaps all children of this process."""
    save(tmp_path / "app.py", GOOD)
    code = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nprint(run_trial(plan, files, 30).refused)"
    assert python(ALONE + code, tmp_path) == "None"
    save(tmp_path / "app.py", "import os\nos._exit(5)\n")
    code = code.replace(".refused", ".refused.reason")
    assert python(ALONE + code, tmp_path).startswith("the interpreter that tried it ended; ")


def test_in_a_thread_of_a_patched_process(tmp_path: Path) -> None:
    """It works in a thread of a process that gevent has monkey-patched."""
    pytest.importorskip("gevent")
    save(tmp_path / "app.py", GOOD)
    code = """
    from gevent import monkey
    monkey.patch_all()
    from wsgi_reload_hooks.process.native import Native
    native = Native()
    said = []
    native.start_thread(lambda: said.append(run_trial(plan, files, 30)), ())
    while not said:
        native.sleep(0.01)
    print(said[0].refused)
    """
    assert python(ALONE + textwrap.dedent(code), tmp_path, preamble=PREAMBLE) == "None"


PREAMBLE = "import os, sys\nfrom wsgi_reload_hooks import Settings\n"


def test_an_application_that_patches(tmp_path: Path) -> None:
    """Code that monkey-patches itself is tried, and its time is limited, like any other."""
    pytest.importorskip("gevent")
    save(tmp_path / "app.py", "from gevent import monkey\nmonkey.patch_all()\n" + GOOD)
    assert tried(tmp_path).refused is None
    code = f"{BEGUN}\nfrom gevent import monkey\nmonkey.patch_all()\nimport time\ntime.sleep(600)\n"
    path = save(tmp_path / "app.py", code)
    why = begun(tmp_path, 2.0).refused
    assert why is not None
    assert why.reason.startswith("it did not load within 2 s") and why.path == str(path)


def test_interpreter_that_is_not_there(tmp_path: Path) -> None:
    """Where it cannot be begun there is an OSError, and no file stays open."""
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(FileNotFoundError):
        Trial(
            dataclasses.replace(plan(tmp_path), command=(str(tmp_path / "python"),)),
            Files(Settings(), str(tmp_path)),
            1,
        )
    assert len(os.listdir("/dev/fd")) == before


def test_clock_is_the_same_for_both(tmp_path: Path) -> None:
    """The seconds that are told are those that passed."""
    save(tmp_path / "app.py", GOOD)
    began = time.monotonic()
    outcome = tried(tmp_path)
    assert 0 < outcome.seconds <= time.monotonic() - began
