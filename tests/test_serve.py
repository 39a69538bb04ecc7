"""`wsgi-reload serve`: what its users and their visitors meet."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from harness import EACH_KIND, Project, Serve, holds, patterns, processes, wait_until
from harness.serve import closed, open_files, talk
from harness.steering import commanded, right_answers, status
from harness.waiting import LIMIT

from wsgi_reload_hooks.sockets import bind

ASK = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
# Paths that take as long as the test wants: until there is a file `go`. `begun` tells that they are on their way.
SLOW = """
import signal
import subprocess

quick = app


def wait():
    open("begun", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)


def stream():
    yield b"begun "
    wait()
    yield VERSION.encode()


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream()
    if path == "/slow":
        wait()
    if path == "/shell":
        open("begun", "w").close()
        subprocess.run(["sh", "-c", "until [ -e go ]; do sleep 0.01; done"], check=True)
    if path == "/upload":
        read = environ["wsgi.input"].read
        left = int(environ["CONTENT_LENGTH"])
        while left:
            left -= len(read(min(left, 65536)))
    if path == "/crash":
        os.kill(os.getpid(), signal.SIGKILL)
    return quick(environ, start_response)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An application that loads at once, version v1 released."""
    project = Project(tmp_path / "project", import_seconds=0.0, handler_seconds=0.0)
    project.release(bottom=SLOW)
    return project


def begin(server: Serve, path: str) -> socket.socket:
    """A request that is on its way."""
    begun = server.project.root / "begun"
    begun.unlink(missing_ok=True)
    connection = server.connect()
    connection.sendall(ASK.replace(b" / ", f" {path} ".encode()))
    wait_until(begun.exists, f"{path} has begun")
    return connection


def go(server: Serve) -> None:
    """All that waits may end."""
    (server.project.root / "go").write_text("")


# -- saves ---------------------------------------------------------------------------------------------------------------


@EACH_KIND
def test_a_save_goes_into_service(kind: str, project: Project) -> None:
    """The log says where it serves and what was reloaded; another process serves, and only one."""
    with Serve(project, kind=kind) as server:
        assert server.version() == "v1"
        line = server.wait_for_log(patterns.SERVING)
        assert (line["app"], int(line["port"])) == ("app:app", server.port)
        assert kind in server.log
        first = server.program()
        project.release()
        server.wait_for_version("v2")
        assert server.wait_for_log(patterns.SERVE_RELOADED)["what"] == "app.py"
        assert server.program() != first
        assert server.count(patterns.SERVE_RELOADED) == 1
        assert "Traceback" not in server.log


@EACH_KIND
def test_what_is_on_its_way_is_finished_by_the_code_that_began_it(kind: str, project: Project) -> None:
    """A slow request, a streamed answer, a large upload and one that waits for a program: a save cuts none of them."""
    size = 3_000_000
    with Serve(project, kind=kind, environment={"WSGI_RELOAD_KILL_AFTER": "60"}) as server:
        slow, stream, shell = begin(server, "/slow"), begin(server, "/stream"), begin(server, "/shell")
        with slow, stream, shell, server.connect() as upload:
            head = f"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
            upload.sendall(head.encode() + b"x" * (size // 2))
            # Taken after it: the upload is no longer in the queue.
            assert server.version() == "v1"
            project.release()
            server.wait_for_version("v2")
            upload.sendall(b"x" * (size - size // 2))
            assert "\r\n\r\nv1 " in talk(upload, b"")
            go(server)
            assert "\r\n\r\nv1 " in talk(slow, b"")
            assert "\r\n\r\nv1 " in talk(shell, b"")
            assert "begun " in (answer := talk(stream, b"")) and "v1" in answer
        server.program()
        assert server.version() == "v2"


@EACH_KIND
def test_what_takes_too_long_is_cut(kind: str, project: Project) -> None:
    """A request that goes on for longer than `kill_after` ends with the old code."""
    with Serve(project, kind=kind, environment={"WSGI_RELOAD_KILL_AFTER": "0.3"}) as server:
        with begin(server, "/slow") as slow:
            project.release()
            server.wait_for_version("v2")
            assert closed(slow)
        server.program()


@EACH_KIND
def test_idle_connections_do_not_hold_the_old_code(kind: str, project: Project) -> None:
    """A connection that a browser opened in advance is closed soon after a save."""
    environment = {"WSGI_RELOAD_KILL_AFTER": "60"}
    with Serve(project, kind=kind, environment=environment) as server, server.connect() as idle:
        assert server.version() == "v1"
        project.release()
        server.wait_for_version("v2")
        server.program()
        assert closed(idle)


def test_of_two_saves_the_last_wins(project: Project) -> None:
    """A save while new code boots starts over: what hangs is given up, the old code answers until the last is there."""
    with Serve(project) as server:
        project.release(top='open("loading", "w").close()\ntime.sleep(60)')
        wait_until((project.root / "loading").exists, "v2 is loading")
        assert server.version() == "v1"
        project.release()
        server.wait_for_version("v3")
        server.program()
        server.wait_for_log(patterns.SERVE_RELOADED)
        assert server.count(patterns.SERVE_RELOADED) == 1


def test_a_file_saved_while_it_is_loaded(project: Project) -> None:
    """A module saved between its import and the switch is loaded anew: old code never comes into service."""
    project.save("helper.py", 'VERSION = "h1"\n')
    with Serve(project) as server:
        project.release(
            top="import helper\nif helper.VERSION == 'h1':\n    open('loading', 'w').close()\n"
            "    while not os.path.exists('go'):\n        time.sleep(0.01)"
        )
        wait_until((project.root / "loading").exists, "v2 is loading")
        project.save("helper.py", 'VERSION = "h2"\n')
        go(server)
        server.wait_for_version("v2")
        assert server.version("/helper") == "h2"
        server.wait_for_log(patterns.SERVE_RELOADED)
        assert server.count(patterns.SERVE_RELOADED) == 1


def test_a_module_that_a_request_imports(project: Project) -> None:
    """What is loaded later than the application is watched, too."""
    project.save("lazy_part.py", 'VERSION = "l1"\n')
    with Serve(project) as server:
        assert server.version("/lazy") == "l1"
        project.save("lazy_part.py", 'VERSION = "l2"\n')
        server.wait_for_version("l2", "/lazy")


BREAKAGES = {
    "syntax": ("def\n", "app.py, line .*SyntaxError"),
    "raises": ("undefined\n", "app.py, line .*NameError: name 'undefined'"),
    "leaves": ("import sys; sys.exit(0)\n", "app.py, line .*SystemExit: 0"),
    "leaves at once": ("os._exit(0)\n", r"app.py: it ended with exit code 0 before it was ready"),
    "crashes": ("os.kill(os.getpid(), 11)\n", r"app.py: it ended with SIGSEGV before it was ready"),
    "nothing": ("del app\n", "app.py: app.py has no callable 'app'"),
    "no callable": ("app = 7\n", "app.py: app:app is no callable: its type is int"),
    "asgi": ("async def app(scope, receive, send):\n    pass\n", "app:app is an ASGI application"),
    "factory": ("def app():\n    pass\n", "app:app cannot be called with environ and start_response"),
}


def test_broken_saves_never_reach_a_visitor(project: Project) -> None:
    """Whatever is wrong with it: told once, with the place and the reason; the old code serves; the repair goes in by
    itself.
    """
    with Serve(project) as server:
        for number, (what, (bottom, why)) in enumerate(BREAKAGES.items(), 1):
            good = project.version
            first = server.program()
            project.broken(bottom=bottom)
            server.wait_for_log(patterns.REFUSED, number)
            assert server.count(patterns.refused("")) == server.count(patterns.REFUSED) == number, what
            assert patterns.find(why, server.wait_for_log(patterns.REFUSED, number)["why"]), (what, server.log)
            assert server.version() == good
            assert server.program() == first
            project.release()
            server.wait_for_version(project.version)
            server.wait_for_log(patterns.SERVE_RELOADED, number)
        assert server.count(patterns.REFUSED) == len(BREAKAGES)
        assert server.count(patterns.SERVE_RELOADED) == len(BREAKAGES)


def test_an_import_that_hangs(project: Project) -> None:
    """After `boot_timeout` it is refused, with the line where it hangs."""
    with Serve(project, environment={"WSGI_RELOAD_BOOT_TIMEOUT": "4"}) as server:
        project.broken(top="time.sleep(60)")
        line = (project.root / "app.py").read_text().splitlines().index("time.sleep(60)") + 1
        assert server.wait_for_log(patterns.REFUSED)["why"] == f"app.py, line {line}: it did not load within 4 s"
        assert server.version() == "v1"


def test_taking_a_broken_save_back_is_a_repair(project: Project) -> None:
    """With the content of before, the process of before serves on, and nothing is loaded."""
    with Serve(project) as server:
        first = server.program()
        good = (project.root / "app.py").read_text()
        project.broken(top="undefined")
        server.wait_for_log(patterns.REFUSED)
        project.save("app.py", good)
        server.wait_for_log("as it is in service again")
        assert server.program() == first


# -- the start -----------------------------------------------------------------------------------------------------------


@EACH_KIND
def test_broken_at_the_start(kind: str, project: Project) -> None:
    """It waits for the repair, told once; visitors wait as well, and are answered then."""
    project.broken(top="undefined")
    with Serve(project, kind=kind, wait=False) as server:
        assert "NameError" in server.wait_for_log(patterns.WAITING_FOR_REPAIR)["why"]
        with server.connect() as early:
            early.sendall(ASK)
            project.release()
            assert "\r\n\r\nv2 " in talk(early, b"")
        assert server.count(patterns.WAITING_FOR_REPAIR) == 1


def test_broken_at_the_start_for_good(project: Project) -> None:
    """With `broken_start = exit` it says why, promises nothing, and exits 1."""
    project.broken(top="undefined")
    server = Serve(project, environment={"WSGI_RELOAD_BROKEN_START": "exit"})
    assert server.run_to_its_end() == 1
    assert "the application does not load: app.py, line" in server.output
    assert "waiting" not in server.output


def test_a_module_that_is_not_there_yet(project: Project) -> None:
    """A module that nobody has written yet is waited for, in a package, too."""
    with Serve(project, application="shop.wsgi", wait=False) as server:
        assert "No module named 'shop'" in server.wait_for_log(patterns.WAITING_FOR_REPAIR)["why"]
        project.save("shop/wsgi.py", project.source("there").replace("def app(", "def application("))
        server.wait_until_ready_with("there")
        project.save("shop/wsgi.py", project.source("changed"))
        # The other of the two names.
        server.wait_for_version("changed")


def test_what_a_program_does_when_it_is_started_as_one_is_left_alone(project: Project) -> None:
    """Under `if __name__ == "__main__"` a project may start a server with a reloader of its own: here it does not."""
    project.release(bottom='if __name__ == "__main__":\n    raise SystemExit("a server with a reloader of its own")')
    with Serve(project) as server:
        assert server.version() == "v2"
        assert "of its own" not in server.log


BUSY_IMPORT = """
import atexit, signal, sys, threading
print("said at import")
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGINT, signal.SIG_IGN)

@atexit.register
def fails():
    raise SystemExit("this does not matter")

@atexit.register
def leaves():
    open("left-" + VERSION, "w").close()
"""


@EACH_KIND
def test_an_application_with_habits_of_its_own(kind: str, project: Project) -> None:
    """It prints, keeps a thread, handles signals and registers for its end: what it prints is seen, it is told to leave
    all the same, and what it has registered runs.
    """
    project.release(bottom=BUSY_IMPORT)
    with Serve(project, kind=kind, environment={"WSGI_RELOAD_KILL_AFTER": "60"}) as server:
        assert "said at import" in server.log
        project.release(bottom=BUSY_IMPORT)
        server.wait_for_version("v3")
        server.program()
        assert (project.root / "left-v2").exists()
        server.stop()
        assert (project.root / "left-v3").exists()


@EACH_KIND
@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
def test_an_application_that_gevent_patches(kind: str, project: Project) -> None:
    """It may patch everything when it is imported: it is served, reloaded, and finishes what was begun."""
    top = "from gevent import monkey\nmonkey.patch_all()"
    project.release(top=top, bottom=SLOW)
    with Serve(project, kind=kind) as server, begin(server, "/slow") as slow:
        project.release(top=top)
        server.wait_for_version("v3")
        go(server)
        assert "\r\n\r\nv2 " in talk(slow, b"")


# -- the end -------------------------------------------------------------------------------------------------------------


@EACH_KIND
def test_told_to_end_it_finishes_what_was_begun(kind: str, project: Project) -> None:
    """SIGTERM: nobody is taken any more, who was taken is answered, and it ends by that signal."""
    with Serve(project, kind=kind) as server:
        with begin(server, "/slow") as slow, begin(server, "/shell") as shell:
            server.send(signal.SIGTERM)
            holds(lambda: not server.exited(), "it waits for the requests", 0.2)
            go(server)
            assert "\r\n\r\nv1 " in talk(slow, b"")
            assert "\r\n\r\nv1 " in talk(shell, b"")
        assert server.exit_status() == -signal.SIGTERM
        server.assert_nothing_left()
        server.forget()


@pytest.mark.parametrize("signal_sent", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_waits_for_nobody_for_ever(signal_sent: signal.Signals, project: Project) -> None:
    """After `kill_after` a request is cut; the exit status is that of the order all the same."""
    with Serve(project, environment={"WSGI_RELOAD_KILL_AFTER": "0.3"}) as server, begin(server, "/slow"):
        server.send(signal_sent)
        assert server.exit_status() == -signal_sent
        server.assert_nothing_left()
        server.forget()


@EACH_KIND
def test_interrupted(kind: str, project: Project) -> None:
    """Ctrl-C ends it without a traceback, and shells see 130; asked twice, it ends at once."""
    with Serve(project, kind=kind, environment={"WSGI_RELOAD_KILL_AFTER": "60"}) as server:
        with begin(server, "/slow"):
            server.send(signal.SIGINT)
            wait_until(lambda: not processes.is_pending(server.pid, signal.SIGINT), "it has taken it")
            holds(lambda: not server.exited(), "it waits for the request", 0.2)
            server.send(signal.SIGINT)
            assert server.exit_status() == -signal.SIGINT
        assert "Traceback" not in server.log
        server.assert_nothing_left()
        server.forget()


@EACH_KIND
def test_interrupted_at_a_terminal(kind: str, project: Project) -> None:
    """There Ctrl-C reaches the program alone: the second one ends all at once, too."""
    with Serve(project, kind=kind, environment={"WSGI_RELOAD_KILL_AFTER": "60"}) as server:
        program = server.program()
        with begin(server, "/slow"):
            os.killpg(program, signal.SIGINT)
            wait_until(lambda: not processes.is_pending(program, signal.SIGINT), "it has taken it")
            holds(lambda: not server.exited(), "it waits for the request", 0.2)
            os.killpg(program, signal.SIGINT)
            assert server.exit_status() == -signal.SIGINT
        assert "Traceback" not in server.log
        server.assert_nothing_left()
        server.forget()


def test_interrupted_at_a_terminal_it_waits_for_nobody_for_ever(project: Project) -> None:
    """The program itself keeps to `kill_after`."""
    with Serve(project, environment={"WSGI_RELOAD_KILL_AFTER": "0.3"}) as server:
        program = server.program()
        with begin(server, "/slow"):
            os.killpg(program, signal.SIGINT)
            assert server.exit_status() == -signal.SIGINT
        server.assert_nothing_left()
        server.forget()


@pytest.mark.parametrize("signal_sent", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_before_it_serves(signal_sent: signal.Signals, project: Project) -> None:
    """While the application loads, it ends by that signal, too, and at once."""
    project.release(top='open("loading", "w").close()\ntime.sleep(60)')
    with Serve(project, wait=False) as server:
        wait_until((project.root / "loading").exists, "it is loading")
        server.send(signal_sent)
        assert server.exit_status() == -signal_sent
        assert "Traceback" not in server.log
        server.assert_nothing_left()
        server.forget()


def test_told_to_end_while_it_waits_for_a_repair(project: Project) -> None:
    """There is nothing to wait for."""
    project.broken(top="undefined")
    with Serve(project, wait=False) as server:
        server.wait_for_log(patterns.WAITING_FOR_REPAIR)


def test_told_to_end_in_the_middle_of_a_reload(project: Project) -> None:
    """The new code goes with the old."""
    with Serve(project):
        project.release(top='open("loading", "w").close()\ntime.sleep(60)')
        wait_until((project.root / "loading").exists, "v2 is loading")


def test_killed_it_leaves_nothing(project: Project) -> None:
    """SIGKILL leaves it no time for anything: the program goes with it all the same, and the port is free."""
    with Serve(project) as server:
        port = server.port
        known = server.processes()
        server.send(signal.SIGKILL)
        server.exit_status()
        wait_until(lambda: not any(map(processes.alive, known)), "all are gone")
        server.assert_nothing_left(known)
        server.forget()
        bind(f"127.0.0.1:{port}").close()


# -- a program that dies -------------------------------------------------------------------------------------------------


def test_a_program_that_dies_is_started_again(project: Project) -> None:
    """Killed from outside: the next visitor is answered without anybody saving anything. Again and again: after a pause,
    or as soon as a file is saved.
    """
    with Serve(project) as server:
        first = server.program()
        os.kill(first, signal.SIGKILL)
        line = server.wait_for_log(patterns.ENDED)
        assert (line["how"], line["then"]) == ("SIGKILL", "starting it again")
        assert server.version() == "v1"
        assert server.program() != first
        assert server.wait_for_log(patterns.SERVE_RELOADED)["what"] == "SIGKILL"
        for _ in range(2):
            # A visitor is not answered; the next one is, at most a second later.
            with server.connect() as visitor:
                visitor.sendall(ASK.replace(b" / ", b" /crash "))
                assert closed(visitor)
            assert server.version() == "v1"
        assert server.wait_for_log(patterns.ENDED, 3)["then"] == "starting it again in 2 s, or when a file is saved"
        project.release()
        server.wait_for_version("v2")


def test_a_program_that_dies_while_the_code_is_broken(project: Project) -> None:
    """What served is lost, and what is on disk cannot serve: told once more; the repair serves those who waited."""
    with Serve(project) as server:
        first = server.program()
        project.broken(top="undefined")
        server.wait_for_log(patterns.REFUSED)
        os.kill(first, signal.SIGKILL)
        server.wait_for_log(patterns.WAITING_FOR_REPAIR)
        with server.connect() as early:
            early.sendall(ASK)
            project.release()
            assert "\r\n\r\nv2 " in talk(early, b"")
        assert server.count(patterns.WAITING_FOR_REPAIR) == server.count(patterns.REFUSED) == 1


def test_a_program_that_asks_to_be_started_again(project: Project) -> None:
    """Exit code 3, from wherever it comes."""
    project.release(bottom=SLOW.replace("os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)"))
    with Serve(project) as server:
        first = server.program()
        with server.connect() as visitor:
            visitor.sendall(ASK.replace(b" / ", b" /crash "))
            assert closed(visitor)
        assert server.version() == "v2"
        assert server.wait_for_log(patterns.SERVE_RELOADED)["what"] == "exit code 3"
        assert server.program() != first


# -- addresses -----------------------------------------------------------------------------------------------------------


@EACH_KIND
def test_a_unix_socket(kind: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale file is replaced, a live one is not taken, visitors are served across a save, and no file is left."""
    path = project.root / "s"
    monkeypatch.chdir(project.root)
    bind("unix:s").close()

    def ask() -> str:
        with closing(socket.socket(socket.AF_UNIX)) as visitor:
            visitor.settimeout(LIMIT)
            visitor.connect("s")
            return talk(visitor, ASK)

    with Serve(project, kind=kind, listen="unix:s", wait=False) as server:
        server.wait_for_log(f"serving app:app at unix:{path}")
        assert "\r\n\r\nv1 " in ask()
        project.release()
        wait_until(lambda: "\r\n\r\nv2 " in ask(), "the new version")
        second = Serve(project, kind=kind, listen="unix:s")
        assert second.run_to_its_end() == 1
        assert second.output == "wsgi-reload: unix:s cannot be listened on: Address already in use\n"
        assert "\r\n\r\nv2 " in ask()
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--listen", "nowhere", "app"], 2, "'nowhere' is no address: use HOST:PORT"),
        (["--listen", "192.0.2.1:1", "app"], 1, "192.0.2.1:1 cannot be listened on: "),
        (["app:"], 2, "'app:' names no application"),
        (["app:create_app()"], 2, "'app:create_app()' names no application"),
        (["app/app.py"], 2, "'app/app.py' names no application"),
        (["--server", "apache", "app"], 2, "argument --server: invalid choice: 'apache'"),
        ([], 2, "the following arguments are required: MODULE[:NAME]"),
    ],
)
def test_wrong_arguments(options: list[str], status: int, said: str, project: Project) -> None:
    """One line that says what is wrong, and an exit code."""
    server = Serve(project)
    server._command[4:] = options
    assert server.run_to_its_end() == status
    assert server.output.startswith(f"wsgi-reload: {said}")
    assert server.output.count("\n") == 1


def test_a_port_in_use(project: Project) -> None:
    """One line, and exit code 1."""
    with bind("127.0.0.1:0") as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        server = Serve(project, listen=address)
        assert server.run_to_its_end() == 1
        assert server.output == f"wsgi-reload: {address} cannot be listened on: Address already in use\n"


def can_have_less_rights() -> bool:
    """Not where the interpreter lives in root's home, or where everybody may have any port."""
    limit = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if os.geteuid() != 0 or (limit.exists() and int(limit.read_text()) < 2):
        return False
    try:
        return subprocess.run([sys.executable, "-c", ""], user="nobody", extra_groups=[], check=False).returncode == 0
    except PermissionError:
        return False


@pytest.mark.skipif(not can_have_less_rights(), reason="needs a root that can give up its rights")
def test_a_port_for_others(project: Project) -> None:
    """Without the rights for it: one line, and exit code 1."""
    for folder in (project.root, *list(project.root.parents)[:3]):
        folder.chmod(0o755)
    server = Serve(project, listen="127.0.0.1:1", run_as="nobody")
    assert server.run_to_its_end() == 1
    assert server.output == "wsgi-reload: 127.0.0.1:1 cannot be listened on: Permission denied\n"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6(project: Project) -> None:
    """An address in brackets."""
    with Serve(project, listen="[::1]:0", wait=False) as server:
        visitor = socket.create_connection(("::1", server.port), LIMIT)
        with visitor:
            assert "\r\n\r\nv1 " in talk(visitor, ASK)


@EACH_KIND
def test_sockets_of_systemd(kind: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that it is activated with are served, all of them, across a save; they and their files are left as they
    were.
    """
    monkeypatch.chdir(project.root)
    with bind("127.0.0.1:0") as one, bind("127.0.0.1:0") as other, bind("unix:s") as third:
        given = (one, other, third)

        def versions() -> list[str]:
            found = []
            for each in given:
                with closing(socket.socket(each.family)) as visitor:
                    visitor.settimeout(LIMIT)
                    visitor.connect(each.getsockname())
                    found.append(talk(visitor, ASK).partition("\r\n\r\n")[2].partition(" ")[0])
            return found

        with Serve(project, kind=kind, given=given) as server:
            line = server.wait_for_log(r"serving app:app at http://\S+:(\d+), http://\S+:(\d+), unix:\S+/s ")
            assert [int(each) for each in line.groups()] == [each.getsockname()[1] for each in given[:2]]
            assert versions() == ["v1"] * 3
            project.release()
            server.wait_for_version("v2")
            server.program()
            assert versions() == ["v2"] * 3
        assert (project.root / "s").is_socket()
        # Whoever activates it again serves those who came meanwhile.
        socket.create_connection(one.getsockname(), 5).close()


def test_what_systemd_hands_over_must_be_of_use(project: Project) -> None:
    """Too many sockets, or one that nobody connects to: one line, and exit code 1."""
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        server = Serve(project, given=[datagrams])
        assert server.run_to_its_end() == 1
        assert server.output == (
            "wsgi-reload: descriptor 3 was handed over (LISTEN_FDS), but it is no stream socket that listens\n"
        )
    with bind("127.0.0.1:0") as one:
        server = Serve(project, given=[one] * 6)
        assert server.run_to_its_end() == 1
        assert server.output == "wsgi-reload: 6 sockets are handed over, 5 can be\n"


@pytest.mark.skipif(importlib.util.find_spec("waitress") is not None, reason="waitress is installed")
def test_waitress_is_not_installed(project: Project) -> None:
    """Asked for by name: one line says how to get it."""
    server = Serve(project, kind="waitress")
    assert server.run_to_its_end() == 2
    assert server.output == ("wsgi-reload: waitress is not installed: pip install waitress, or use --server wsgiref\n")


# -- in the long run -----------------------------------------------------------------------------------------------------


def sleeps(pid: int) -> bool:
    return processes.command_line(pid).startswith(b"sleep\0")


def test_what_the_application_starts_keeps_no_port(project: Project) -> None:
    """A daemon that the application has let go of has no socket of ours."""
    daemon = "import sys\nif os.fork() == 0:\n    os.setsid()\n    os.execvp('sleep', ['sleep', '600'])"
    project.release(top=daemon)
    with Serve(project) as server:
        port = server.port
        # Before that, it is still a copy of the program.
        wait_until(lambda: any(map(sleeps, server.processes())), "the daemon runs")
        known = set(server.processes())
        server.send(signal.SIGTERM)
        assert server.exit_status() == -signal.SIGTERM
        left = [pid for pid in server.processes() if pid in known]
        bind(f"127.0.0.1:{port}").close()
        for pid in left:
            processes.kill(pid)
        wait_until(lambda: not server.processes(), "the daemon is gone")
        server.forget()


def _more(now: list[str], before: list[str]) -> list[str]:
    return list((Counter(now) - Counter(before)).elements())


def test_nothing_grows(project: Project) -> None:
    """After twenty-five more saves it has the descriptors that it had before, and no more memory to speak of."""
    quick = {"WSGI_RELOAD_ENGINE": "stat", "WSGI_RELOAD_INTERVAL": "0.02", "WSGI_RELOAD_STEP": "0.01"}

    def save(times: int) -> None:
        for _ in range(times):
            project.release()
            server.wait_for_version(project.version)
        server.program()

    with Serve(project, environment=quick) as server:
        save(5)
        files, memory = open_files(server.pid), processes.resident_kb(server.pid)
        save(25)
        # A folder that it looks into at that moment is in one of the two.
        wait_until(lambda: not _more(open_files(server.pid), files), lambda: f"{files} became {open_files(server.pid)}")
        assert processes.resident_kb(server.pid) < memory + 2000


def test_serve_steered(project: Project) -> None:
    """Status, waiting, a reload that is asked for, a pause, and a file explained: as of any other server."""
    with Serve(project) as server:
        server.wait_for_log(patterns.WATCHING)
        right_answers(server, 2)
        project.release()
        assert commanded(server, "status", "--wait")[0] == 0
        told = status(server)
        assert (told["server"], told["workers"], told["root"]) == ("serve", 1, str(project.root))
        before = told["pids"]
        assert commanded(server, "reload", "--wait")[0] == 0
        assert server.wait_for_log(patterns.SERVE_RELOADED, 4)["what"] == "wsgi-reload"
        assert status(server)["pids"] != before
        commanded(server, "pause")
        old = project.version
        project.release()
        assert commanded(server, "status", "--wait")[0] == 3 and server.version() == old
        (told,) = json.loads(commanded(server, "explain", "--json", "app.py")[1])
        assert told["pending"] and told["workers"] == status(server)["pids"]
        assert commanded(server, "resume", "--wait")[0] == 0 and server.version() == project.version


def test_serve_a_pause_ends_by_itself(project: Project) -> None:
    """In time, also where nobody else wakes it: what was saved goes in."""
    settings = {"WSGI_RELOAD_ENGINE": "stat", "WSGI_RELOAD_INTERVAL": "60"}
    with Serve(project, environment=settings) as server:
        server.wait_for_log(patterns.WATCHING)
        assert commanded(server, "pause", "--for", "5s")[0] == 0
        project.release()
        # It looks at the files when it is asked.
        assert commanded(server, "status", "--wait")[0] == 3
        server.wait_for_version(project.version)
