"""`preload_app`: the code is imported once, by a process that forks all workers, and every promise is kept."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from harness import (
    GUNICORN,
    UVICORN,
    Gunicorn,
    Project,
    each,
    holds,
    patterns,
    processes,
    project_for,
    wait_until,
)
from harness.waiting import the_only

from wsgi_reload_hooks.doctor.process import has_control_socket

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs what only Linux does with orphans")

PRELOAD = {"WSGI_RELOAD_STEP": "0.02"}
NOTE = """
def note(*words):
    import os
    with open({notes!r}, "a") as notes:
        notes.write(" ".join(map(str, words)) + "\\n")
"""
CONFIGURATION = """
import os
import wsgi_reload_hooks.gunicorn_conf
preload_app = True
"""


class Notes:
    """What code of the project and hooks have noted, line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_text("")
        self.path.chmod(0o666)
        self.code = NOTE.format(notes=str(path))

    def words(self, first: str) -> list[list[str]]:
        """The rest of each line that begins with that word."""
        return [line.split()[1:] for line in self.path.read_text().splitlines() if line.split()[0] == first]

    def wait(self, first: str, count: int) -> list[list[str]]:
        wait_until(
            lambda: len(self.words(first)) >= count, lambda: f"{count} notes of {first}: {self.path.read_text()}"
        )
        return self.words(first)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One whose import takes no time."""
    project = Project(tmp_path / "project", import_seconds=0.0)
    project.release()
    return project


def own_configuration(project: Project, text: str = "") -> Path:
    project.save("conf.py", CONFIGURATION + text)
    return project.root / "conf.py"


def zygotes(server: Gunicorn) -> list[int]:
    return [pid for pid in processes.children(server.pid) if processes.is_zygote(pid)]


def the_zygote(server: Gunicorn) -> int:
    """The one that is kept."""
    return the_only(lambda: zygotes(server), "zygote")


def loading(server: Gunicorn, kept: int) -> int:
    """The one beside that."""
    return wait_until(lambda: next((pid for pid in zygotes(server) if pid != kept), 0), "a zygote that loads")


def wait_for_reloads(server: Gunicorn, count: int) -> None:
    server.wait_for_log(patterns.RELOADED, count)
    wait_until(lambda: len(zygotes(server)) == 1, lambda: f"one zygote; there are {zygotes(server)}")


def assert_no_odd_lines(server: Gunicorn) -> None:
    """Neither gunicorn nor Python complains of anything."""
    odd = [
        line for line in server.log.splitlines() if re.search(r"\[ERROR\]|\[WARNING\]|[a-z]Warning|^Traceback", line)
    ]
    assert odd == [], server.log


# -- everyday life ----------------------------------------------------------------------------------------------------


@each(adapters=("sync",), versions=("sync", "gthread"), matrix=("gevent", "tornado", "asgi", UVICORN))
def test_one_import_a_generation(worker_class: str, tmp_path: Path, notes: Notes) -> None:
    """Good and broken saves: each is imported once, by none of those who serve, and no worker boots of a broken one."""
    project = project_for(worker_class, tmp_path / "project", import_seconds=0.0)
    top = notes.code + "note('import', os.getpid(), os.getppid())\n"
    project.release(top=top)
    with Gunicorn(project, "--preload", worker_class=worker_class, environment=PRELOAD) as server:
        server.wait_for_workers(4)
        ((first, parent),) = notes.words("import")
        assert (int(first), int(parent)) == (the_zygote(server), server.pid)
        server.wait_for_log(patterns.BOOTING, 4)
        assert server.count(patterns.BOOTING) == 4
        project.release(top=top)
        server.wait_for_version(project.version)
        wait_for_reloads(server, 1)
        server.wait_for_workers(4)
        assert len(notes.words("import")) == 2 and server.count(patterns.BOOTING) == 8
        project.broken(top=top + "undefined_name")
        report = server.wait_for_log(patterns.REFUSED)
        assert re.match(r"app\.py, line \d+: NameError: name 'undefined_name'", report["why"])
        holds(lambda: server.count(patterns.BOOTING) == 8 and server.count(patterns.REFUSED) == 1, "calm", 0.3)
        assert server.version() == project.version
        project.release(top=top)
        server.wait_for_version(project.version)
        wait_for_reloads(server, 2)
        server.wait_for_workers(4)
        assert server.count(patterns.BOOTING) == 12
        assert {int(pid) for pid, _ in notes.words("import")}.isdisjoint(server.workers())


def test_nothing_is_said_that_is_not_said_without_it(project: Project) -> None:
    """A start, saves, a HUP, TTIN and the end, with all of Python's warnings: no error, no warning."""
    environment = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "default", **PRELOAD}
    with Gunicorn(project, "--preload", environment=environment) as server:
        for number in (1, 2):
            project.release()
            server.wait_for_version(project.version)
            wait_for_reloads(server, number)
        server.hup()
        wait_for_reloads(server, 3)
        server.send(signal.SIGTTIN)
        server.wait_for_workers(5)
        project.broken(top="undefined_name")
        server.wait_for_log(patterns.REFUSED)
        project.release()
        server.wait_for_version(project.version)
        wait_for_reloads(server, 4)
        server.wait_for_workers(5)
        server.stop()
        refusal = server.log[server.log.index("[ERROR] reload: refused") :].split("[INFO]")[0]
        server.log_path.write_text(server.log.replace(refusal, ""))
        assert_no_odd_lines(server)
        if GUNICORN >= (25, 1):
            # At the start, and once for each time that something was forked by the arbiter.
            assert server.count("Control socket listening") <= 1 + 6


@pytest.mark.adapters
def test_the_hooks_of_a_configuration(project: Project, notes: Notes) -> None:
    """Each hook is called once for its cause, in the process where it is to be, with the right worker."""
    hooks = "".join(
        f"""
def {name}({arguments}):
    note({name!r}, os.getpid(), {told})
"""
        for name, arguments, told in (
            ("pre_fork", "server, worker", "worker.age, 'app' in __import__('sys').modules"),
            ("post_fork", "server, worker", "worker.age, worker.pid"),
            ("post_worker_init", "worker", "worker.age, worker.pid"),
            ("worker_exit", "server, worker", "worker.age, worker.pid"),
            ("child_exit", "server, worker", "worker.age, worker.pid"),
            ("nworkers_changed", "server, new, old", "new, old"),
            ("when_ready", "server", "0"),
            ("on_reload", "server", "0"),
            ("on_exit", "server", "0"),
        )
    )
    file = own_configuration(project, notes.code + hooks)
    with Gunicorn(project, configuration=file, workers=2, environment=PRELOAD) as server:
        arbiter = str(server.pid)
        server.wait_for_workers(2)
        project.release()
        server.wait_for_version(project.version)
        wait_for_reloads(server, 1)
        server.wait_for_workers(2)
        notes.wait("child_exit", 2)
        server.end_worker(server.workers()[0], signal.SIGKILL)
        server.send(signal.SIGTTIN)
        server.wait_for_workers(3)
        # One that is told to leave before has nothing to be called for.
        notes.wait("post_worker_init", 6)
        server.stop()
    ages = [str(age) for age in range(1, 7)]
    assert sorted(words[1] for words in notes.words("pre_fork")) == ages
    # Where the application is, as with gunicorn's own preload.
    assert {words[2] for words in notes.words("pre_fork")} == {"True"}
    born = {words[1]: words[2] for words in notes.words("post_fork")}
    assert sorted(born) == ages
    for name in ("post_fork", "post_worker_init", "worker_exit"):
        assert all(pid == told == born[age] for pid, age, told in notes.words(name)), name
    assert sorted(words[1] for words in notes.words("post_worker_init")) == ages
    # One was killed.
    assert len(notes.words("worker_exit")) == 5
    assert sorted((words[1], words[2]) for words in notes.words("child_exit")) == sorted(born.items())
    assert [words[1:] for words in notes.words("nworkers_changed")] == [["2", "None"], ["3", "2"]]
    for name in ("child_exit", "when_ready", "on_reload", "on_exit"):
        assert {words[0] for words in notes.words(name)} == {arbiter}, name
    assert len(notes.words("when_ready")) == len(notes.words("on_reload")) == len(notes.words("on_exit")) == 1


def test_the_heartbeat_of_a_worker_is_its_own(project: Project) -> None:
    """A worker that hangs is ended by `timeout`, and another one comes; an import may take longer than that."""
    top = "def hang(environ, start_response):\n    if environ['PATH_INFO'] == '/hang':\n        time.sleep(60)\n"
    # A healthy worker is heard of every 2.5 s, and later where it has to wait for the processor.
    top += "    return app(environ, start_response)\ntime.sleep(5.5)\n"
    project.release(top=top)
    with Gunicorn(project, "--preload", "--timeout", "5", workers=2, application="app:hang") as server:
        server.wait_for_workers(2)
        before = set(server.workers())
        with contextlib.suppress(OSError):
            server.get("/hang")
        server.wait_for_workers(2)
        assert len(before & set(server.workers())) == 1
        assert server.count("WORKER TIMEOUT") == 1
        assert server.version() == project.version


def test_number_of_workers(project: Project) -> None:
    """TTIN and TTOU; saves in between, and workers that are killed, keep the number."""
    with Gunicorn(project, "--preload", workers=1, environment=PRELOAD) as server:
        server.wait_for_workers(1)
        for number in (1, 2):
            server.send(signal.SIGTTIN)
            server.wait_for_log("Handling signal: ttin", number)
        server.wait_for_workers(3)
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(3)
        server.send(signal.SIGTTOU)
        server.wait_for_workers(2)
        for pid in server.workers():
            processes.kill(pid)
        server.wait_for_workers(2)
        assert server.version() == project.version


def test_no_worker_at_all(project: Project) -> None:
    """`workers = 0` is none; TTIN makes the first."""
    with Gunicorn(
        project, "--preload", "--workers", "0", workers=0, wait=False, environment={"WEB_CONCURRENCY": "0", **PRELOAD}
    ) as server:
        server.wait_for_log("Listening at")
        # What else is started may look like one for a moment; a worker tells of itself.
        holds(lambda: server.count(patterns.BOOTING) == 0, "no worker", 0.3)
        server.wait_for_workers(0)
        server.send(signal.SIGTTIN)
        server.wait_until_ready_with(project.version)
        server.wait_for_workers(1)


def test_a_hup_with_another_configuration(project: Project) -> None:
    """The number of workers, preload and the environment of an edited configuration are taken, and left again."""
    file = own_configuration(project, "workers = 2\n")
    with Gunicorn(project, configuration=file, workers=0, environment=PRELOAD) as server:
        server.wait_for_workers(2)
        own_configuration(project, "workers = 3\n")
        wait_for_reloads(server, 1)
        server.wait_for_workers(3)
        own_configuration(project, "workers = 2\npreload_app = False\n")
        server.wait_for_log(patterns.RELOADED, 2)
        server.wait_for_workers(2)
        wait_until(lambda: zygotes(server) == [], "no zygote")
        project.release()
        server.wait_for_version(project.version)
        own_configuration(project, "workers = 4\npreload_app = True\n")
        wait_for_reloads(server, 4)
        server.wait_for_workers(4)
        kept = the_zygote(server)
        own_configuration(project, "workers = \n")
        server.hup()
        server.wait_for_log(patterns.CONFIGURATION_REFUSED)
        server.end_worker(server.workers()[0], signal.SIGKILL)
        server.wait_for_workers(4)
        assert the_zygote(server) == kept
        assert server.version() == project.version


def test_surge_rolls_one_worker_at_a_time(project: Project, notes: Notes) -> None:
    """With surge 1 the code is imported once all the same, and all workers are replaced."""
    top = notes.code + "note('import')\n"
    project.release(top=top)
    with Gunicorn(project, "--preload", environment={"WSGI_RELOAD_SURGE": "1", **PRELOAD}) as server:
        server.wait_for_workers(4)
        before = server.workers()
        project.release(top=top)
        wait_for_reloads(server, 1)
        server.wait_for_workers(4)
        assert not set(before) & set(server.workers())
        assert len(notes.words("import")) == 2
        assert server.version() == project.version


def test_random_numbers_differ(project: Project) -> None:
    """Python's random numbers differ from worker to worker, though it was imported and used in one process."""
    top = "import random; random.random()\nclass V(str):\n    def __format__(self, spec):\n        return str(random.random())\n"
    project.release(top=top, bottom="VERSION = V()")
    text = (project.root / "app.py").read_text().replace("text = VERSION", "text = format(VERSION)")
    project.save("app.py", text)
    with Gunicorn(project, "--preload", environment=PRELOAD) as server:
        answers: dict[str, str] = {}

        def all_asked() -> bool:
            number, pid = server.get()[1].split()
            answers.setdefault(pid, number)
            return len(answers) == 4

        wait_until(all_asked, "each worker has answered")
        assert len(set(answers.values())) == 4


def test_what_an_import_prints_is_printed_once(project: Project) -> None:
    """Text that waits in a buffer while the workers are forked does not come out of each of them."""
    project.release(top="print('loaded by one')")
    with Gunicorn(project, "--preload", environment=PRELOAD) as server:
        server.wait_for_workers(4)
        server.wait_for_log("loaded by one")
        server.stop()
        assert server.count("loaded by one") == 1


def test_what_is_shared_stays_shared(project: Project, notes: Notes) -> None:
    """Neither the start of a worker nor its garbage collections write to what the import has made."""
    # Modules of a page each: whoever looks at one, or collects, has that page for himself.
    project.release(
        top="""
import sys, types
class Wide(types.ModuleType):
    __slots__ = [f"slot{number}" for number in range(500)]
for number in range(10_000):
    sys.modules[f"wide{number}"] = Wide(f"wide{number}")
"""
    )
    file = own_configuration(
        project, notes.code + "def post_worker_init(worker):\n    __import__('gc').collect()\n    note('collected')\n"
    )
    with Gunicorn(project, configuration=file, workers=2, environment=PRELOAD) as server:
        notes.wait("collected", 2)
        server.answers()
        assert processes.memory_kb(the_zygote(server), "Rss") > 40_000
        own = [processes.memory_kb(pid, "Private_Dirty") for pid in server.workers()]
        assert len(own) == 2 and max(own) < 20_000


def test_what_only_the_import_read_of_files(project: Project) -> None:
    """The zygote keeps no page of it while it waits, as it would of the code of big libraries; what it reads is there."""
    (project.root / "large").write_bytes(b"v" * 40_000_000)
    project.release(
        top="""
import mmap
with open("large", "rb") as file:
    large = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
assert large.find(b"w") == -1
"""
    )
    with Gunicorn(project, configuration=own_configuration(project), workers=2, environment=PRELOAD) as server:
        kept = the_zygote(server)
        wait_until(
            lambda: processes.memory_kb(kept, "Private_Clean", "Private_Dirty") < 20_000,
            lambda: f"little of its own: {processes.memory_kb(kept, 'Private_Clean', 'Private_Dirty')} kB",
        )
        before = set(server.workers())
        server.end_worker(min(before), signal.SIGKILL)
        wait_until(lambda: len(server.workers()) == 2 and set(server.workers()) != before, "another worker")
        assert server.version() == project.version


def test_a_collector_that_is_switched_off(project: Project, notes: Notes) -> None:
    """An application that sees to the garbage by itself finds it as it left it."""
    project.release(top="import gc; gc.disable()")
    file = own_configuration(
        project,
        notes.code + "def post_fork(server, worker):\n"
        "    import gc\n"
        "    note('gc', gc.isenabled(), gc.get_freeze_count())\n",
    )
    with Gunicorn(project, configuration=file, workers=1, environment=PRELOAD):
        assert notes.wait("gc", 1) == [["False", "0"]]


def test_files_that_are_loaded_past_the_import_system(project: Project) -> None:
    """They are watched, be they loaded by the application or by a worker for itself."""
    load = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location({name!r}, {path!r})
module = sys.modules[{name!r}] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""
    by_all, by_each = (
        load.format(name=name, path=str(project.root / f"{name}.conf.py")) for name in ("by_all", "by_each")
    )
    for name in ("by_all", "by_each"):
        project.save(f"{name}.conf.py", "")
    project.release(top=by_all)
    hook = "def post_worker_init(worker):\n" + "".join(f"    {line}\n" for line in by_each.splitlines() if line)
    file = own_configuration(project, hook)
    with Gunicorn(project, configuration=file, workers=2, environment=PRELOAD) as server:
        server.wait_for_workers(2)
        for number, name in enumerate(("by_all", "by_each"), 1):
            project.save(f"{name}.conf.py", f"NUMBER = {number}\n")
            wait_for_reloads(server, number)
            assert f"{name}.conf.py" in server.wait_for_log(patterns.RELOADED, number)["what"]


def test_logs_that_were_moved(project: Project) -> None:
    """After a USR1 workers that are forked later write to the new file."""
    log = project.root / "error.log"
    with Gunicorn(project, "--preload", "--error-logfile", str(log), workers=2, wait=False) as server:
        wait_until(lambda: log.exists() and patterns.find(patterns.LISTENING, log.read_text()), "it listens")
        server.use_port(int(patterns.find(patterns.LISTENING, log.read_text())[0]["port"]))
        server.wait_ready()
        server.wait_for_workers(2)
        os.rename(log, project.root / "old.log")
        server.send(signal.SIGUSR1)
        wait_until(log.exists, "a new log")
        kept = the_zygote(server)
        server.end_worker(server.workers()[0], signal.SIGKILL)
        server.wait_for_workers(2)
        assert the_zygote(server) == kept
        wait_until(lambda: patterns.find(patterns.BOOTING, log.read_text()), "the respawn in the new log")


def test_an_idle_server_does_nothing(project: Project) -> None:
    """Arbiter and zygote use next to no time of the processor."""
    with Gunicorn(project, "--preload", environment=PRELOAD) as server:
        server.wait_for_log(patterns.WATCHING)
        server.wait_for_workers(4)
        pids = [server.pid, the_zygote(server)]

        def used() -> int:
            fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
            return sum(int(each[11]) + int(each[12]) for each in fields)

        before = used()
        # Signals that come from nowhere are none of a zygote's business.
        for sig in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU):
            processes.kill(pids[1], sig)
        holds(lambda: True, "nothing", 2.0)
        assert used() - before <= 20, "ticks of 10 ms in 2 s"
        assert the_zygote(server) == pids[1]


@pytest.mark.parametrize("setting", ["always", "never"])
def test_the_setting_share(setting: str, project: Project, notes: Notes) -> None:
    """`share` decides, whatever `preload_app` says."""
    top = notes.code + "note('import')\n"
    project.release(top=top)
    options = ["--preload"] * (setting == "never")
    with Gunicorn(project, *options, workers=2, environment={"WSGI_RELOAD_SHARE": setting, **PRELOAD}) as server:
        server.wait_for_log(patterns.WATCHING)
        project.release(top=top)
        server.wait_for_version(project.version)
        server.wait_for_log(patterns.RELOADED)
        assert len(notes.words("import")) == (2 if setting == "always" else 4)
        wait_until(lambda: len(zygotes(server)) == (setting == "always"), "one zygote, or none")


def test_without_a_subreaper_each_worker_imports(project: Project, notes: Notes) -> None:
    """Where the system adopts no orphans it is told once, and saves are served by the plain roll."""
    top = notes.code + "note('import')\n"
    project.release(top=top)
    file = own_configuration(
        project, "import wsgi_reload_hooks.process.linux\nwsgi_reload_hooks.process.linux.available = lambda: False\n"
    )
    with Gunicorn(project, configuration=file, workers=2, environment=PRELOAD) as server:
        server.wait_for_log(patterns.WATCHING)
        server.hup()
        server.wait_for_log(patterns.RELOADED)
        project.release(top=top)
        server.wait_for_version(project.version)
        assert server.count(patterns.NOT_SHARED) == 1
        assert len(notes.words("import")) == 6 and zygotes(server) == []


def test_beside_gunicorns_own_reloader(project: Project) -> None:
    """`--preload --reload`: theirs is off, ours does its work."""
    with Gunicorn(project, "--preload", "--reload", workers=2, environment=PRELOAD) as server:
        server.wait_for_log("gunicorn's own reload is switched off")
        project.release()
        server.wait_for_version(project.version)
        wait_for_reloads(server, 1)
        assert "Worker reloading" not in server.log


def test_a_default_timeout_of_sockets(project: Project) -> None:
    """A configuration that sets one for all sockets does not end the zygote."""
    file = own_configuration(project, "import socket\nsocket.setdefaulttimeout(0.2)\n")
    with Gunicorn(project, configuration=file, workers=2, environment=PRELOAD) as server:
        kept = the_zygote(server)
        holds(lambda: zygotes(server) == [kept], "one zygote", 0.6)
        server.end_worker(server.workers()[0], signal.SIGKILL)
        assert zygotes(server) == [kept]


# -- deaths -----------------------------------------------------------------------------------------------------------


@pytest.mark.adapters
def test_a_killed_worker_comes_back_with_what_runs(project: Project) -> None:
    """Also while the disk is broken: the zygote has the code that is in service."""
    with Gunicorn(project, "--preload", environment=PRELOAD) as server:
        for number in (1, 2):
            project.release()
            server.wait_for_version(project.version)
            wait_for_reloads(server, number)
        project.broken(top="undefined_name")
        server.wait_for_log(patterns.REFUSED)
        for pid in server.workers():
            processes.kill(pid)
        server.wait_for_workers(4)
        assert server.version() == project.version
        assert server.count(patterns.REFUSED) == 1
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(4)


@pytest.mark.adapters
def test_a_kept_zygote_is_killed(project: Project) -> None:
    """Nobody notices; the next worker that is needed brings a new one."""
    with Gunicorn(project, "--preload", environment=PRELOAD) as server:
        server.wait_for_workers(4)
        kept = the_zygote(server)
        processes.kill(kept)
        wait_until(lambda: zygotes(server) == [], "no zygote")
        server.end_worker(server.workers()[0], signal.SIGKILL)
        assert the_zygote(server) != kept
        processes.kill(the_zygote(server))
        wait_until(lambda: zygotes(server) == [], "no zygote")
        project.broken(top="undefined_name")
        server.wait_for_log(patterns.REFUSED)
        processes.kill(server.workers()[0])
        server.wait_for_workers(3)
        assert server.version() == project.version
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(4)


def test_a_zygote_is_killed_while_it_loads(project: Project) -> None:
    """A refusal like any other."""
    with Gunicorn(project, "--preload", environment=PRELOAD) as server:
        kept = the_zygote(server)
        good = project.version
        project.release(top="time.sleep(30)")
        processes.kill(loading(server, kept))
        assert "SIGKILL" in server.wait_for_log(patterns.REFUSED)["why"]
        assert server.version() == good
        assert zygotes(server) == [kept]
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(4)


HELD = """
def pre_fork(server, worker):
    import time
    while os.path.exists({held!r}) and worker.age > 3:
        note("held", worker.age)
        time.sleep(0.02)
"""


@pytest.mark.parametrize("victim", ["zygote", "midwife"])
def test_a_death_amid_a_delivery(victim: str, project: Project, notes: Notes) -> None:
    """The zygote or its midwife is killed when two of four workers are forked: refused, and nobody is left over."""
    held = project.root / "held"
    file = own_configuration(project, notes.code + HELD.replace("> 3", "in (7, 13)").format(held=str(held)))
    with Gunicorn(project, configuration=file, environment=PRELOAD) as server:
        server.wait_for_workers(4)
        good, kept, before = project.version, the_zygote(server), set(server.workers())
        held.write_text("")
        project.release()
        notes.wait("held", 1)
        zygote = loading(server, kept)
        (midwife,) = processes.children(zygote)
        processes.kill({"zygote": zygote, "midwife": midwife}[victim])
        server.wait_for_log(patterns.REFUSED)
        held.unlink()
        wait_until(lambda: set(server.workers()) == before, "only the old workers")
        assert server.version() == good
        wait_until(lambda: zygotes(server) == [kept], "only the old zygote")
        project.release()
        server.wait_for_version(project.version)
        wait_for_reloads(server, 1)
        server.wait_for_workers(4)
        # The same where a single worker is needed: that is tried again.
        held.write_text("")
        processes.kill(server.workers()[0])
        wait_until(lambda: ["13"] in notes.words("held"), "the thirteenth is about to be forked")
        zygote = the_zygote(server)
        (midwife,) = processes.children(zygote)
        processes.kill({"zygote": zygote, "midwife": midwife}[victim])
        server.wait_for_log("could not be replaced")
        held.unlink()
        server.wait_for_workers(4)
        assert server.version() == project.version


def test_a_pre_fork_that_raises(project: Project) -> None:
    """No worker is forked, so none of the old ones goes; the entry says why."""
    flag = project.root / "flag"
    file = own_configuration(
        project,
        f"def pre_fork(server, worker):\n    if os.path.exists({str(flag)!r}):\n        raise ValueError('no room today')\n",
    )
    with Gunicorn(project, configuration=file, environment=PRELOAD) as server:
        server.wait_for_workers(4)
        before, good = server.workers(), project.version
        flag.write_text("")
        project.release()
        assert "no room today" in server.wait_for_log(patterns.REFUSED)["why"]
        wait_until(lambda: server.workers() == before, "only the old workers")
        assert server.version() == good
        flag.unlink()
        server.hup()
        server.wait_for_version(project.version)
        server.wait_for_workers(4)


@pytest.mark.parametrize("moment", ["pre_fork", "post_fork", "post_worker_init"])
def test_a_worker_dies_as_soon_as_it_is_forked(moment: str, project: Project, notes: Notes) -> None:
    """Perhaps before the arbiter has heard of it: refused, each has its `child_exit`, no descriptor is lost."""
    flag = project.root / "flag"
    arguments = "worker" if moment == "post_worker_init" else "server, worker"
    # In pre_fork it is the midwife that dies.
    file = own_configuration(
        project,
        notes.code
        + f"def {moment}({arguments}):\n    if os.path.exists({str(flag)!r}):\n        os._exit(0)\n"
        + "def child_exit(server, worker):\n    note('child_exit', worker.age)\n",
    )
    with Gunicorn(project, configuration=file, environment={"WSGI_RELOAD_ENGINE": "stat", **PRELOAD}) as server:
        project.release()
        server.wait_for_version(project.version)
        wait_for_reloads(server, 1)
        server.wait_for_workers(4)
        notes.wait("child_exit", 4)
        files = processes.open_files(server.pid)
        before, good = server.workers(), project.version
        flag.write_text("")
        for number in (1, 2, 3):
            project.broken(bottom=f"# {number}")
            wait_until(lambda n=number: server.count("refused") >= n, "refused")  # type: ignore[misc]
        wait_until(lambda: server.workers() == before, "only the old workers")
        assert server.version() == good
        if moment != "pre_fork":
            notes.wait("child_exit", 4 + 3)
        wait_until(lambda: processes.open_files(server.pid) <= files, "no more open files")
        flag.unlink()
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(4)
        ages = [words[0] for words in notes.wait("child_exit", 8)]
        assert len(ages) == len(set(ages))


@pytest.mark.parametrize("left", [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4])
def test_a_stop_at_any_moment(left: float, project: Project) -> None:
    """SIGTERM while a generation is loaded, forked, booted or exchanged: nothing is left."""
    project.release(top="time.sleep(0.1)")
    with Gunicorn(project, "--preload", workers=2, environment=PRELOAD):
        saved = project.release(top="time.sleep(0.1)")
        wait_until(lambda: time.monotonic() > saved + left, "its moment")


def test_a_stop_while_an_import_cannot_be_interrupted(project: Project) -> None:
    """A zygote that hears no signal does not outlive the server."""
    with Gunicorn(project, "--preload", workers=2, environment=PRELOAD) as server:
        kept = the_zygote(server)
        project.release(
            top="import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\ntime.sleep(60)"
        )
        zygote = loading(server, kept)
        wait_until(lambda: "SigBlk:\t0000000000000000" not in Path(f"/proc/{zygote}/status").read_text(), "it is deaf")


@pytest.mark.adapters
@pytest.mark.parametrize("moment", ["kept", "loading"])
def test_the_arbiter_is_killed(moment: str, project: Project) -> None:
    """No process is left that serves nobody."""
    with Gunicorn(project, "--preload", workers=2, environment=PRELOAD) as server:
        server.wait_for_workers(2)
        kept = the_zygote(server)
        if moment == "loading":
            project.release(top="time.sleep(60)")
            loading(server, kept)
        processes.kill(server.pid)
        assert server.exit_status() == -signal.SIGKILL
        # A worker of gunicorn's that is idle looks for its arbiter now and then.
        wait_until(lambda: not any(map(processes.is_zygote, server.processes())), "no zygote is left")
        server.kill()
        server.forget()


# -- the start --------------------------------------------------------------------------------------------------------


@pytest.mark.adapters
def test_broken_at_the_start_waits_for_the_repair(project: Project) -> None:
    """One entry, no worker, and who waits is answered after the repair."""
    project.broken(top="undefined_name")
    with Gunicorn(project, "--preload", wait=False, environment=PRELOAD) as server:
        report = server.wait_for_log(patterns.WAITING_FOR_REPAIR)
        assert "app.py, line" in report["why"] and "undefined_name" in report["why"]
        answers: list[tuple[int, str]] = []
        visitor = threading.Thread(target=lambda: answers.append(server.get()))
        visitor.start()
        holds(lambda: server.count(patterns.BOOTING) == 0 and not answers, "no worker, no answer", 0.5)
        project.broken(top="os._exit(3)")
        holds(lambda: not server.exited(), "the server lives", 0.3)
        project.release()
        visitor.join(10.0)
        assert [(status, text.split()[0]) for status, text in answers] == [(200, project.version)]
        server.wait_for_workers(4)
        assert server.count(patterns.WAITING_FOR_REPAIR) <= 2


def test_broken_at_the_start_exits_when_asked_to(project: Project) -> None:
    """With broken_start = exit the server exits with an error, as gunicorn alone does."""
    project.broken(top="undefined_name")
    server = Gunicorn(project, "--preload", wait=False, environment={"WSGI_RELOAD_BROKEN_START": "exit"})
    assert server.run_to_its_end() == 3
    assert "undefined_name" in server.output


def test_an_endless_import_at_the_start(project: Project) -> None:
    """It is told where it hangs, and the repair is served."""
    project.broken(top="while True:\n    time.sleep(0.01)")
    environment = {"WSGI_RELOAD_BOOT_TIMEOUT": "3", **PRELOAD}
    with Gunicorn(project, "--preload", wait=False, environment=environment) as server:
        report = server.wait_for_log(patterns.WAITING_FOR_REPAIR)
        assert re.match(r"app\.py, line \d+: its import did not end within 3 s", report["why"])
        project.release()
        server.wait_until_ready_with(project.version)
        server.wait_for_workers(4)


# -- one save after the other -----------------------------------------------------------------------------------------


def test_a_save_while_another_one_is_loaded(project: Project) -> None:
    """The first is never served, and no worker is forked of it."""
    with Gunicorn(project, "--preload", environment=PRELOAD) as server:
        server.wait_for_log(patterns.WATCHING)
        kept, good, go = the_zygote(server), project.version, project.root / "go"
        boots = server.count(patterns.BOOTING)
        project.release(top=f"while not os.path.exists({str(go)!r}):\n    time.sleep(0.01)")
        first = loading(server, kept)
        project.release()
        # What is loaded is old by now, whoever notices first.
        go.write_text("")
        wait_until(lambda: server.version() != good, "something new")
        assert server.version() == project.version
        wait_until(lambda: not processes.alive(first), "the first zygote left")
        wait_for_reloads(server, 1)
        server.wait_for_workers(4)
        assert server.count(patterns.BOOTING) == boots + 4


def test_a_save_amid_a_delivery(project: Project, notes: Notes) -> None:
    """Its workers are sent away, those that were not forked yet as well; the last save is served."""
    held = project.root / "held"
    file = own_configuration(project, notes.code + HELD.replace("> 3", "== 7").format(held=str(held)))
    with Gunicorn(project, configuration=file, environment=PRELOAD) as server:
        server.wait_for_workers(4)
        held.write_text("")
        project.release()
        notes.wait("held", 1)
        project.release()
        server.wait_for_version(project.version)
        wait_for_reloads(server, 1)
        held.unlink()
        server.wait_for_workers(4)
        assert server.version() == project.version
        assert server.count(patterns.REFUSED) == 0


def test_taken_back_while_it_is_loaded(project: Project, notes: Notes) -> None:
    """Nothing to load: the zygote goes, nobody is replaced."""
    with Gunicorn(project, "--preload", environment=PRELOAD) as server:
        server.wait_for_workers(4)
        before, kept, text = server.workers(), the_zygote(server), (project.root / "app.py").read_text()
        project.broken(top=notes.code + "note('begun')\ntime.sleep(30)")
        notes.wait("begun", 1)
        project.save("app.py", text)
        server.wait_for_log("change reverted, nothing to reload")
        wait_until(lambda: zygotes(server) == [kept], "only the old zygote")
        assert server.workers() == before
        project.release()
        server.wait_for_version(project.version)


# -- where it runs ----------------------------------------------------------------------------------------------------


def a_save_is_served(server: Gunicorn, project: Project) -> None:
    """A good save, a broken one, a killed worker, and the repair."""
    count = len(server.workers())
    reloads = server.count(patterns.RELOADED)
    project.release()
    server.wait_for_version(project.version)
    wait_for_reloads(server, reloads + 1)
    server.wait_for_workers(count)
    refusals = server.count(patterns.REFUSED)
    project.broken(top="undefined_name")
    server.wait_for_log(patterns.REFUSED, refusals + 1)
    server.end_worker(server.workers()[0], signal.SIGKILL)
    assert server.version() == project.version
    project.release()
    server.wait_for_version(project.version)
    server.wait_for_workers(count)


def test_the_spelling_in_a_configuration(project: Project) -> None:
    """`--preload` on the command line, with our one line in a configuration that says otherwise."""
    project.save("conf.py", "import wsgi_reload_hooks.gunicorn_conf\npreload_app = False\n")
    with Gunicorn(
        project, "--preload", configuration=project.root / "conf.py", workers=1, environment=PRELOAD
    ) as server:
        server.wait_for_workers(1)
        a_save_is_served(server, project)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights away")
@pytest.mark.parametrize("option", ["", "--initgroups"])
def test_a_root_arbiter_with_a_user(option: str) -> None:
    """The import runs with the workers' rights, from its first line; so does everything else of the zygote."""
    folder = Path(tempfile.mkdtemp(prefix="wrh-public-"))
    folder.chmod(0o755)
    try:
        user = pwd.getpwnam("nobody")
        project, notes = Project(folder / "project", import_seconds=0.0), Notes(folder / "notes")
        top = notes.code + "note('import', os.getresuid(), os.getresgid(), os.getgroups())\n"
        project.release(top=top)
        options = ("--user", "nobody", "--group", str(user.pw_gid), *([option] if option else []))
        with Gunicorn(project, *options, workers=1, environment=PRELOAD):
            # Without preload: as it is to be. (With initgroups gunicorn leaves the group as it was.)
            (rights,) = notes.words("import")
        with Gunicorn(project, "--preload", *options, workers=2, environment=PRELOAD) as server:
            server.wait_for_workers(2)
            project.release(top=top)
            server.wait_for_version(project.version)
            wait_for_reloads(server, 1)
            server.wait_for_workers(2)
            server.end_worker(server.workers()[0], signal.SIGKILL)
            project.broken(top=top + "undefined_name")
            server.wait_for_log(patterns.REFUSED)
            assert notes.words("import") == [rights] * 4
            for pid in (the_zygote(server), *server.workers()):
                status = Path(f"/proc/{pid}/status").read_text()
                assert re.search(rf"Uid:\s+{user.pw_uid}\s+{user.pw_uid}\s", status)
    finally:
        shutil.rmtree(folder)


def test_a_unix_socket(project: Project) -> None:
    """Served on a socket of the file system, too."""
    # The name of one must not be long.
    folder = tempfile.mkdtemp(prefix="wrh-")
    path = f"{folder}/socket"
    try:
        with Gunicorn(project, "--preload", "--bind", f"unix:{path}", workers=2, environment=PRELOAD) as server:
            a_save_is_served(server, project)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(4096), b""))
            assert project.version.encode() in answer
    finally:
        shutil.rmtree(folder)


@each(("sync", "gthread", "asgi", UVICORN), matrix=("asgi", UVICORN))
def test_sockets_of_their_own(worker_class: str, tmp_path: Path) -> None:
    """`reuse_port`: no client comes to a worker that waits at the gate, or that was refused."""
    project = project_for(worker_class, tmp_path / "project", import_seconds=0.0)
    project.release()
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        file = own_configuration(project, f"bind = '127.0.0.1:{port}'\nreuse_port = True\n")
        options = ("--bind", f"127.0.0.1:{port}")
        with Gunicorn(
            project,
            *options,
            worker_class=worker_class,
            configuration=file,
            workers=2,
            wait=False,
            environment=PRELOAD,
        ) as server:
            server.use_port(port)
            server.wait_ready()
            server.wait_for_workers(2)
            project.release(top="time.sleep(0.3)")
            seen = set()

            def served() -> bool:
                # What waits at the socket of a worker that leaves is reset by the kernel.
                with contextlib.suppress(OSError):
                    seen.add(server.version())
                return project.version in seen

            wait_until(served, "the new version")
            wait_for_reloads(server, 1)
            server.wait_for_workers(2)
            assert server.version() == project.version


def test_socket_activation(project: Project, tmp_path: Path) -> None:
    """The sockets of systemd are served, through saves."""
    starter = tmp_path / "starter.py"
    starter.write_text(
        "import os, socket, sys\n"
        "listener = socket.socket(); listener.bind(('127.0.0.1', 0)); listener.listen(64)\n"
        "print('Listening at: http://127.0.0.1:%d' % listener.getsockname()[1], flush=True)\n"
        "os.dup2(listener.fileno(), 9)\nos.dup2(9, 3)\n"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'gunicorn', *sys.argv[1:]])\n"
    )
    with Gunicorn(project, "--preload", workers=2, program=(str(starter),), environment=PRELOAD) as server:
        a_save_is_served(server, project)


def test_another_arbiter_in_the_middle(project: Project) -> None:
    """USR2, a save, and the end of the first: the second serves on with a zygote of its own."""
    with Gunicorn(project, "--preload", workers=2, environment=PRELOAD) as server:
        project.release()
        server.wait_for_version(project.version)
        wait_for_reloads(server, 1)
        server.send(signal.SIGUSR2)
        second = server.successor()
        wait_until(lambda: len(processes.children(second)) >= 3, "its workers and its zygote")
        project.release()
        server.wait_for_version(project.version)
        server.send(signal.SIGTERM)
        assert server.exit_status() == 0
        server.adopt(second)
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(2)
        server.end_worker(server.workers()[0], signal.SIGKILL)


def test_as_a_daemon(project: Project) -> None:
    """`--daemon`: saves are served, WINCH sends all workers away and TTIN brings one back, and the end leaves nothing."""
    log, pidfile = project.root / "error.log", project.root / "pid"
    options = ("--preload", "--daemon", "--pid", str(pidfile), "--error-logfile", str(log))
    with Gunicorn(project, *options, workers=2, wait=False, environment=PRELOAD) as server:
        assert server.exit_status() == 0
        wait_until(lambda: pidfile.exists() and pidfile.read_text().strip(), "a pid file")
        server.adopt(int(pidfile.read_text()))
        wait_until(lambda: patterns.find(patterns.LISTENING, log.read_text()), "it listens")
        server.use_port(int(patterns.find(patterns.LISTENING, log.read_text())[0]["port"]))
        wait_until(lambda: len(server.workers()) == 2, "two workers")
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(2)
        os.kill(server.pid, signal.SIGWINCH)
        server.wait_for_workers(0)
        os.kill(server.pid, signal.SIGTTIN)
        server.wait_for_workers(1)
        assert server.version() == project.version


def test_statsd_is_told_of_every_generation(project: Project) -> None:
    """`--statsd-host`: requests are counted by the workers of each generation, workers by the arbiter."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.setblocking(False)
        heard: list[str] = []

        def told(what: str) -> int:
            with contextlib.suppress(BlockingIOError):
                while True:
                    heard.append(statsd.recv(4096).decode())
            return sum(each.startswith(what) for each in heard)

        words = ("--preload", "--statsd-host", f"127.0.0.1:{statsd.getsockname()[1]}")
        with Gunicorn(project, *words, workers=2, environment=PRELOAD) as server:
            for _ in range(2):
                counted = told("gunicorn.requests:1|c")
                server.version()
                wait_until(lambda counted=counted: told("gunicorn.requests:1|c") > counted, lambda: str(heard))  # type: ignore[misc]
                wait_until(lambda: told("gunicorn.workers:2|g"), lambda: str(heard))
                a_save_is_served(server, project)


class Contained(Gunicorn):
    """In a namespace of its own, where it is the first process."""

    def __init__(self, project: Project, *options: str) -> None:
        super().__init__(project, *options, workers=2, wait=False, environment=PRELOAD)
        self._command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *self._command]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can make a namespace")
def test_as_the_first_process_of_a_container(project: Project) -> None:
    """As pid 1: saves are served, nothing is left, no zombie either; from outside, the hooks are seen to run."""
    with Contained(project, "--preload") as server:
        server.wait_ready()
        outside = server.pid
        server.adopt(wait_until(lambda: next(iter(processes.children(outside)), 0), "the first process"))
        server.wait_for_workers(2)
        a_save_is_served(server, project)
        assert has_control_socket(server.pid)
        wait_until(lambda: zombies(server.pid) == [], "no zombie")
        os.kill(server.pid, signal.SIGTERM)
        assert server.exit_status() == 0
        server.assert_nothing_left()
        server.forget()


def zombies(parent: int) -> list[int]:
    """Its dead children that nobody has taken notice of."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            if fields[0] == "Z" and int(fields[1]) == parent:
                found.append(int(entry))
    return found
