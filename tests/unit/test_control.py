"""The socket between the command line and a server: who gets through, what lies in its place, what comes over it."""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from edits import PACKAGE_ROOT
from harness import wait_until

from wsgi_reload_hooks.control import client
from wsgi_reload_hooks.control.channel import ControlSocket, Message, Remote, Unreachable, remotes
from wsgi_reload_hooks.control.runtime_dir import Home, homes, make_home, remove_home
from wsgi_reload_hooks.control.service import ControlService, ReloadState
from wsgi_reload_hooks.core.errors import Failure
from wsgi_reload_hooks.core.settings import Settings
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.watching.signature import Digests

pytestmark = pytest.mark.unit


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for what runs, with a name that is short enough for sockets; an empty project."""
    monkeypatch.chdir(tmp_path_factory.mktemp("project"))
    with tempfile.TemporaryDirectory(prefix="wrh-", dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


class Source:
    """A server with nothing to do, whose scans are done at once."""

    def __init__(self) -> None:
        self.orders = 0
        self.requests: list[str] = []
        self.paused = False
        self.now = ReloadState("idle", set(), due=False, held=False)
        self.served: dict[str, bytes] = {}

    def state(self) -> ReloadState:
        return self.now

    def in_service(self, path: str) -> bytes | None:
        return self.served.get(path)

    def request(self, by: str) -> None:
        self.requests.append(by)

    def pause(self, on: bool) -> None:
        self.paused = on

    def status(self) -> Message:
        return {"workers": 2}

    def order(self) -> int:
        self.orders += 1
        return self.orders

    @property
    def done(self) -> int:
        return self.orders

    def busy(self) -> bool:
        return False

    def loaded_by(self, path: str) -> list[int]:
        return [1, 2]

    def examine(self) -> Message:
        return {"findings": [], "application": "shop:app"}


@contextmanager
def served(root: Path, source: Source | None = None) -> Iterator[tuple[ControlSocket, ControlService]]:
    """A service that answers, in a thread of this process."""
    control = ControlSocket("gunicorn", os.getpid())
    source = source or Source()
    desk = ControlService(control, source, Files(Settings.load(str(root))), source)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            desk.take(control.receive())
            desk.step()
            over.wait(0.005)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield control, desk
    finally:
        over.set()
        thread.join()
        control.close()


def only() -> Remote:
    (remote,) = [each for each in remotes() if each.pid == os.getpid()]
    return remote


def test_question_and_answer(runtime: Path, tmp_path: Path) -> None:
    """A question has its answer; a complaint is one; both ends are private, and nothing is left."""
    with served(tmp_path):
        folder = next((runtime / "wsgi-reload-hooks").iterdir())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "control").stat().st_mode) == 0o600
        assert only().ask({"do": "status"})["status"]["workers"] == 2
        assert only().ask({"do": "look"})["look"] == 1
        assert only().ask({"do": "dance"})["error"] == "not understood: 'dance'"
    assert list(runtime.iterdir()) == []


def test_asked_twice_is_one_question(runtime: Path, tmp_path: Path) -> None:
    """Who gets no answer in time asks again; the server does it once."""
    control = ControlSocket("gunicorn", os.getpid())
    source = Source()
    desk = ControlService(control, source, Files(Settings.load(str(tmp_path))), source)
    with pytest.raises(Unreachable, match=r"gunicorn \d+ does not answer"):
        only().ask({"do": "reload"}, within=3.3)
    messages = control.receive()
    # Four times, or fewer where this process stood still.
    assert 2 <= len(messages) <= 4
    desk.take(messages)
    desk.step()
    assert source.orders == 1 and source.requests == ["wsgi-reload"]
    control.close()


def test_random_messages_do_no_harm(runtime: Path, tmp_path: Path) -> None:
    """1,000 messages of noise, of JSON that means nothing, of things that are no path: it answers on."""
    chance = random.Random(7)
    values: list[Any] = [
        None,
        True,
        -1,
        1e308,
        float("nan"),
        "",
        "\0",
        "\ud800",
        "x" * 5000,
        [],
        {},
        ["pause"],
        {"do": {}},
    ]
    with served(tmp_path) as (_, desk):
        (folder,) = (runtime / "wsgi-reload-hooks").iterdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as noise:
            noise.bind(str(runtime / "noise"))
            for number in range(1000):
                kind = chance.choice(["noise", "deep", "json", "order"])
                message = {name: chance.choice(values) for name in ("do", "path", "seconds", "question")}
                if kind == "order":
                    message["do"] = chance.choice(["status", "look", "pause", "explain", "resume"])
                data = chance.randbytes(chance.randrange(3000)) if kind == "noise" else json.dumps(message).encode()
                if kind == "deep":
                    data = b"[" * 100_000
                wait_until(functools.partial(_sent, noise, data, folder / "control"), f"message {number} is taken")
        assert only().ask({"do": "resume"})["look"] > 0
        assert desk.paused_until is None
        assert only().ask({"do": "status"})["status"]["state"] == "idle"


def _sent(noise: socket.socket, data: bytes, whom: Path) -> bool:
    try:
        noise.sendto(data, socket.MSG_DONTWAIT, str(whom))
    except BlockingIOError:
        return False
    return True


def test_pause(runtime: Path, tmp_path: Path) -> None:
    """What is held is shown, and at rest; a reload is requested all the same; the pause ends by itself, or is ended."""
    source = Source()
    with served(tmp_path, source) as (_, desk):
        only().ask({"do": "pause"})
        assert source.paused
        source.now = ReloadState("idle", {str(Path.cwd() / "app.py")}, due=False, held=True)
        status = only().ask({"do": "status"})["status"]
        assert (status["paused"], status["paused_until"], status["pending"]) == (True, 0.0, ["app.py"])
        assert status["at_rest"] and status["held"] == 1
        assert client.Server(only(), status).verdict(True) == client.NOT_YET
        # Refused before the pause, or in it by a HUP: that is known, it need not be waited for.
        source.now = source.now._replace(phase="refused", held=False)
        status = only().ask({"do": "status"})["status"]
        assert status["pending"] == ["app.py"] and status["held"] == 0
        assert client.Server(only(), status).verdict(True) == client.REFUSED
        only().ask({"do": "reload"})
        assert source.requests == ["wsgi-reload"]
        only().ask({"do": "resume"})
        assert not source.paused
        source.now = source.now._replace(due=True)
        assert not only().ask({"do": "status"})["status"]["at_rest"]
        only().ask({"do": "pause", "seconds": 0.05})
        wait_until(lambda: desk.paused_until is None, "the pause is over")
        assert not source.paused
        for wrong in (0, -1, "soon", 1e12):
            assert "no number of seconds" in only().ask({"do": "pause", "seconds": wrong})["error"]


def test_long_answers(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many long paths: some of them are told, and how many they are; what has no room at all is a complaint."""
    paths = [f"/{number}/" + "\U0001f600" * 1000 + "\udcff" for number in range(60)]
    done = {"at": 1.0, "seconds": 1.0, "paths": paths, "names": ", ".join(paths)}
    monkeypatch.setattr(Source, "status", lambda self: {"last_reload": done}, raising=True)
    source = Source()
    source.now = ReloadState("idle", set(paths), due=False, held=True)
    with served(tmp_path, source) as (_, desk):
        desk.pause(0.0)
        status = only().ask({"do": "status"})["status"]
        assert 0 < len(status["pending"]) < 50 and status["held"] == 60
        assert paths[0] == status["last_reload"]["paths"][0]
        monkeypatch.setattr(Source, "status", lambda self: {"engine": "x" * 200_000}, raising=True)
        assert only().ask({"do": "status"})["error"] == "the answer is too long"
        (seen,) = client.running([os.getpid()])
        assert seen.status["silent"] == "the answer is too long"


def test_explained(runtime: Path, tmp_path: Path) -> None:
    """Rule, workers, content and signature of a file that is loaded, of one that is not, and of none at all."""
    file = tmp_path / "app.py"
    file.write_text("1")
    source = Source()
    source.served[str(file)] = Digests().now(str(file))
    with served(tmp_path, source):
        told = only().ask({"do": "explain", "path": str(file)})["explained"]
        assert told["in_service"] and told["as_loaded"] == told["on_disk"] and told["workers"] == [1, 2]
        assert told["signature"]["size"] == 1 and not told["pending"]
        none = only().ask({"do": "explain", "path": str(tmp_path / "no.py")})["explained"]
        assert (none["in_service"], none["signature"], none["on_disk"]) == (False, None, "missing")


def test_a_link_in_its_place_is_refused(runtime: Path, tmp_path: Path) -> None:
    """Neither a link to a socket nor a plain file is asked; a socket in a folder that others may enter is not, either."""
    with served(tmp_path):
        (folder,) = (runtime / "wsgi-reload-hooks").iterdir()
        remote = only()
        (folder / "control").rename(folder / "elsewhere")
        (folder / "control").symlink_to("elsewhere")
        with pytest.raises(Unreachable, match=r"control is no socket of this user's: remove it"):
            remote.ask({"do": "status"})
        (folder / "control").unlink()
        (folder / "control").write_text("")
        with pytest.raises(Unreachable, match="is no socket of this user's"):
            remote.ask({"do": "status"})
        (folder / "control").unlink()
        (folder / "elsewhere").rename(folder / "control")
        folder.chmod(0o755)
        with pytest.raises(Unreachable, match="is no socket of this user's"):
            remote.ask({"do": "status"})
        folder.chmod(0o700)


def test_a_link_in_place_of_the_folder(runtime: Path, tmp_path: Path) -> None:
    """A server does not go through it, a client does not look behind it, and nothing there is removed."""
    other = tmp_path / "other"
    (other / "gunicorn-1-2").mkdir(parents=True, mode=0o700)
    other.chmod(0o700)
    (runtime / "wsgi-reload-hooks").symlink_to(other)
    with pytest.raises(OSError, match="belongs to this user alone: remove it"):
        ControlSocket("gunicorn", os.getpid())
    assert [home for home in homes() if home.path.startswith(str(runtime))] == []
    assert (other / "gunicorn-1-2").is_dir()


def test_one_comes_while_another_one_goes(runtime: Path) -> None:
    """The folder around the last one is removed with it: who comes at that moment has a private one all the same."""
    wrong: list[str] = []

    def come_and_go(kind: str) -> None:
        for _ in range(1000):
            try:
                home = make_home(kind, os.getpid())
            except OSError as error:
                wrong.append(str(error))
                return
            remove_home(home)

    threads = [threading.Thread(target=come_and_go, args=(kind,)) for kind in ("client", "run")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and list(runtime.iterdir()) == []


def test_what_dead_servers_left(runtime: Path) -> None:
    """It is removed by whoever meets it: the next server, and the next one who looks; others' folders are not touched."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        home = make_home("gunicorn", process.pid)
        (Path(home.path) / "control").write_text("")
        assert home in list(homes())
        (Path(home.path).parent / "notes-1-2").mkdir()
        process.communicate(b"\n")
    assert home not in list(homes())
    assert [each.name for each in Path(home.path).parent.iterdir()] == ["notes-1-2"]
    mine = make_home("uwsgi", os.getpid())
    (Path(mine.path).parent / "gunicorn-1-2").mkdir()
    make_home("run", os.getpid())
    assert sorted(each.name.split("-")[0] for each in Path(mine.path).parent.iterdir()) == ["notes", "run", "uwsgi"]


def test_another_container(runtime: Path) -> None:
    """What servers left that count their pids elsewhere is not looked at: their processes may live."""
    mine = make_home("gunicorn", os.getpid())
    foreign = Path(mine.path).parent / "gunicorn-999999999-2-1"
    foreign.mkdir(mode=0o700)
    assert [home.path for home in homes() if str(runtime) in home.path] == [mine.path]
    make_home("run", os.getpid())
    assert foreign.is_dir()


def test_a_path_that_is_too_long(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to do."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    with pytest.raises(OSError, match="too long for a socket: set XDG_RUNTIME_DIR or TMPDIR to a shorter one"):
        ControlSocket("gunicorn", os.getpid())
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user(runtime: Path, tmp_path: Path) -> None:
    """He cannot read, he cannot command; where he gets to the socket all the same, he is not heard."""
    with served(tmp_path) as (control, _):
        (folder,) = (runtime / "wsgi-reload-hooks").iterdir()
        place = folder / "control"
        assert _as_nobody(place) == "PermissionError"
        for each in (runtime, folder.parent, folder):
            each.chmod(0o755)
        assert _as_nobody(place) == "PermissionError"
        place.chmod(0o777)
        if hasattr(socket, "SO_PASSCRED"):
            assert _as_nobody(place) == "sent, no answer"
            assert control.receive() == []


def _as_nobody(place: Path) -> str:
    """What *nobody* meets when he asks."""

    def ask(folder: str) -> str:
        return f"""
import os, select, socket
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mine:
    mine.bind({folder!r} + "/nobody")
    try:
        mine.sendto(b'{{"do": "status"}}', {str(place)!r})
    except OSError as error:
        print(type(error).__name__)
    else:
        print("answered" if select.select([mine], [], [], 0.5)[0] else "sent, no answer")
"""

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run([sys.executable, "-c", ask(folder)], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.stdout.strip()


def test_which_servers_are_meant(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None at all, the only one, those of the project here, all."""
    seen: list[client.Server] = []
    monkeypatch.setattr(client, "running", lambda pids: seen)
    options = argparse.Namespace(pid=[], all=False)
    with pytest.raises(Failure, match="no server of this user runs with these hooks"):
        client.chosen(options)
    for number, root in enumerate((tmp_path, Path.cwd())):
        seen.append(client.Server(Remote(Home("run", number, "")), {"root": str(root)}))
        assert client.chosen(options) == seen[-1:]
    assert client.chosen(argparse.Namespace(pid=[], all=True)) == seen
    monkeypatch.chdir("/")
    with pytest.raises(Failure, match=r"2 servers run, none of them in this folder: name one by its pid \(0, 1\)"):
        client.chosen(options)


def test_a_folder_that_was_cleaned(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a session that is over: soon after there is one again, the server can be asked again."""
    monkeypatch.setattr("wsgi_reload_hooks.control.service._RENEWED_EVERY", 0.01)
    with served(tmp_path):
        (runtime / "wsgi-reload-hooks").rename(tmp_path / "gone")
        wait_until(lambda: list(runtime.glob("wsgi-reload-hooks/gunicorn-*/control")), "it is there again")
        assert only().ask({"do": "status"})["status"]["workers"] == 2


def test_a_server_that_does_not_answer(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed as what it is, and who wants something of it is told."""
    monkeypatch.setattr("wsgi_reload_hooks.control.client._LISTED_WITHIN", 0.1)
    control = ControlSocket("gunicorn", os.getpid())
    (silent,) = client.running([os.getpid()])
    assert silent.status["silent"] == f"gunicorn {os.getpid()} does not answer"
    assert str(silent).startswith(f"gunicorn, pid {os.getpid()}" if silent.status["root"] is None else "gunicorn")
    control.close()


def test_waiting_for_a_server_that_does_not_answer(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It imports, say: that is no refusal. Who waits is told that nobody knows, in time, or what it says when it can."""
    monkeypatch.setattr("wsgi_reload_hooks.control.client._LISTED_WITHIN", 0.1)
    monkeypatch.setattr("wsgi_reload_hooks.control.client._HEARD_WITHIN", 0.1)
    control = ControlSocket("gunicorn", os.getpid())
    (seen,) = client.running([os.getpid()])
    began = time.monotonic()
    assert client.wait_for([seen], 0.5) == client.NOT_YET
    assert time.monotonic() - began < 5.0
    source = Source()
    desk = ControlService(control, source, Files(Settings.load(str(tmp_path))), source)
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(client.wait_for([seen], 60.0)))
    waiting.start()
    # What was asked before is not waited for any more.
    wait_until(lambda: len(control.receive()) > 0, "it is asked")

    def told() -> bool:
        desk.take(control.receive())
        desk.step()
        return bool(codes)

    wait_until(told, "it is told")
    waiting.join()
    assert codes == [0]
    control.close()


def test_waiting_for_a_server_that_ends(runtime: Path) -> None:
    """Nobody waits for a dead one."""
    program = "import os; from wsgi_reload_hooks.control.channel import ControlSocket; control = ControlSocket('run', os.getpid()); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, cwd=PACKAGE_ROOT) as process:
        wait_until(lambda: [each for each in remotes() if each.pid == process.pid], "it is there")
        (remote,) = [each for each in remotes() if each.pid == process.pid]
        process.communicate(b"\n")
    with pytest.raises(Failure, match=r"has ended"):
        client.Server(remote, {}).wait(time.monotonic() + 60.0)


def test_no_server_is_no_error(runtime: Path) -> None:
    """Nobody there."""
    assert [each for each in remotes() if str(runtime) in each._path] == []
    remove_home(Home("gunicorn", 1, str(runtime / "none" / "gunicorn-1-2")))


def test_another_socket_in_its_place(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a leader of before, whom nobody hears any more: soon this one is reached again."""
    monkeypatch.setattr("wsgi_reload_hooks.control.service._RENEWED_EVERY", 0.01)
    with served(tmp_path):
        ControlSocket("gunicorn", os.getpid()).leave()
        assert only().ask({"do": "status"})["status"]["workers"] == 2
