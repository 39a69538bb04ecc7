"""The process that listens for events: the program itself, and the side of the one that asks it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from edits import PACKAGE_ROOT, save, save_atomically, without_rights
from harness.processes import alive
from harness.waiting import holds, wait_until

from wsgi_reload_hooks.process.native import Native
from wsgi_reload_hooks.watching import listener as listener_module
from wsgi_reload_hooks.watching import listener_main
from wsgi_reload_hooks.watching.listener import Listener

pytestmark = pytest.mark.unit

MODULE = listener_module.extension()
PROGRAM = PACKAGE_ROOT / "wsgi_reload_hooks" / "watching" / "listener_main.py"
LINUX = sys.platform.startswith("linux")
LIMIT = 10.0
# Longer than it takes to hear of a file.
MOMENT = 0.3
# So many looks take longer than a process that is told to end stands still.
PATIENT = 1000

needs_watchfiles = pytest.mark.skipif(MODULE is None, reason="watchfiles is not installed")
on_linux = pytest.mark.skipif(not LINUX, reason="only Linux has /proc and inotify")
Wanted = dict[str, "list[str] | None"]


class Program:
    """`listener_main.py` as a child: what it is asked goes in, what it says is kept."""

    def __init__(self, *before: str) -> None:
        assert MODULE is not None
        self._child = subprocess.Popen(
            [*before, sys.executable, "-I", "-S", str(PROGRAM), MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self.ask, self.answers = self._child.stdin, self._child.stdout
        self.pid = self._child.pid
        self.said: list[dict[str, Any]] = []
        self._rest = b""
        os.set_blocking(self.answers.fileno(), False)

    def send(self, *lines: bytes) -> None:
        self.ask.write(b"".join(line + b"\n" for line in lines))
        self.ask.flush()

    def listen(self, wanted: Wanted) -> dict[str, Any]:
        """Ask it to listen; its answer."""
        known = len(self._answers())
        self.send(json.dumps({"number": known + 1, "folders": wanted}).encode())
        wait_until(lambda: len(self._answers()) > known, self.shown, LIMIT)
        return self._answers()[-1]

    def heard(self) -> set[str]:
        """The paths it has told of so far."""
        self._read()
        return {path for message in self.said for path in message.get("heard", ())}

    def hears(self, path: Path) -> None:
        """It tells of *path* within a limit."""
        wait_until(lambda: str(path) in self.heard(), lambda: f"{path} in {self.shown()}", LIMIT)

    def forget(self) -> None:
        self._read()
        self.said.clear()

    def shown(self) -> str:
        return f"what it said: {self.said}"

    def end(self) -> int:
        """Its status, once it has ended by itself."""
        return self._child.wait(LIMIT)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.ask.close()
        self.answers.close()
        try:
            self._child.wait(LIMIT)
        finally:
            self._child.kill()
            self._child.wait(LIMIT)

    def _answers(self) -> list[dict[str, Any]]:
        self._read()
        return [message for message in self.said if "listening" in message]

    def _read(self) -> None:
        while data := self.answers.read(1 << 16):
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        self.said += [json.loads(line) for line in lines]
        assert not any("ended" in message for message in self.said), self.shown()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder under its real name."""
    return Path(os.path.realpath(tmp_path))


@pytest.fixture
def program() -> Iterator[Program]:
    child = Program()
    yield child
    child.close()


# -- what it hears ---------------------------------------------------------------------------------------------------


@needs_watchfiles
def test_answers(root: Path, program: Program) -> None:
    """It answers each request, also one that it is listening to already, and says that nothing is left out."""
    wanted: list[Wanted] = [
        {str(root): ["a.py"]},
        {str(root): ["b.py"]},
        {},
        {str(root / "gone"): None, str(root): None},
    ]
    for each in wanted:
        answer = program.listen(each)
        assert answer["listening"] > 0 and answer["deaf"] == [] and answer["limit"] is None


@needs_watchfiles
@pytest.mark.parametrize("write", [save, save_atomically], ids=["in place", "by rename"])
def test_hears_a_save(root: Path, program: Program, write: Callable[[Path, str], object]) -> None:
    """A file that matters is told, however it is saved, each time."""
    path = save(root / "a.py", "1")
    program.listen({str(root): ["a.py"]})
    for text in ("22", "333"):
        write(path, text)
        program.hears(path)
        assert program.heard() == {str(path)}
        wait_until_silent(program)
        program.forget()


def wait_until_silent(program: Program) -> None:
    """What one save brings may come in two parts."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        program.forget()
        before = time.monotonic()
        while not program.heard() and time.monotonic() < before + MOMENT:
            time.sleep(0.01)
        if not program.said:
            return
    raise AssertionError(program.shown())


@needs_watchfiles
def test_hears_births_and_deaths(root: Path, program: Program) -> None:
    """A file that matters before it is there, and one that vanishes."""
    program.listen({str(root): ["a.py"]})
    path = save(root / "a.py", "1")
    program.hears(path)
    wait_until_silent(program)
    path.unlink()
    program.hears(path)


@needs_watchfiles
def test_all_names_of_a_folder(root: Path, program: Program) -> None:
    """In a folder with no names given each name matters, a folder's too, but not what lies deeper."""
    save(root / "sub" / "deep.py", "1")
    program.listen({str(root): None})
    save(root / "sub" / "deep.py", "22")
    save(root / "new.po", "1")
    program.hears(root / "new.po")
    (root / "folder").mkdir()
    program.hears(root / "folder")
    assert str(root / "sub" / "deep.py") not in program.heard()


@needs_watchfiles
def test_other_names_do_not_matter(root: Path, program: Program) -> None:
    """It does not tell of other files beside one that matters, whatever they are called."""
    program.listen({str(root): ["a.py"], str(root / "gone"): ["b.py"]})
    for name in ("b.py", "a.pyc", "a.py~", ".a.py.swp", "A.py"):
        save(root / name, "1")
    save(root / "a.py", "1")
    program.hears(root / "a.py")
    assert program.heard() == {str(root / "a.py")}


@needs_watchfiles
def test_the_last_request_counts(root: Path, program: Program) -> None:
    """What is asked later takes the place of what was asked before, names as well as folders."""
    for name in ("a", "b"):
        (root / name).mkdir()
    program.listen({str(root / "a"): ["x"]})
    program.listen({str(root / "a"): ["y"], str(root / "b"): ["x"]})
    for place in ("a/x", "a/y", "b/y", "b/x"):
        save(root / place, "1")
    program.hears(root / "b" / "x")
    program.hears(root / "a" / "y")
    assert program.heard() == {str(root / "a" / "y"), str(root / "b" / "x")}
    program.listen({str(root / "b"): ["x"]})
    wait_until_silent(program)
    save(root / "a" / "y", "22")
    save(root / "b" / "x", "22")
    program.hears(root / "b" / "x")
    assert program.heard() == {str(root / "b" / "x")}


@needs_watchfiles
def test_requests_in_a_row(root: Path, program: Program) -> None:
    """Of several requests that come at once the last one is answered; one that comes in parts is put together."""
    first, last = (json.dumps({"number": 1, "folders": {str(root): [name]}}).encode() for name in ("a", "b"))
    program.send(*[first] * 50, last)
    wait_until(program._answers, program.shown, LIMIT)
    save(root / "a", "1")
    save(root / "b", "1")
    program.hears(root / "b")
    assert str(root / "a") not in program.heard()
    known = len(program._answers())
    program.ask.write(first[:20])
    program.ask.flush()
    holds(lambda: len(program._answers()) == known, "no answer to half a request", MOMENT)
    program.send(first[20:])
    wait_until(lambda: len(program._answers()) > known, program.shown, LIMIT)
    wait_until_silent(program)
    save(root / "a", "22")
    program.hears(root / "a")


@needs_watchfiles
@pytest.mark.parametrize("how", ["vanishes", "moves"])
def test_a_folder_itself(root: Path, program: Program, how: str) -> None:
    """A folder that vanishes or moves away is told, though no name in it matters."""
    folder = root / "pkg"
    folder.mkdir()
    program.listen({str(folder): []})
    if how == "vanishes":
        folder.rmdir()
    else:
        folder.rename(root / "away")
    program.hears(folder)


@needs_watchfiles
def test_a_folder_in_the_place_of_another(root: Path, program: Program) -> None:
    """Asked again after a folder was replaced by another one, it listens to that."""
    for name in ("pkg", "new"):
        save(root / name / "a.py", "1")
    program.listen({str(root / "pkg"): ["a.py"]})
    (root / "pkg").rename(root / "old")
    (root / "new").rename(root / "pkg")
    program.listen({str(root / "pkg"): ["a.py"]})
    wait_until_silent(program)
    save(root / "pkg" / "a.py", "22")
    program.hears(root / "pkg" / "a.py")


@needs_watchfiles
@pytest.mark.parametrize("name", ["two words.py", "grüße.py", "quote'\".py", "new\nline.py", "\\u0061.py", "日本.py"])
def test_any_name(root: Path, program: Program, name: str) -> None:
    """What a file is called does not matter, nor what its folder is called."""
    folder = root / name
    folder.mkdir()
    program.listen({str(folder): [name]})
    program.hears(save(folder / name, "1"))


@needs_watchfiles
@on_linux
def test_a_name_that_is_no_text(root: Path, program: Program) -> None:
    """A file whose name cannot be decoded, beside those that matter, is no reason to end."""
    program.listen({str(root): ["a.py"]})
    with open(os.path.join(os.fsencode(root), b"\xff"), "wb"):
        pass
    wait_until_silent(program)
    program.hears(save(root / "a.py", "1"))


# -- how it ends -----------------------------------------------------------------------------------------------------


@needs_watchfiles
@pytest.mark.parametrize("asked", [False, True])
def test_ends_with_its_input(root: Path, program: Program, asked: bool) -> None:
    """The end of its standard input is its end, with status 0, whether it listens already or not."""
    if asked:
        program.listen({str(root): None})
    program.ask.close()
    assert program.end() == 0


@needs_watchfiles
def test_ends_when_nobody_reads(root: Path, program: Program) -> None:
    """Where its reader is gone it ends as well, when it has something to tell, with status 0."""
    program.listen({str(root): None})
    program.answers.close()
    save(root / "a.py", "1")
    assert program.end() == 0
    program.answers = open(os.devnull, "rb", buffering=0)  # noqa: SIM115


@needs_watchfiles
@pytest.mark.parametrize("request_", [b"nonsense", b"[]", b'{"/": 7}'])
def test_a_request_that_is_none(program: Program, request_: bytes) -> None:
    """What it cannot go on after, it tells, and ends with status 0."""
    program.send(request_)
    assert program.end() == 0
    (message,) = map(json.loads, (program.answers.read() or b"").splitlines())
    assert list(message) == ["ended"] and "Error" in message["ended"]


@needs_watchfiles
def test_ends_quietly_when_interrupted(root: Path, program: Program) -> None:
    """Ctrl-C, for a whole group of processes, is no error of its own."""
    program.listen({str(root): None})
    os.kill(program.pid, signal.SIGINT)
    assert program.end() == 0 and program.answers.read() == b""


# -- nothing to do, nothing done -------------------------------------------------------------------------------------

WAKES = """
import json, os, select, signal, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import listener_main
woken, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
signal.signal(signal.SIGIO, lambda number, frame: None)
mine = listener_main.FolderListener(listener_main._load(sys.argv[2]))
found = [mine.wakes]
mine.listen({sys.argv[3]: None})
found += [mine.wakes, bool(select.select([woken], [], [], 0)[0])]
open(os.path.join(sys.argv[3], "a"), "w").close()
found += [bool(select.select([woken], [], [], 10)[0]), mine.hear()]
mine.listen({})
print(json.dumps([*found, mine.wakes, mine.hear()]), flush=True)
os._exit(0)
"""


@needs_watchfiles
@on_linux
def test_is_woken_by_the_kernel(root: Path) -> None:
    """On Linux a signal comes with an event, and none without: nobody has to look whether there is one."""
    assert MODULE is not None
    done = subprocess.run(
        [sys.executable, "-c", WAKES, str(PROGRAM), MODULE, str(root)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, True, False, True, [str(root / "a")], True, []]


class Deaf:
    """A notify without inotify: as on a system where nobody sends a signal."""

    def __init__(self, folders: list[str], *rest: object) -> None:
        self.waits: list[tuple[int, int]] = []

    def watch(self, together: int, step: int, wait: int, stop: object) -> str:
        self.waits.append((step, wait))
        return "timeout"


def test_looks_where_nobody_wakes_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel sends no signal, it waits for events in watchfiles itself, for long at a time."""
    monkeypatch.setattr(listener_main, "_leads_to", lambda link: "socket:[1]")
    mine = listener_main.FolderListener(Deaf)
    assert mine.listen({str(root): None})["deaf"] == [] and not mine.wakes
    assert mine.hear() == [] and mine._listener.waits == [(25, 1000)]
    mine.listen({})
    assert mine.wakes and mine.hear() == []


# -- limits of the system --------------------------------------------------------------------------------------------

LIMITED = 'echo $1 > /proc/sys/user/$0 && shift && exec "$@"'


def limited(name: str, value: int) -> tuple[str, ...]:
    """The beginning of a command that runs in a user namespace of its own, with a limit of its own."""
    before = ("unshare", "-U", "-r", "sh", "-c", LIMITED, name, str(value))
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    done = subprocess.run([*before, "true"], capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        pytest.skip(f"no user namespace with limits of its own is to be had here: {done.stderr.strip()}")
    return before


def asked_with_limit(root: Path, name: str, value: int) -> tuple[Program, dict[str, Any], list[Path]]:
    folders = [root / each for each in "abcde"]
    for folder in folders:
        folder.mkdir()
    program = Program(*limited(name, value))
    try:
        return program, program.listen({str(folder): ["x"] for folder in folders}), folders
    except BaseException:
        program.close()
        raise


@needs_watchfiles
@on_linux
@pytest.mark.parametrize("granted", [0, *(pytest.param(number) for number in (1, 3, 4))])
def test_too_few_watches(root: Path, granted: int) -> None:
    """Folders that the system grants no watch for are named, why, and what to raise; the others are heard."""
    program, answer, folders = asked_with_limit(root, "max_inotify_watches", granted)
    try:
        assert answer["deaf"] == [str(folder) for folder in folders[granted:]]
        assert answer["limit"] == "fs.inotify.max_user_watches" and "limit" in answer["why"]
        for folder in folders:
            save(folder / "x", "1")
        for folder in folders[:granted]:
            program.hears(folder / "x")
        assert len(program.heard()) == granted
    finally:
        program.close()


@needs_watchfiles
@on_linux
def test_as_many_watches_as_needed(root: Path) -> None:
    """The last watch that is granted is used, and nothing is said."""
    program, answer, folders = asked_with_limit(root, "max_inotify_watches", 5)
    try:
        assert answer["deaf"] == [] and answer["limit"] is None
        program.hears(save(folders[-1] / "x", "1"))
    finally:
        program.close()


@needs_watchfiles
@on_linux
def test_no_instance(root: Path) -> None:
    """Without any instance of inotify nothing is heard; it says so, answers on, and ends as ever."""
    program, answer, folders = asked_with_limit(root, "max_inotify_instances", 0)
    try:
        assert answer["deaf"] == [str(folder) for folder in folders]
        assert answer["limit"] == "fs.inotify.max_user_instances" and "limit" in answer["why"]
        assert program.listen({str(folders[0]): ["x"]})["deaf"] == [str(folders[0])]
        assert program.listen({})["deaf"] == []
        program.ask.close()
        assert program.end() == 0
    finally:
        program.close()


@needs_watchfiles
def test_no_right_to_read(root: Path) -> None:
    """A folder that may not be read is named, with the reason; those beside it are heard."""
    assert MODULE is not None
    notify = listener_main._load(MODULE)
    with tempfile.TemporaryDirectory() as name:
        open_to_all = Path(os.path.realpath(name))
        open_to_all.chmod(0o755)
        for each in "abc":
            (open_to_all / each).mkdir()
            (open_to_all / each).chmod(0o777)
        closed = open_to_all / "b"
        closed.chmod(0o333)

        def only_that_one_is_left_out() -> bool:
            # As the program does: else the first event would end this process.
            signal.signal(signal.SIGIO, lambda number, frame: None)
            mine = listener_main.FolderListener(notify)
            answer = mine.listen({str(open_to_all / each): None for each in "abc"})
            path = save(open_to_all / "c" / "x", "1")
            end = time.monotonic() + LIMIT
            while str(path) not in mine.hear() and time.monotonic() < end:
                pass
            in_time = time.monotonic() < end
            mine._listener.close()
            return in_time and answer["deaf"] == [str(closed)] and "right" in answer["why"] and answer["limit"] is None

        assert without_rights(only_that_one_is_left_out)
        closed.chmod(0o777)


# -- the side of the one that asks -----------------------------------------------------------------------------------


def open_numbers() -> list[str]:
    """The open file descriptors of this process, with where they lead."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return sorted(found)


def start(program: str = MODULE or "") -> Listener:
    return Listener(sys.executable, program, Native())


@pytest.fixture
def listener() -> Iterator[Listener]:
    mine = start()
    yield mine
    if not mine._closed:
        mine.close()


class Messages:
    """All that a listener has said so far."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.all: list[dict[str, Any]] = []

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message that *condition* is true of."""

        def found() -> list[dict[str, Any]]:
            self.all += self._listener.read()
            return [message for message in self.all if condition(message)]

        return wait_until(found, lambda: f"that message among {str(self.all)[:1000]}", LIMIT)[0]


@needs_watchfiles
def test_listener(root: Path, listener: Listener) -> None:
    """It passes on what was asked and what was heard, and its descriptor is readable when there is something."""
    messages = Messages(listener)
    listener.listen({str(root): frozenset(["a.py", "b.py"])})
    assert Native().ready([listener.reader], LIMIT)
    assert messages.until(lambda message: "listening" in message)["deaf"] == []
    assert not listener.behind and listener.read() == []
    save(root / "c.py", "1")
    path = save(root / "b.py", "1")
    assert Native().ready([listener.reader], LIMIT)
    assert messages.until(lambda message: "heard" in message) == {"heard": [str(path)]}


@needs_watchfiles
@on_linux
def test_large_requests(root: Path, listener: Listener) -> None:
    """Ten thousand long names do not fit into a pipe: the rest is sent with each call, and nobody waits."""
    messages = Messages(listener)
    names = frozenset(f"{number:05}{'x' * 90}.py" for number in range(10_000))
    os.kill(listener._pid, signal.SIGSTOP)
    listener.listen({str(root): names})
    assert listener.behind and listener.read() == [] and listener.behind
    os.kill(listener._pid, signal.SIGCONT)
    messages.until(lambda message: "listening" in message)
    assert not listener.behind
    path = save(root / max(names), "1")
    messages.until(lambda message: str(path) in message.get("heard", ()))


@needs_watchfiles
@on_linux
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_read_after_its_end(root: Path, listener: Listener, how: signal.Signals) -> None:
    """A process that was killed is told as ended, last, and every time; asking it is no error."""
    messages = Messages(listener)
    listener.listen({str(root): None})
    messages.until(lambda message: "listening" in message)
    os.kill(listener._pid, how)
    assert messages.until(lambda message: "ended" in message) == {"ended": "it is gone"}
    assert messages.all[-1] == {"ended": "it is gone"} and listener.read() == [{"ended": "it is gone"}]
    listener.listen({str(root): frozenset()})
    assert not listener.behind


@on_linux
def test_a_module_that_cannot_be_loaded(tmp_path: Path) -> None:
    """What is wrong with watchfiles is passed on, once."""
    broken = start(str(save(tmp_path / "_rust_notify.so", "no module")))
    try:
        messages = Messages(broken)
        assert "ImportError" in messages.until(lambda message: "ended" in message)["ended"]
        assert len(messages.all) == 1
    finally:
        broken.close()


@on_linux
def test_no_such_interpreter(tmp_path: Path) -> None:
    """Where no process can be had, that is an OSError, and nothing is left open."""
    before = open_numbers()
    with pytest.raises(OSError, match="No such file"):
        Listener(str(tmp_path / "python"), "module", Native())
    assert open_numbers() == before


@needs_watchfiles
@on_linux
def test_close(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `close` there is no child, not even a dead one, and no descriptor more than before."""
    monkeypatch.setattr(listener_module, "_LOOKS_AT_ITS_END", PATIENT)
    before = open_numbers()
    for asked in (False, True):
        mine = start()
        if asked:
            mine.listen({str(root): None})
            Messages(mine).until(lambda message: "listening" in message)
        assert len(open_numbers()) == len(before) + 2
        mine.close()
        with pytest.raises(ChildProcessError):
            os.waitpid(mine._pid, os.WNOHANG)
        assert open_numbers() == before and mine.read() == []


@needs_watchfiles
@on_linux
def test_close_after_somebody_reaped_it() -> None:
    """A gunicorn that reaps all of its children may have this one, too."""
    mine = start()
    os.kill(mine._pid, signal.SIGKILL)
    os.waitpid(mine._pid, 0)
    mine.close()
    assert not alive(mine._pid)


@needs_watchfiles
@on_linux
def test_close_does_not_wait_for_long() -> None:
    """One that does not end is not waited for, and ends as soon as it can."""
    mine = start()
    os.kill(mine._pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        mine.close()
        assert time.monotonic() - began < 5.0 and alive(mine._pid)
    finally:
        os.kill(mine._pid, signal.SIGCONT)
        assert wait_until(lambda: os.waitpid(mine._pid, os.WNOHANG)[0], "its end", LIMIT) == mine._pid


@needs_watchfiles
@on_linux
def test_leave(root: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child that lets go of it keeps nothing open, does not end it, and does not keep it from ending."""
    monkeypatch.setattr(listener_module, "_LOOKS_AT_ITS_END", PATIENT)
    messages = Messages(listener)
    listener.listen({str(root): None})
    messages.until(lambda message: "listening" in message)
    before = len(open_numbers())
    told, tell = os.pipe()
    stay, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            # The two ends of the pipes that are the parent's, and ours of its own listing.
            listener.leave()
            os.write(tell, json.dumps([len(open_numbers()) - before, listener.read()]).encode())
            os.close(end)
            os.read(stay, 1)
        finally:
            os._exit(0)
    try:
        os.close(tell)
        assert json.loads(os.read(told, 1000)) == [4 - 2, []]
        path = save(root / "a.py", "1")
        messages.until(lambda message: str(path) in message.get("heard", ()))
        began = time.monotonic()
        listener.close()
        assert not alive(listener._pid) and alive(pid)
        assert time.monotonic() - began < LIMIT
    finally:
        for number in (stay, end, told):
            os.close(number)
        os.waitpid(pid, 0)


@needs_watchfiles
@on_linux
def test_close_in_a_forked_child(root: Path, listener: Listener) -> None:
    """In a process that was forked, `close` only lets go: the child is somebody else's."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            listener._native.waitpid = None
            listener.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    messages = Messages(listener)
    listener.listen({str(root): None})
    messages.until(lambda message: "listening" in message)


def test_where_the_extension_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is found without importing watchfiles; a watchfiles without it, or none at all, is no error."""
    monkeypatch.delitem(sys.modules, "watchfiles", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert listener_module.extension() is None
    save(tmp_path / "watchfiles" / "__init__.py", "raise RuntimeError")
    sys.path_importer_cache.clear()
    assert listener_module.extension() is None
    built = save(tmp_path / "watchfiles" / "_rust_notify.abi3.so", "")
    assert listener_module.extension() == str(built)
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert listener_module.extension() is None
