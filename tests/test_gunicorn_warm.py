"""`warm`: named modules stay imported from one generation to the next, and nobody can tell, but by the time it takes."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Gunicorn, Project, holds, patterns, processes, wait_until
from test_gunicorn_preload_packages import CASES, SAVES, Case, Shop, surroundings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs what only Linux does with orphans")

STAY = patterns.OURS + r"warm: (?P<names>.*) stay imported"
ANEW = patterns.OURS + r"warm: (?P<name>\S+) is imported anew from now on: (?P<why>.*)"
THERE = patterns.OURS + r"warm: (?P<name>\S+) is imported by gunicorn itself"
OUTDATED = patterns.OURS + r"warm: (?P<what>.*) has changed, everything is imported anew"
ENDED = patterns.OURS + r"warm: the process that keeps modules imported has ended"
# After each of these there is no base until the next STAY.
GONE = rf"(?:{ENDED}|{OUTDATED}|Hang up: Master)"
OFF = patterns.OURS + r"warm: off until the next HUP"
# A third-party module: it tells who has run it.
PACKAGE = "import os\nwith open({notes!r}, 'a') as notes:\n    notes.write({name!r} + '\\n')\n"


class Shelf:
    """The third-party modules of a project."""

    def __init__(self, project: Project) -> None:
        self.folder = project.root / "lib" / "site-packages"
        self.folder.mkdir(parents=True)
        self._notes = project.root / "imports.txt"
        self._notes.write_text("")

    def put(self, name: str, text: str = "") -> None:
        """A module that is one file, installed anew."""
        sibling = self.folder / f"{name}.tmp"
        sibling.write_text(PACKAGE.format(notes=str(self._notes), name=name) + text)
        sibling.replace(self.folder / f"{name}.py")

    def imports(self, name: str) -> int:
        """How often it has been run."""
        return self._notes.read_text().split().count(name)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "project", import_seconds=0.0)
    project.imports = "import kept"
    return project


@pytest.fixture
def shelf(project: Project) -> Shelf:
    shelf = Shelf(project)
    shelf.put("kept")
    return shelf


def warm_server(
    project: Project, *options: str, warm: str = "kept", workers: int = 2, share: str = "always", **more: str
) -> Gunicorn:
    environment = {"WSGI_RELOAD_WARM": warm, "WSGI_RELOAD_SHARE": share, "WSGI_RELOAD_STEP": "0.02", **more}
    return Gunicorn(project, "--pythonpath", "lib/site-packages", *options, workers=workers, environment=environment)


def bases(server: Gunicorn) -> list[int]:
    return [pid for pid in processes.children(server.pid) if processes.is_base(pid)]


def zygotes(server: Gunicorn) -> list[int]:
    return [pid for pid in processes.children(server.pid) if processes.is_zygote(pid)]


def the_base(server: Gunicorn) -> int:
    """The one that waits."""

    def sleeping() -> int:
        found = bases(server)
        return found[0] if len(found) == 1 and processes.state(found[0]) == "S" else 0

    return wait_until(sleeping, lambda: f"one base; there are {bases(server)}")


def reloads(server: Gunicorn) -> int:
    return server.count(patterns.RELOADED)


def save(server: Gunicorn, project: Project, *, warm: bool = True, top: str = "") -> None:
    """A good save, served by all workers; *warm*: by children of the process that had imported everything before."""
    base, before = the_base(server) if warm else 0, reloads(server)
    project.release(top=top)
    server.wait_for_version(project.version)
    server.wait_for_log(patterns.RELOADED, before + 1)
    if warm:
        wait_until(lambda: zygotes(server) == [base], lambda: f"{base} is the zygote; there are {zygotes(server)}")


# -- the packages -----------------------------------------------------------------------------------------------------

WARM = {
    "django": ("django.core.wsgi", CASES["django"]),
    "flask": ("flask", CASES["flask"]),
    "prometheus": ("prometheus_client", CASES["prometheus"]),
    "prometheus-multiprocess": ("prometheus_client", CASES["prometheus-multiprocess"]._replace(configuration="")),
    "sqlalchemy": ("sqlalchemy", CASES["sqlalchemy"]),
    "gevent": ("gevent", CASES["gevent"]),
    "pandas": ("numpy,pandas", CASES["pandas"]),
    "numpy": ("numpy", CASES["numpy"]),
    "grpc": ("grpc", CASES["grpc"]),
    # A thread that first-party code starts at import, beside a package that stays.
    "logging": (
        "grpc",
        Case("grpc", {**CASES["logging"].files, "part.py": "import grpc\n" + CASES["logging"].files["part.py"]}),
    ),
}


@pytest.mark.parametrize("name", WARM)
def test_each_kind_of_module_is_saved_three_times(name: str, tmp_path: Path) -> None:
    """Under load: no request fails, after each save all workers answer with the new value, and none imports anew."""
    names, case = WARM[name]
    if importlib.util.find_spec(case.package) is None:
        pytest.skip(f"{case.package} is not installed")
    project = Project(tmp_path / "project")
    shop = Shop(project, case)
    project.save("conf.py", "import wsgi_reload_hooks.gunicorn_conf\npreload_app = True\n" + case.configuration)
    with (
        surroundings(case, tmp_path / "notes") as environment,
        Gunicorn(
            project,
            configuration=project.root / "conf.py",
            worker_class=case.worker_class,
            workers=3,
            environment={"WSGI_RELOAD_WARM": names, **environment},
        ) as server,
    ):
        server.wait_for_workers(3)
        # Its worker class has gunicorn import it.
        loaded = name == "gevent"
        server.wait_for_log(THERE if loaded else STAY)
        done = 0
        with server.load(clients=4) as load:
            for kind in shop.kinds:
                for number in range(1, SAVES + 1):
                    base = 0 if loaded else the_base(server)
                    shop.next(kind, f"{number}")
                    load.wait_for_only(shop.version)
                    done += 1
                    # The line comes after the first answer.
                    server.wait_for_log(patterns.RELOADED, done)
                    assert not base or base in zygotes(server), server.log
        assert load.failed == []
        server.wait_for_workers(3)
        assert done >= SAVES
        assert server.count(ANEW) == 0
        assert server.count(patterns.REFUSED) == 0


def test_numpys_random_numbers_differ(tmp_path: Path) -> None:
    """From worker to worker and from generation to generation; where the application seeds them, they are as seeded."""
    pytest.importorskip("numpy")
    project = Project(tmp_path / "project", import_seconds=0.0)
    text = "import numpy\nSEED\ndef app(environ, start_response):\n    import os\n"
    text += "    body = f'VERSION-{numpy.random.randint(1 << 30)} {os.getpid()}'.encode()\n"
    text += "    start_response('200 OK', [('Content-Length', str(len(body)))])\n    return [body]\n"
    project.save("app.py", text.replace("SEED", "").replace("VERSION", "0"))
    with warm_server(project, warm="numpy", workers=3) as server:
        server.wait_for_log(STAY)
        seen: list[set[str]] = []
        for version, seed in (("1", ""), ("2", ""), ("3", "numpy.random.seed(7)")):
            base = the_base(server)
            project.save("app.py", text.replace("SEED", seed).replace("VERSION", version))
            server.wait_for_log(patterns.RELOADED, len(seen) + 1)
            assert base in zygotes(server)
            first: dict[str, str] = {}

            def all_asked(first: dict[str, str] = first, version: str = version) -> bool:
                number, pid = server.get()[1].split()
                if number.startswith(f"{version}-"):
                    first.setdefault(pid, number[2:])
                return len(first) == 3

            wait_until(all_asked, "each worker has answered")
            seen.append(set(first.values()))
        assert len(seen[0] | seen[1]) == 6
        assert len(seen[2]) == 1


# -- nobody can tell --------------------------------------------------------------------------------------------------

OBSERVING = """
import json, logging.config, socket, sys, warnings
import rest
seen = ["kept" in sys.modules, "kept.part" in sys.modules, hasattr(rest, "found"), len(rest.REGISTRY)]
seen.append("kept" in logging.Logger.manager.loggerDict)
warnings.simplefilter("ignore", ResourceWarning)
logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
seen.append([str(each[2]) for each in warnings.filters if each[2] in (ResourceWarning, FutureWarning)])
import kept
seen += [rest.found, len(rest.REGISTRY), logging.getLogger("kept").disabled, logging.getLogger("kept") is kept.log]
seen.append(logging.getLogger("kept.part").parent is kept.log)
seen.append(hasattr(kept, "part"))
seen.append([str(each[2]) for each in warnings.filters if each[2] in (ResourceWarning, FutureWarning)])
import kept.part
seen += [kept.part.VALUE, sys.modules["kept.part"] is kept.part, kept.__spec__.loader.name, kept.part.found_in]
import importlib.util
seen += [importlib.util.find_spec("kept").origin == kept.__file__, sorted(each for each in sys.modules if "kept" in each)]
hooks = [type(each) for each in sys.meta_path]
seen.append([each.__name__ for each in hooks if not each.__module__.startswith("wsgi_reload_hooks")])
with open("observed.txt", "a") as file:
    file.write(json.dumps(seen) + "\\n")
"""


def test_all_is_as_if_it_were_imported_now(project: Project) -> None:
    """What the application can see before, while and after it imports is the same in a warm generation."""
    shelf = Shelf(project)
    shelf.put("rest", "REGISTRY = []\n")
    package = shelf.folder / "kept"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import logging, warnings, rest\nlog = logging.getLogger('kept')\nrest.found = True\n"
        "warnings.simplefilter('ignore', FutureWarning)\n"
    )
    (package / "part.py").write_text("import os\nVALUE = os.environ.get('PART')\nfound_in = os.getcwd()\n")
    project.imports = OBSERVING.replace("import kept.part", "os.environ['PART'] = 'set'\nimport kept.part")
    project.release()
    with warm_server(project, warm="rest,kept.part") as server:
        names = server.wait_for_log(STAY)["names"]
        assert names == "rest, kept, kept.part"
        save(server, project)
        save(server, project)
        assert server.count(ANEW) == 0
    observed = [json.loads(line) for line in (project.root / "observed.txt").read_text().splitlines()]
    assert len(observed) == 3 and observed[0] == observed[1] == observed[2], observed
    assert observed[0][:5] == [False, False, False, 0, False] and observed[0][6] is True
    assert shelf.imports("rest") == 2


# -- dangers ----------------------------------------------------------------------------------------------------------

DANGERS = {
    "threads": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        "starts a thread",
    ),
    "opens": ("import socket\nheld = socket.socket()", "leaves a file or a socket open"),
    "spawns": (
        "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1)",
        "leaves a file",
    ),
    "sets": ("import os\nos.environ['SET_AT_IMPORT'] = '1'", "environment variable SET_AT_IMPORT"),
    "paths": ("import sys\nsys.path.append('/nowhere')", r"changes sys\.path"),
    "moves": ("import os\nos.chdir('/')", "working directory"),
    "handles": ("import signal\nsignal.signal(signal.SIGUSR1, lambda *a: None)", "handles SIGUSR1"),
    "logs": ("import logging\nlogging.basicConfig()", "configures the logger root"),
    "draws": ("import random\nrandom.random()", "draws random numbers"),
    "keeps": ("import random\nnumbers = random.Random(1)", "keeps a random generator"),
    "needs": ("import app", "imports first-party code"),
    "misses": (
        "import sys\nif 'flag_of_app' not in sys.modules:\n    raise RuntimeError('not yet')",
        "raises RuntimeError: not yet",
    ),
    "dies": (
        "import sys, os\nif 'flag_of_app' not in sys.modules:\n    os._exit(3)",
        "the process that imports it by itself ends",
    ),
    "adds": ("import kept\nkept.TABLE.append(1)", r"changes kept\.TABLE"),
    "hooks": (
        "import sys\nclass Finder:\n    def find_spec(*a): return None\nsys.meta_path.insert(0, Finder())",
        "import hook",
    ),
}


def test_dangerous_modules_are_refused_by_name(project: Project, shelf: Shelf) -> None:
    """Each of them is told once, with its danger; it is imported anew, and what is not dangerous stays imported."""
    for name, (text, _) in DANGERS.items():
        shelf.put(name, text)
    shelf.put("absent")
    shelf.put("kept", "TABLE = []\n")
    project.imports = "import types, sys\nsys.modules['flag_of_app'] = types.ModuleType('flag_of_app')\n"
    project.imports += "import kept\n" + "".join(
        f"import {name}\nos.chdir({str(project.root)!r})\n" for name in DANGERS
    )
    # What a socket or a child of an import leaves to the zygote is none of this test's business.
    project.release(bottom="opens.held.close()\nspawns.child.kill()\nspawns.child.wait()\n")
    with warm_server(project, warm=",".join([*DANGERS, "absent", "kept"])) as server:
        server.wait_for_log(STAY)
        told = {match["name"]: match["why"] for match in patterns.find(ANEW, server.log)}
        assert set(told) == {*DANGERS, "absent"}, told
        for name, (_, why) in DANGERS.items():
            assert re.search(why, told[name]), (name, told[name])
        assert "does not import it" in told["absent"]
        assert patterns.find(STAY, server.log)[-1]["names"] == "kept"
        before = {name: shelf.imports(name) for name in ("kept", "draws")}
        save(server, project)
        assert {name: shelf.imports(name) - count for name, count in before.items()} == {"kept": 0, "draws": 1}
        assert server.count(ANEW) == len(DANGERS) + 1


CHANGES = {
    "environment": ("os.environ['NEW'] = 'x'", "the environment variable NEW"),
    "path": ("import sys\nsys.path.insert(0, '/nowhere')", r"sys\.path"),
    "patch": ("import socket\nsocket.create_connection = print", r"socket\.create_connection is replaced"),
    "patched class": ("import socket\nsocket.socket.detach = lambda *a: 0", r"socket\.detach is replaced"),
    "hook": (
        "import sys\nclass F:\n    def find_spec(*a): return None\nsys.meta_path.insert(0, F())",
        "an import hook",
    ),
    "errors": ("import warnings\nwarnings.simplefilter('error')", "warnings are errors"),
    "logger": ("import logging\nlogging.getLogger('kept').setLevel(10)", "its logger kept is made before"),
    "order": ("import other", "it is imported before kept now"),
    "dependency": ("import beside", "beside, which comes with it, is imported before it"),
    "gone": (None, "does not import it any more"),
}


def test_a_save_that_changes_what_is_before_the_import(project: Project, shelf: Shelf) -> None:
    """It is found at the moment of the import, told by name, and served as it is where everything is imported anew."""
    shelf.put("beside")
    shelf.put("kept", "import logging, beside\nlog = logging.getLogger('kept')\n")
    shelf.put("other")
    plain = "import kept\nimport other\n"
    project.imports = plain
    project.release()
    with warm_server(project, warm="kept,other") as server:
        for number, (name, (top, why)) in enumerate(CHANGES.items(), 1):
            server.wait_for_log(STAY, number)
            project.imports = plain
            save(server, project)
            count = shelf.imports("kept")
            project.imports = "import kept\n" if top is None else f"{top}\n{plain}"
            save(server, project, warm=False)
            found = server.wait_for_log(ANEW, number)
            assert re.search(why, found["why"]), (name, found["why"])
            assert shelf.imports("kept") > count
            project.imports = plain
            save(server, project, warm=False)
            done = reloads(server)
            server.hup()
            server.wait_for_log(patterns.RELOADED, done + 1)
        assert server.count(patterns.REFUSED) == 0
        assert server.count(OFF) == 0


def test_a_file_that_a_module_reads(project: Project, shelf: Shelf) -> None:
    """What it has read while it was imported is read anew when it is another one; also one that was not there."""
    limit = project.root / "limit.txt"
    text = (
        "try:\n    with open('limit.txt') as file:\n        LIMIT = file.read()\nexcept OSError:\n    LIMIT = 'none'\n"
    )
    shelf.put("kept", text)
    text = project.source("", bottom="VERSION = 'NUMBER-' + kept.LIMIT\n")
    project.save("app.py", text.replace("NUMBER", "0"))
    with warm_server(project) as server:
        for number, value in enumerate(("one", "two", "longer"), 1):
            server.wait_for_log(STAY, number)
            the_base(server)
            limit.write_text(value)
            project.save("app.py", text.replace("NUMBER", str(number)))
            wait_until(lambda n=number, v=value: server.version() == f"{n}-{v}", "the new code and the new limit")  # type: ignore[misc]
            assert server.wait_for_log(OUTDATED, number)["what"] == "limit.txt"


def test_gevent_patches_before_the_import(project: Project, shelf: Shelf) -> None:
    """What was imported unpatched is of no use then: everything is imported anew, patched, and served."""
    pytest.importorskip("gevent")
    project.imports = "import kept\n"
    shelf.put("kept", "import socket\nSOCKET = socket.socket\n")
    project.release()
    with warm_server(project, "--worker-class", "gevent") as server:
        server.wait_for_log(STAY)
        save(server, project)
        project.imports = "import gevent.monkey\ngevent.monkey.patch_all()\nimport kept\n"
        project.imports += "assert kept.SOCKET.__module__.startswith('gevent')\n"
        save(server, project, warm=False)
        assert "is replaced before it is imported" in server.wait_for_log(ANEW)["why"]
        save(server, project, warm=False)
        assert server.count(patterns.REFUSED) == 0


def test_an_upgraded_module(project: Project, shelf: Shelf) -> None:
    """Files that are others by now, and another distribution beside them, are imported anew; then those stay."""
    project.imports = "import kept\n"
    shelf.put("kept", "RELEASE = 'one'\n")
    text = project.source("", bottom="VERSION = 'NUMBER-' + kept.RELEASE\n")
    project.save("app.py", text.replace("NUMBER", "0"))
    with warm_server(project) as server:
        server.wait_for_log(STAY)
        shelf.put("kept", "RELEASE = 'two, longer'[:3]\n")
        project.save("app.py", text.replace("NUMBER", "1"))
        wait_until(lambda: server.version() == "1-two", "the new module with the new code")
        assert "kept.py" in server.wait_for_log(OUTDATED)["what"]
        server.wait_for_log(STAY, 2)
        count = shelf.imports("kept")
        base = the_base(server)
        project.save("app.py", text.replace("NUMBER", "2"))
        wait_until(lambda: server.version() == "2-two", "the new code")
        wait_until(lambda: zygotes(server) == [base], lambda: f"{base} is the zygote; there are {zygotes(server)}")
        assert shelf.imports("kept") == count
        the_base(server)
        # Whatever it brings may be what an import looks for.
        (shelf.folder / "other-1.0.dist-info").mkdir()
        project.save("app.py", text.replace("NUMBER", "3"))
        wait_until(lambda: server.version() == "3-two", "the new code")
        wait_until(lambda: shelf.imports("kept") > count, "imported anew")
        assert "what is installed in" in server.wait_for_log(OUTDATED, 2)["what"]


# -- promises ---------------------------------------------------------------------------------------------------------


def test_broken_saves_are_refused_and_repaired(project: Project, shelf: Shelf) -> None:
    """As without it: each is told once with its reason, nothing of it is served, its repair is, and the next is warm."""
    project.release()
    with warm_server(project, WSGI_RELOAD_BOOT_TIMEOUT="4") as server:
        server.wait_for_log(STAY)
        for number, (top, why) in enumerate(
            (
                ("undefined_name", "NameError: name 'undefined_name'"),
                ("import kept.missing", "kept.missing"),
                ("os._exit(3)", "exit status 3"),
                ("os.kill(os.getpid(), 11)", "SIGSEGV"),
                ("time.sleep(60)", r"its import did not end within 4 s"),
            ),
            1,
        ):
            good = project.version
            the_base(server)
            project.broken(top=top)
            assert re.search(why, server.wait_for_log(patterns.REFUSED, number)["why"])
            assert server.version() == good
            save(server, project)
        assert server.count(OFF) == server.count(ANEW) == 0


def test_what_is_refused_only_warm_is_served(project: Project, shelf: Shelf) -> None:
    """A refusal, of the import or of the warm-up, is believed only where everything was imported anew.

    Then nothing stays imported until a HUP.
    """
    project.release()
    # What an application can do that looks for it.
    looks = "import sys\nWARM = any(type(each).__name__ == 'Stash' for each in sys.meta_path)\n"
    with warm_server(project, WSGI_RELOAD_WARMUP="/") as server:
        for number, (top, bottom) in enumerate(
            (
                ("if WARM:\n    raise ValueError('picky')\n", ""),
                (
                    "",
                    "_app = app\ndef app(*a):\n    if WARM:\n        raise ValueError('picky')\n    return _app(*a)\n",
                ),
            ),
            1,
        ):
            server.wait_for_log(STAY, 2 * number - 1)
            save(server, project)
            the_base(server)
            project.release(top=looks + top, bottom=bottom)
            server.wait_for_version(project.version)
            server.wait_for_log(OFF + r".*picky", number)
            server.wait_for_log(patterns.RELOADED, 4 * number - 2)
            save(server, project, warm=False)
            wait_until(lambda: bases(server) == [], "the base left")
            holds(lambda: bases(server) == [], "no base", 0.3)
            server.hup()
            server.wait_for_log(STAY, 2 * number)
            server.wait_for_log(patterns.RELOADED, 4 * number)
            if number == 1:
                # As many lines of each kind in the next round.
                processes.kill(the_base(server))
                server.wait_for_log(ENDED)
                save(server, project, warm=False)
        assert server.count(patterns.REFUSED) == 0


def test_copies_of_copies_are_alike(project: Project, shelf: Shelf) -> None:
    """Save after save, what waits has the same open files and no more memory."""
    project.release()
    with warm_server(project) as server:
        server.wait_for_log(STAY)
        for _ in range(3):
            save(server, project)
        base = the_base(server)
        files, memory = sorted(processes.numbers(base)), processes.resident_kb(base)
        for _ in range(12):
            save(server, project)
        base = the_base(server)
        wait_until(lambda: sorted(processes.numbers(base)) == files, lambda: f"{processes.numbers(base)} are {files}")
        assert processes.resident_kb(base) <= memory + 300


def test_the_base_is_killed_or_stuck(project: Project, shelf: Shelf) -> None:
    """While it waits, and while it loads: what is saved is served every time, nothing is refused, and warm again."""
    project.release()
    with warm_server(project) as server:
        server.wait_for_log(STAY)
        processes.kill(the_base(server))
        server.wait_for_log(ENDED)
        save(server, project, warm=False)
        server.wait_for_log(STAY, 2)
        save(server, project)
        base = the_base(server)
        flag = project.root / "flag"
        flag.write_text("")
        project.release(top=f"while os.path.exists({str(flag)!r}):\n    time.sleep(0.01)\n")
        wait_until(lambda: base in zygotes(server), "it loads")
        processes.kill(base)
        wait_until(lambda: len(zygotes(server)) == 2 and base not in zygotes(server), "another one loads")
        flag.unlink()
        server.wait_for_version(project.version)
        server.wait_for_log(patterns.RELOADED, 3)
        save(server, project)
        processes.kill(the_base(server), signal.SIGSTOP)
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_log(patterns.RELOADED, 5)
        save(server, project)
        assert server.count(patterns.REFUSED) == server.count(OFF) == server.count(ANEW) == 0


@pytest.mark.parametrize("left", [0.0, 0.03, 0.06, 0.1, 0.2])
def test_a_stop_at_any_moment(left: float, project: Project, shelf: Shelf) -> None:
    """SIGTERM while a base is made, copied, or becomes a zygote: nothing is left."""
    project.release(top="time.sleep(0.05)")
    with warm_server(project) as server:
        if left:
            server.wait_for_log(STAY)
            the_base(server)
        saved = project.release(top="time.sleep(0.05)")
        wait_until(lambda: time.monotonic() > saved + left, "its moment")


@pytest.mark.parametrize("moment", ["waiting", "loading"])
def test_the_arbiter_is_killed(moment: str, project: Project, shelf: Shelf) -> None:
    """No base and no copy of one is left."""
    project.release()
    with warm_server(project) as server:
        server.wait_for_log(STAY)
        base = the_base(server)
        if moment == "loading":
            project.release(top="time.sleep(60)")
            wait_until(lambda: base in zygotes(server) and len(bases(server)) == 1, "it loads, and a copy waits")
        processes.kill(server.pid)
        assert server.exit_status() == -signal.SIGKILL
        wait_until(
            lambda: not any(processes.is_base(pid) or processes.is_zygote(pid) for pid in server.processes()),
            "neither base nor zygote is left",
        )
        server.kill()
        server.forget()


def test_configuration_and_number_of_workers(project: Project, shelf: Shelf) -> None:
    """A HUP has everything imported anew, with the new configuration; a worker that dies comes back at once."""
    project.save("conf.py", "import wsgi_reload_hooks.gunicorn_conf\npreload_app = True\nraw_env = ['MODE=one']\n")
    project.release(bottom="VERSION += os.environ['MODE']\n")
    with Gunicorn(
        project,
        "--pythonpath",
        "lib/site-packages",
        configuration=project.root / "conf.py",
        workers=2,
        environment={"WSGI_RELOAD_WARM": "kept"},
    ) as server:
        server.wait_for_log(STAY)
        wait_until(lambda: server.version() == project.version + "one", "the mode of the start")
        project.save("conf.py", (project.root / "conf.py").read_text().replace("one", "two"))
        wait_until(lambda: server.version() == project.version + "two", "the new mode")
        server.wait_for_log(STAY, 2)
        base = the_base(server)
        project.release(bottom="VERSION += os.environ['MODE']\n")
        wait_until(lambda: server.version() == project.version + "two", "the new code in the new mode")
        wait_until(lambda: zygotes(server) == [base], "a warm zygote")
        server.wait_for_workers(2)
        server.end_worker(server.workers()[0], signal.SIGKILL)
        server.send(signal.SIGTTIN)
        server.wait_for_workers(3)
        assert zygotes(server) == [base]
        assert server.count(ANEW) == 0


def test_of_no_use_where_nothing_is_shared(project: Project, shelf: Shelf) -> None:
    """That is told, and saves are served."""
    project.release()
    with warm_server(project, share="never") as server:
        server.wait_for_log("warm is of no use without preload_app, or share = always")
        save(server, project, warm=False)
        assert bases(server) == []


# -- under load -------------------------------------------------------------------------------------------------------


def edits(chance: random.Random, count: int) -> Iterator[str]:
    for _ in range(count):
        yield chance.choices(("good", "broken", "hup", "kill", "upgrade"), (12, 3, 1, 2, 1))[0]


def test_warm_saves_under_load(project: Project, shelf: Shelf) -> None:
    """Saves at random times, broken ones, HUPs, upgrades and killed bases among them: no request fails, nothing grows."""
    chance = random.Random("warm")
    project.release()
    with warm_server(project, workers=3) as server:
        server.wait_for_log(STAY)
        with server.load(clients=8) as load:
            for _ in range(3):
                project.release()
                load.wait_for_only(project.version)
            the_base(server)
            server.wait_for_workers(3)
            files, memory = processes.open_files(server.pid), processes.resident_kb(server.pid)
            for what in edits(chance, 100):
                if what == "good":
                    project.release()
                elif what == "broken":
                    project.broken(top=chance.choice(("undefined_name", "def", "os._exit(3)", "raise SystemExit(4)")))
                elif what == "hup":
                    server.hup()
                elif what == "upgrade":
                    shelf.put("kept", f"# {chance.random()}")
                else:
                    # One that is killed while it imports is taken for one that the import has ended.
                    for pid in [pid for pid in bases(server) if server.count(STAY) > server.count(GONE)]:
                        processes.kill(pid)
                time.sleep(chance.uniform(0.02, 0.25))
            project.release()
            load.wait_for_only(project.version)
            server.hup()
            server.wait_for_workers(3)
            the_base(server)
            project.release()
            load.wait_for_only(project.version)
        assert load.failed == []
        assert "broken" not in load.versions(0.0)
        server.wait_for_workers(3)
        the_base(server)
        wait_until(lambda: len(zygotes(server)) == 1, "one zygote")
        wait_until(lambda: processes.open_files(server.pid) <= files, f"no more than {files} open files")
        assert processes.resident_kb(server.pid) <= memory + 6_000
        assert server.count(OFF) == server.count(ANEW) == 0
        assert server.count("Traceback.*\n.*wsgi_reload_hooks") == 0
        # Three workers, the zygote, the base, what listens for events, and the arbiter.
        wait_until(lambda: len(server.processes()) <= 7, lambda: f"{processes.told(server.processes())}")
        assert os.listdir(server.temporary) == []
