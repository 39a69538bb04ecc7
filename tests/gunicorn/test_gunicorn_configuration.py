"""The user's own configuration: guarded, watched, and every hook of it still called."""

from __future__ import annotations

import collections
import os
import signal
from pathlib import Path

import pytest
from harness import CONFIGURATION, Gunicorn, Project, holds, patterns, wait_until

LINE = "import wsgi_reload_hooks.gunicorn_conf\n"
STAR = "from wsgi_reload_hooks.gunicorn_conf import *\n"
GOOD = "workers = {workers}\nkeepalive = 2\n"

# Beside `-c ours` the file is found by its name; with the line it is given by `-c`.
WAYS = {"beside": "{text}", "line first": LINE + "{text}", "line last": "{text}" + STAR}
MARKS = {"beside": [pytest.mark.adapters, pytest.mark.versions], "line first": [], "line last": [pytest.mark.matrix]}
REPEATED = [pytest.param(way, marks=marks) for way, marks in MARKS.items()]


def given(way: str, project: Project) -> Path:
    """What `-c` gets."""
    return CONFIGURATION if way == "beside" else project.root / "gunicorn.conf.py"


def configure(project: Project, way: str, text: str) -> None:
    project.save("gunicorn.conf.py", WAYS[way].format(text=text))


BROKEN = {
    "syntax error": ("def", "SyntaxError"),
    "name error": ("undefined_name", "undefined_name"),
    "missing import": ("import no_such_module", "no_such_module"),
    "exit": ("import sys\nsys.exit(1)", "SystemExit"),
    "wrong value": ("workers = 'many'", "many"),
    "wrong user": ("user = 'no-such-user'", "no-such-user"),
}


@pytest.mark.parametrize("way", REPEATED)
def test_a_broken_configuration_is_refused(way: str, project: Project) -> None:
    """A broken gunicorn.conf.py and a HUP: the old one stays, no request fails. A good one is applied."""
    configure(project, way, GOOD.format(workers=2))
    pid_file = project.root / "server.pid"
    with Gunicorn(project, "--pid", str(pid_file), workers=0, configuration=given(way, project)) as server:
        server.wait_for_workers(2)
        with server.load() as load:
            for name, (text, why) in BROKEN.items():
                configure(project, way, GOOD.format(workers=5) + text + "\n")
                server.hup()
                # Told for the save, and for each HUP: how often, and when the last of them is, nobody knows.
                server.wait_for_log(patterns.configuration_refused(rf"gunicorn\.conf\.py.*{why}"))
                server.hup()
                load.run(50)
                assert not server.exited(), name
                wait_until(lambda: len(server.workers()) == 2, f"{name}: the old number of workers")
                assert pid_file.read_text().strip() == str(server.pid)
            configure(project, way, GOOD.format(workers=3))
            server.hup()
            server.wait_for_workers(3)
            load.run(50)
            project.release()
            load.wait_for_only(project.version)
        assert load.failed == []
        server.wait_for_workers(3)
    assert not pid_file.exists()


@pytest.mark.parametrize("way", REPEATED)
def test_the_configuration_is_watched(way: str, project: Project) -> None:
    """Saving gunicorn.conf.py is enough: no HUP is needed, and a broken one is reported once."""
    configure(project, way, GOOD.format(workers=2))
    with Gunicorn(project, workers=0, configuration=given(way, project)) as server:
        server.wait_for_workers(2)
        configure(project, way, "undefined_name\n")
        server.wait_for_log(patterns.CONFIGURATION_REFUSED)
        holds(lambda: server.count(patterns.CONFIGURATION_REFUSED) == 1, "one report")
        configure(project, way, GOOD.format(workers=4))
        server.wait_for_workers(4)
        assert server.version() == project.version


def test_the_configuration_saved_twice_in_a_second(project: Project) -> None:
    """A configuration of the same size in the same second is read, not its byte code of before."""
    configure(project, "beside", "workers = 2\n")
    path = project.root / "gunicorn.conf.py"
    with Gunicorn(project, workers=0) as server:
        server.wait_for_workers(2)
        for workers in (3, 1, 4):
            second = int(path.stat().st_mtime)
            sibling = path.with_name("gunicorn.conf.py.new")
            sibling.write_text(f"workers = {workers}\n")
            os.utime(sibling, ns=(0, second * 1_000_000_000 + workers))
            os.replace(sibling, path)
            server.wait_for_workers(workers)


def test_workers_that_die_beside_a_broken_configuration_are_replaced(project: Project) -> None:
    """The code on disk is good, only the configuration is refused: there are as many workers as before."""
    configure(project, "beside", GOOD.format(workers=2))
    with Gunicorn(project, workers=0) as server:
        configure(project, "beside", "undefined_name\n")
        server.wait_for_log(patterns.CONFIGURATION_REFUSED)
        server.end_worker(server.workers()[0], signal.SIGKILL)
        server.send(signal.SIGTTIN)
        server.wait_for_workers(3)
        assert server.version() == project.version


def test_a_save_beside_a_broken_configuration_is_served(project: Project) -> None:
    """Good code saved while the configuration is refused: it is served, with the configuration of before."""
    configure(project, "beside", GOOD.format(workers=2))
    with Gunicorn(project, workers=0) as server:
        configure(project, "beside", "undefined_name\n")
        server.wait_for_log(patterns.CONFIGURATION_REFUSED)
        with server.load() as load:
            project.release()
            load.wait_for_only(project.version)
            server.wait_for_workers(2)
            configure(project, "beside", GOOD.format(workers=3))
            server.wait_for_workers(3)
        assert load.failed == []
        server.wait_for_log(patterns.RELOADED, 2)
        assert server.count(patterns.CONFIGURATION_REFUSED) == 1
        assert server.count(patterns.RELOADED) == 2


def test_a_new_configuration_waits_for_good_code(project: Project) -> None:
    """A HUP with a good configuration and broken code: the old workers serve on; both come with the repair."""
    configure(project, "beside", GOOD.format(workers=2))
    with Gunicorn(project, workers=0) as server:
        good = project.version
        project.broken(top="undefined_name")
        server.wait_for_log(patterns.REFUSED)
        configure(project, "beside", GOOD.format(workers=3))
        server.hup()
        holds(lambda: server.version() == good, "the old version")
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(3)


def test_environment_of_the_configuration(project: Project) -> None:
    """`raw_env` of a refused configuration does not leak; that of an accepted one reaches the code."""
    ask = "VERSION = os.environ.get('GREETING', 'none')"
    configure(project, "beside", "raw_env = ['GREETING=one']\n")
    project.release(bottom=ask)
    with Gunicorn(project, workers=2) as server:
        assert server.version() == "one"
        configure(project, "beside", "raw_env = ['GREETING=two']\nundefined_name\n")
        server.wait_for_log(patterns.CONFIGURATION_REFUSED)
        holds(lambda: server.version() == "one", "the environment of before", seconds=0.5)
        configure(project, "beside", "raw_env = ['GREETING=three']\n")
        server.wait_for_version("three")


HOOKS = """
import os

workers = 2


def _note(name):
    with open({notes!r}, "a") as notes:
        notes.write({mark!r} + name + "\\n")


def on_starting(server):
    _note("on_starting")


def on_reload(server):
    _note("on_reload")


def when_ready(server):
    _note("when_ready")


def pre_fork(server, worker):
    _note("pre_fork")


def post_fork(server, worker):
    _note("post_fork")


def post_worker_init(worker):
    _note("post_worker_init")


def worker_int(worker):
    _note("worker_int")


def worker_abort(worker):
    _note("worker_abort")


def pre_exec(server):
    _note("pre_exec")


def pre_request(worker, req):
    _note("pre_request")


def post_request(worker, req, environ, resp):
    _note("post_request")


def child_exit(server, worker):
    _note("child_exit")


def worker_exit(server, worker):
    _note("worker_exit")


def nworkers_changed(server, new_value, old_value):
    _note("nworkers_changed")


def on_exit(server):
    _note("on_exit")
"""
PER_WORKER = ("pre_fork", "post_fork", "post_worker_init")


class Notes:
    """What the hooks wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("")

    def hooks(self, mark: str) -> str:
        return HOOKS.format(notes=str(self.path), mark=mark)

    def count(self, mark: str) -> collections.Counter[str]:
        lines = self.path.read_text().splitlines()
        return collections.Counter(line[len(mark) :] for line in lines if line.startswith(mark))

    def wait(self, mark: str, **wanted: int) -> None:
        wait_until(
            lambda: all(self.count(mark)[name] == number for name, number in wanted.items()),
            lambda: f"{mark}{wanted}; it is {dict(self.count(mark))}",
        )


@pytest.mark.parametrize("way", REPEATED)
def test_every_hook_of_the_user_fires(way: str, project: Project, tmp_path: Path) -> None:
    """All hooks of the user's own file are called: at the start, at a save, and with their new text after a HUP."""
    notes = Notes(tmp_path / "notes")
    configure(project, way, notes.hooks("old "))
    with Gunicorn(project, workers=0, configuration=given(way, project)) as server:
        server.wait_for_log(patterns.BOOTING, 2)
        assert server.count(patterns.BOOTING) == 2
        notes.wait("old ", on_starting=1, when_ready=1, pre_fork=2, post_fork=2, post_worker_init=2, on_reload=0)
        assert notes.count("old ")["pre_request"] >= 1
        notes.wait("old ", post_request=notes.count("old ")["pre_request"])

        project.release()
        server.wait_for_version(project.version)
        notes.wait("old ", on_reload=1, pre_fork=4, post_fork=4, post_worker_init=4, child_exit=2, worker_exit=2)

        server.end_worker(server.workers()[0], signal.SIGQUIT)
        notes.wait("old ", worker_int=1, child_exit=3, worker_exit=3)
        server.end_worker(server.workers()[0], signal.SIGABRT)
        notes.wait("old ", worker_abort=1, child_exit=4, worker_exit=4)
        changed = notes.count("old ")["nworkers_changed"]
        server.send(signal.SIGTTIN)
        server.wait_for_workers(3)
        notes.wait("old ", nworkers_changed=changed + 1)

        configure(project, way, notes.hooks("new "))
        server.wait_for_log(patterns.RELOADED, 2)
        server.wait_for_workers(2)
        notes.wait("new ", on_reload=1, pre_fork=2, post_fork=2, post_worker_init=2, when_ready=0, on_starting=0)
        old = notes.count("old ")

        server.hup()
        server.wait_for_log(patterns.RELOADED, 3)
        server.wait_for_workers(2)
        notes.wait("new ", on_reload=2, pre_fork=4, post_fork=4, post_worker_init=4)
        server.get()
        assert notes.count("new ")["pre_request"] >= 1
        assert {name: notes.count("old ")[name] for name in PER_WORKER} == {name: old[name] for name in PER_WORKER}
    notes.wait("new ", on_exit=1)
    assert notes.count("old ")["on_exit"] == 0


@pytest.mark.parametrize("hook", ["on_reload(server)", "pre_fork(server, worker)"])
def test_hook_that_raises_refuses_the_save_and_the_next_one_heals(hook: str, project: Project) -> None:
    """The refusal names the hook and its file, the old workers serve; once the hook is good, a save goes in."""
    flag = project.root / "broken-hook"
    text = (
        f"import os\n\n\ndef {hook}:\n    if os.path.exists({str(flag)!r}):\n        raise RuntimeError('no queue')\n"
    )
    configure(project, "beside", text)
    name = hook.partition("(")[0]
    with Gunicorn(project, workers=2) as server:
        good, before = project.version, server.workers()
        flag.touch()
        project.release()
        server.wait_for_log(
            patterns.refused(rf"gunicorn\.conf\.py, line 6: the hook {name} raised: RuntimeError: no queue")
        )
        assert server.version() == good and server.workers() == before
        flag.unlink()
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_workers(2)


def test_hooks_given_as_dotted_names(project: Project) -> None:
    """A hook may be a dotted string, as gunicorn allows."""
    project.save("my_hooks.py", "def on_reload(server):\n    server.log.info('my hook was called')\n")
    configure(project, "beside", "on_reload = 'my_hooks.on_reload'\n")
    with Gunicorn(project, workers=2) as server:
        project.release()
        server.wait_for_version(project.version)
        server.wait_for_log("my hook was called")


def test_settings_of_the_file_beside_are_used(project: Project) -> None:
    """With `-c` of ours, ./gunicorn.conf.py counts as it would without `-c`; the command line still wins."""
    configure(project, "beside", "workers = 3\nproc_name = 'beside'\n")
    with Gunicorn(project, workers=0) as server:
        server.wait_for_workers(3)
    with Gunicorn(project, workers=2) as server:
        server.wait_for_workers(2)


def test_a_broken_configuration_at_the_start_is_gunicorns_error(project: Project) -> None:
    """At the very start there is no old configuration to keep: exit status 1, and the reason is shown."""
    configure(project, "beside", "undefined_name\n")
    server = Gunicorn(project, wait=False)
    assert server.run_to_its_end() == 1
    assert "undefined_name" in server.output
