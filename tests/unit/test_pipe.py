"""Messages of many workers over one pipe: none is lost, none is mixed up, nobody waits."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wsgi_reload_hooks.process.pipe import Message, Reports, Sender

pytestmark = pytest.mark.unit

BIG = "x" * 50_000


@pytest.fixture
def reports() -> Iterator[Reports]:
    """A pipe."""
    reports = Reports()
    yield reports
    reports.close()


def sender(reports: Reports, pid: int = 7) -> Sender:
    """A worker's end in this process."""
    return Sender(reports.writer, pid)


def fork(reports: Reports, work: Callable[[Sender], None]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reports.reader)
            work(Sender(reports.writer))
            status = 0
        finally:
            os._exit(status)
    return pid


def received(reports: Reports) -> list[tuple[int, Message]]:
    messages: list[tuple[int, Message]] = []
    while True:
        data = reports.read()
        if not data:
            return messages
        messages += reports.decode(data)


def fill(fd: int) -> int:
    """Fill the pipe to the last byte; how many there are now."""
    size = 0
    for piece in (4096, 1):
        while True:
            try:
                size += os.write(fd, b"\0" * piece)
            except BlockingIOError:
                break
    return size


def frame(text: bytes, pid: int = 7, last: bool = True, length: int | None = None) -> bytes:
    return struct.pack(">HIB", len(text) + 7 if length is None else length, pid, last) + text


def test_nothing_yet(reports: Reports) -> None:
    """An empty pipe is no message, and reading it does not wait."""
    assert reports.read() == b"" and reports.decode(b"") == []


@pytest.mark.parametrize("size", [0, 1, 4000, 4060, 4061, 4062, 4089, 5000, 100_000, 900_000])
def test_messages_of_any_size(reports: Reports, size: int) -> None:
    """A message arrives as it was sent, be it larger than what a pipe takes at once."""
    worker = sender(reports)
    worker.send("loaded", path="ü" + "x" * size, signature=(1, 2, 3))
    messages = received(reports)
    while worker._backlog:
        worker.flush()
        messages += received(reports)
    assert messages == [(7, {"kind": "loaded", "path": "ü" + "x" * size, "signature": [1, 2, 3]})]


def test_undecodable_names(reports: Reports) -> None:
    """A path that is no proper text arrives as it was sent."""
    name = os.fsdecode(b"/a\xff\n")
    sender(reports).send("loaded", path=name)
    assert received(reports) == [(7, {"kind": "loaded", "path": name})]


@pytest.mark.parametrize("cut", [1, 6, 7, 8, 100])
def test_read_in_pieces(reports: Reports, cut: int) -> None:
    """Where a read happens to end does not matter."""
    worker = sender(reports)
    for number in range(5):
        worker.send("n", number=number, text="x" * 5000)
    data = reports.read()
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]
    messages = [message for piece in pieces for message in reports.decode(piece)]
    assert [message["number"] for _, message in messages] == list(range(5))


def test_many_writers(reports: Reports) -> None:
    """Several processes send small and big messages at once: all arrive whole, each sender's in order."""

    def work(worker: Sender) -> None:
        for number in range(60):
            worker.send("n", number=number, text=BIG if number % 10 == 0 else "small")
        while worker._backlog:
            worker.flush()

    pids = {fork(reports, work) for _ in range(4)}
    messages: list[tuple[int, Message]] = []
    alive = set(pids)
    while alive:
        messages += received(reports)
        for pid in list(alive):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                assert status == 0
                alive.discard(pid)
    messages += received(reports)
    for pid in pids:
        own = [message for sent_by, message in messages if sent_by == pid]
        assert [message["number"] for message in own] == list(range(60))
        assert all(message["text"] == (BIG if message["number"] % 10 == 0 else "small") for message in own)
    assert len(messages) == 4 * 60


def test_full_pipe_blocks_nobody_and_loses_nothing(reports: Reports) -> None:
    """What does not fit is kept, and sent in order with later calls."""
    worker = sender(reports)
    filled = fill(reports.writer)
    for number in range(20):
        worker.send("n", number=number, text=BIG)
    while filled:
        filled -= len(os.read(reports.reader, filled))
    messages = received(reports)
    assert messages == []
    while worker._backlog:
        worker.flush()
        messages += received(reports)
    assert [message["number"] for _, message in messages] == list(range(20))


def test_master_that_is_gone(reports: Reports) -> None:
    """A worker whose master is gone notices nothing."""
    worker = sender(reports)
    os.close(reports.reader)
    worker.send("n", text=BIG)
    worker.flush()
    assert not worker._backlog
    reports.reader = os.dup(reports.writer)


def test_message_from_within_a_message(reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal handler sends while a message is being written does no harm to others' messages."""
    worker = sender(reports)
    write = os.write
    entered: list[int] = []

    def interrupted(fd: int, data: bytes) -> int:
        if not entered:
            entered.append(fd)
            worker.send("refused", reason="handler")
        return write(fd, data)

    monkeypatch.setattr(os, "write", interrupted)
    worker.send("n", number=1)
    worker.send("n", number=2)
    assert [message.get("number", message["kind"]) for _, message in received(reports)] == ["refused", 1, 2]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 100,
        b"\xff" * 9000,
        b"Traceback (most recent call last):\n" * 50,
        frame(b"", length=0),
        frame(b"abc", length=6),
        frame(b"not JSON"),
        frame(b"\xff\xfe"),
        frame(b"5"),
        frame(b"null"),
        frame(b'["kind"]'),
        frame(b'{"no kind": 1}'),
        frame(b"[" * 4000, last=False) * 200 + frame(b"["),
        frame(b"x" * 4000, last=False) * 2000 + frame(b""),
    ],
)
def test_garbage_is_dropped(reports: Reports, garbage: bytes) -> None:
    """What is no message of ours is dropped without an error, and the next read is understood again."""
    assert reports.decode(garbage) == []
    reports.decode(b"\0" * 9000)
    assert reports.decode(frame(json.dumps({"kind": "n"}).encode())) == [(7, {"kind": "n"})]


def test_messages_before_garbage_count(reports: Reports) -> None:
    """What was said before garbage came is heard."""
    data: Any = frame(b'{"kind": "n"}') + b"\0" * 50
    assert reports.decode(data) == [(7, {"kind": "n"})]
