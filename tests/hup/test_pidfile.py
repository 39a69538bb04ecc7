"""Who is in a pid file, and what keeps us from signalling whoever that is."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edits import LONG_AGO, date, without_rights
from harness import LittleServer, processes, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsgi_reload_hooks.hup import pidfile
from wsgi_reload_hooks.hup.pidfile import NoServer, PidFile
from wsgi_reload_hooks.hup.processes import from_proc, from_ps, process

pytestmark = pytest.mark.unit

HUP = signal.SIGHUP
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give things away")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
needs_ps = pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LittleServer]:
    """A server that catches HUP, with its pid file."""
    with LittleServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def path(tmp_path: Path, server: LittleServer) -> Path:
    """A pid file of that server, for this test alone."""
    path = tmp_path / "server.pid"
    path.write_text(f"{server.pid}\n")
    return path


def who(path: Path, sig: signal.Signals | None = HUP) -> int:
    """The number of whom the file names."""
    with PidFile(str(path)).server(sig) as server:
        return server.process.pid


def why_not(path: Path, sig: signal.Signals | None = HUP) -> str:
    """What keeps us from signalling whom the file names."""
    with pytest.raises(NoServer) as error, PidFile(str(path)).server(sig):
        pytest.fail("it would have been signalled")
    assert "\n" not in str(error.value)
    return str(error.value)


def refuses(path: Path, text: str) -> bool:
    """For a child process, where pytest has no part."""
    try:
        with PidFile(str(path)).server(HUP):
            return False
    except NoServer as why:
        return text in str(why)


def ended(code: str = "pass") -> int:
    """The number of a process that is gone."""
    child = subprocess.Popen([sys.executable, "-S", "-c", code])
    child.wait()
    return child.pid


# -- good ones -------------------------------------------------------------------------------------------------------


def test_a_good_one(path: Path, server: LittleServer) -> None:
    """The server in the file is found, and the signal reaches it."""
    with PidFile(str(path)).server(HUP) as found:
        assert found.process.pid == server.pid
        found.send(HUP)
    server.wait_got("SIGHUP")


@pytest.mark.parametrize("text", ["{}", " {}\n", "{}\r\n", "000{}\n"])
def test_how_a_number_may_be_written(path: Path, server: LittleServer, text: str) -> None:
    """With white space around it, and without."""
    path.write_text(text.format(server.pid))
    assert who(path) == server.pid


def test_it_is_read_anew_each_time(path: Path, server: LittleServer) -> None:
    """Another number in the file is another process."""
    found = PidFile(str(path))
    path.write_text("garbage")
    with pytest.raises(NoServer), found.server(HUP):
        pass
    path.write_text(str(server.pid))
    with found.server(HUP) as again:
        assert again.process.pid == server.pid


def test_nothing_stays_open(path: Path) -> None:
    """Neither the file nor what holds on to the process."""
    before = processes.open_files(os.getpid())
    who(path)
    path.write_text("1")
    why_not(path)
    path.write_text(str(ended()))
    why_not(path)
    assert processes.open_files(os.getpid()) == before


def test_a_system_that_cannot_hold_on_to_a_process(path: Path, server: LittleServer) -> None:
    """Without `pidfd_open` the number has to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pidfile, "_handle", lambda pid: None)
        assert who(path) == server.pid
        path.write_text(str(ended()))
        assert "there is no process" in why_not(path)


# -- the file --------------------------------------------------------------------------------------------------------

CONTENTS = {
    "": "it is empty",
    "\n": "it is empty",
    "garbage": "no number",
    "12 13": "no number",
    "-5": "no number",
    "+5": "no number",
    "1_0": "no number",
    "٣": "no number",
    "99999999999": "no number",
    "4294967296": "no number",
    "5" * 100: "no number",
    "5" + " " * 100: "no number",
    "0": "0 is no process",
    "1": "1 is no process",
}


@pytest.mark.parametrize("text", CONTENTS)
def test_what_is_no_number_of_a_server(path: Path, text: str) -> None:
    """Each is told as what it is."""
    path.write_text(text)
    assert CONTENTS[text] in why_not(path)


@settings(deadline=None, database=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100))
def test_whatever_is_in_it(tmp_path: Path, content: bytes) -> None:
    """Nothing but a number names a process."""
    (tmp_path / "pid").write_bytes(content)
    if not re.fullmatch(rb"\s*[0-9]+\s*", content):
        why_not(tmp_path / "pid")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


def below_a_file(path: Path) -> None:
    path.symlink_to(Path(__file__, "x"))


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.exists, "there is no such file"),
    "below a file": (below_a_file, "there is no such file"),
    "a fifo": (fifo, "no regular file"),
    "a folder": (Path.mkdir, "no regular file"),
    "a loop": (loop, "cannot be read (Too many levels of symbolic links)"),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file(tmp_path: Path, place: str) -> None:
    """Each is told as what it is, and none is waited for."""
    make, why = PLACES[place]
    make(tmp_path / "pid")
    assert why in why_not(tmp_path / "pid")


def test_a_file_that_cannot_be_read(path: Path) -> None:
    """Told with the system's reason."""
    path.chmod(0)
    for folder in (path.parent, *path.parent.parents):
        if folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o111)
    assert without_rights(lambda: refuses(path, "cannot be read (Permission denied)"))


def test_a_file_that_anybody_may_write(path: Path) -> None:
    """Refusal, with the remedy; of the group may write."""
    path.chmod(0o646)
    assert f"chmod o-w {path}" in why_not(path)
    path.chmod(0o664)
    who(path)


@needs_root
def test_a_file_of_somebody_else(path: Path, server: LittleServer) -> None:
    """Neither root's, nor ours, nor of the server's user: refused. Nor behind a link of somebody else."""
    os.chown(path, 65533, -1)
    assert "it belongs to user 65533" in why_not(path)
    os.chown(path, 0, -1)
    link = path.with_name("link")
    link.symlink_to(path)
    who(link)
    os.lchown(link, 65533, -1)
    assert "it belongs to user 65533" in why_not(link)


@needs_root
def test_a_file_of_the_servers_user(tmp_path: Path) -> None:
    """Who may write it could signal that process himself."""
    child = subprocess.Popen([shutil.which("sleep") or "sleep", "1000"], user=65533)
    try:
        path = tmp_path / "pid"
        path.write_text(str(child.pid))
        os.chown(path, 65533, -1)
        assert who(path, None) == child.pid
    finally:
        child.kill()
        child.wait()


# -- the process -----------------------------------------------------------------------------------------------------


def test_one_that_is_gone(path: Path) -> None:
    """Told as a file that was left."""
    path.write_text(str(ended()))
    assert "is gone, and has left its pid file" in why_not(path)


def test_one_that_goes_just_before_the_signal(tmp_path: Path) -> None:
    """What is signalled is the process that was looked at, or nobody."""
    with LittleServer(tmp_path) as server, PidFile(str(server.pidfile)).server(HUP) as found:
        server.__exit__()
        with pytest.raises(NoServer, match="is gone"):
            found.send(HUP)


def test_a_zombie(path: Path) -> None:
    """It has ended, though its number is still its own."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        wait_until(lambda: not processes.alive(child), "it ended")
        path.write_text(str(child))
        assert "has ended" in why_not(path)
    finally:
        os.waitpid(child, 0)


@pytest.mark.parametrize("number", [os.getpid, os.getppid])
def test_ourselves(path: Path, number: Callable[[], int]) -> None:
    """Neither this process nor what has started it."""
    path.write_text(str(number()))
    assert "this process, or one that has started it" in why_not(path)


@needs_proc
def test_the_number_of_a_thread(path: Path) -> None:
    """To signal it would signal a process that is not the server."""
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    child = subprocess.Popen([sys.executable, "-S", "-c", code + "time.sleep(1000)"])
    try:
        tasks = Path(f"/proc/{child.pid}/task")
        wait_until(lambda: len(list(tasks.iterdir())) == 2, "two threads")
        (other,) = [each.name for each in tasks.iterdir() if each.name != str(child.pid)]
        path.write_text(other)
        assert f"no process {other}" in why_not(path)
    finally:
        child.kill()
        child.wait()


def test_a_number_that_is_another_process_by_now(path: Path, server: LittleServer) -> None:
    """Younger than the file: not the one that was written down. The remedy is named, and works."""
    date(path)
    assert "was started after it was written" in why_not(path)
    assert f"touch {path}" in why_not(path)
    path.touch()
    assert who(path) == server.pid


def test_clocks_that_differ_a_little(path: Path, server: LittleServer) -> None:
    """A file that is a second older than its process is its own."""
    found = process(server.pid)
    assert found is not None
    date(path, time.time_ns() - int((found.age + 1) * 1e9))
    assert who(path) == server.pid


@needs_proc
def test_a_clock_that_is_set(path: Path, server: LittleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What belonged together does so still; another file with the number is looked at anew."""
    found = PidFile(str(path))
    with found.server(HUP):
        pass
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86400)
    with found.server(HUP) as again:
        assert again.process.pid == server.pid
    date(path)
    with pytest.raises(NoServer, match="was started after"), found.server(HUP):
        pass


def test_a_file_of_tomorrow(path: Path, server: LittleServer) -> None:
    """A clock that was set back makes nobody a stranger."""
    date(path, time.time_ns() + 10**14)
    assert who(path) == server.pid


@needs_proc
def test_one_that_does_not_catch_the_signal(path: Path) -> None:
    """It would end it: no server, or one that is not ready. What it is meant to end by, is sent all the same."""
    child = subprocess.Popen([shutil.which("sleep") or "sleep", "1000"])
    try:
        path.write_text(str(child.pid))
        assert "(sleep) does not catch SIGHUP" in why_not(path)
        assert who(path, signal.SIGTERM) == who(path, None) == child.pid
    finally:
        child.kill()
        child.wait()


@needs_proc
def test_one_that_takes_the_signal_in_its_own_way(path: Path) -> None:
    """Blocked is as good as caught: it asks for it by itself."""
    code = "import signal, time; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP]); print(flush=True)\n"
    child = subprocess.Popen([sys.executable, "-S", "-c", code + "time.sleep(1000)"], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        path.write_text(str(child.pid))
        assert who(path) == child.pid
    finally:
        child.kill()
        child.communicate()


FAMILY = """
import os, signal, sys, time

def take(*given):
    pass

signal.signal(signal.SIGHUP, signal.SIG_IGN)
child = os.fork()
if child == 0:
    for name in sys.stdin.readline().split():
        signal.signal(signal.Signals[name], take)
    print(flush=True)
    time.sleep(1000)
signal.signal(signal.SIGHUP, take)
print(child, flush=True)
time.sleep(1000)
"""


class Family:
    """A process that heeds HUP, and its child that ignores it."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._parent = subprocess.Popen([sys.executable, "-S", "-c", FAMILY], stdin=pipe, stdout=pipe, text=True)
        self.pid = self._parent.pid
        assert self._parent.stdout is not None
        self.child = int(self._parent.stdout.readline())

    def child_catches(self, *names: str) -> None:
        """From now on it does."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(" ".join(names) + "\n")
        self._parent.stdin.flush()
        self._parent.stdout.readline()

    def end(self) -> None:
        processes.kill(self.child)
        self._parent.kill()
        self._parent.communicate()


@pytest.fixture
def family() -> Iterator[Family]:
    family = Family()
    try:
        yield family
    finally:
        family.end()


@needs_proc
@pytest.mark.parametrize("later", ["SIGHUP", "SIGTERM"], ids=["a worker", "a router"])
def test_one_whose_child_ignores_the_signal(path: Path, family: Family, later: str) -> None:
    """So does a worker of uWSGI that starts: its master would wait for it. Its router does it for good."""
    path.write_text(str(family.pid))
    assert f"{family.child} (python" in why_not(path) and "ignores SIGHUP now" in why_not(path)
    assert who(path, signal.SIGTERM) == who(path, None) == family.pid
    family.child_catches(later)
    assert who(path) == family.pid


@needs_proc
def test_one_whose_child_ignores_all(path: Path, family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known by its age."""
    path.write_text(str(family.pid))
    monkeypatch.setattr(pidfile, "_STARTS_WITHIN", 0.0)
    assert who(path) == family.pid


@needs_root
def test_one_that_is_not_ours(path: Path, server: LittleServer) -> None:
    """Told as that; for a command that does the work it is enough that it is there."""
    for folder in path.parents:
        if folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o111)
    assert without_rights(lambda: refuses(path, f"{server.pid} is not ours to signal"))
    assert without_rights(lambda: who(path, None) == server.pid)


# -- what the system tells -------------------------------------------------------------------------------------------


@needs_proc
@needs_ps
def test_ps_tells_the_same(server: LittleServer) -> None:
    """Where there is no /proc, `ps` says it, to the second and never too young."""
    here, there = from_proc(server.pid), from_ps(server.pid)
    assert here is not None and there is not None
    assert (there.pid, there.parent, there.ended) == (here.pid, here.parent, here.ended)
    assert there.users <= here.users
    assert here.age <= there.age + 0.1 and there.age <= here.age + 10
    assert there.name.startswith("python") and there.heeds is None


@needs_ps
def test_ps_of_nobody_and_of_a_zombie() -> None:
    """Nothing is told of a process that is gone; one that only waits to be reaped has ended."""
    assert from_ps(ended()) is None
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        wait_until(lambda: not processes.alive(child), "it ended")
        found = from_ps(child)
        assert found is not None and found.ended
    finally:
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("line", "age"),
    [("Ss       05:07     0     1 /bin/a b", 308), ("S+ 1-02:03:04 501 77 x", 93785), ("R 01:00:00 0 1 x", 3601)],
)
def test_the_times_of_ps(monkeypatch: pytest.MonkeyPatch, line: str, age: float) -> None:
    """[[days-]hours:]minutes:seconds."""
    monkeypatch.setattr(
        subprocess, "run", lambda *given, **more: subprocess.CompletedProcess(given, 0, f" {line}\n".encode())
    )
    found = from_ps(5)
    assert found is not None and found.age == age


def test_a_system_that_tells_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nothing can be learned of is not signalled."""
    monkeypatch.setattr(pidfile, "process", lambda pid: None)
    assert "nothing" not in why_not(path) and "anything could be learned" in why_not(path)


@needs_proc
@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("-c", "import time; time.sleep(1000)"), "python"),
        (("-S", "-W", "error", "{script}", "-m"), "serve.py"),
        (("-m", "serve", "x"), "serve"),
    ],
)
def test_the_name_of_a_program(tmp_path: Path, words: tuple[str, ...], name: str) -> None:
    """Of an interpreter it is what it runs."""
    script = tmp_path / "serve.py"
    script.write_text("import time; time.sleep(1000)")
    child = subprocess.Popen([sys.executable, *(word.format(script=script) for word in words)], cwd=tmp_path)
    try:

        def named() -> bool:
            found = process(child.pid)
            return found is not None and found.name.startswith(name)

        # Its words come a moment after it.
        wait_until(named, f"the name {name}")
        found = process(child.pid)
        assert found is not None
        assert abs(found.age) < 60 and found.parent == os.getpid() and os.getuid() in found.users
        assert str(found) == f"{child.pid} ({found.name})"
    finally:
        child.kill()
        child.wait()


def test_long_ago_is_before_every_process() -> None:
    """What these tests call long ago."""
    found = process(os.getpid())
    assert found is not None and time.time() - LONG_AGO / 1e9 > found.age
