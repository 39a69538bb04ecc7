"""The web servers of `serve`, in this process."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable
from wsgiref.validate import validator

import pytest
from harness import EACH_KIND, HAVE_WAITRESS, wait_until
from harness.serve import closed, talk
from harness.waiting import LIMIT

from wsgi_reload_hooks.sockets import bind, remove
from wsgi_reload_hooks.web import WebServer, best, make_server, version

ASK = b"GET /a%20b?c=d HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n"
ASK_AND_STAY = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
TOLD = [
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "REMOTE_ADDR",
    "REQUEST_METHOD",
    "PATH_INFO",
    "QUERY_STRING",
    "SCRIPT_NAME",
    "HTTP_HOST",
    "wsgi.url_scheme",
    "wsgi.multithread",
    "wsgi.multiprocess",
    "wsgi.run_once",
]


def tell(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """An application that answers what it was told."""
    body = json.dumps({name: environ.get(name) for name in TOLD}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def count(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """An application that answers how many bytes it was sent."""
    body = str(len(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class Gate:
    """An application whose answer begins, waits to be let through, and ends."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.closed = threading.Event()
        self.streams = True

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/quick":
            start_response("200 OK", [("Content-Length", "5")])
            return [b"quick"]
        if not self.streams:
            self._wait()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "7")])
        return Parts(self)

    def _wait(self) -> None:
        self.begun.set()
        assert self.go.wait(LIMIT)


class Parts:
    """The two halves of the answer."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __iter__(self) -> Iterator[bytes]:
        yield b"one"
        if self._gate.streams:
            self._gate._wait()
        yield b"more"

    def close(self) -> None:
        self._gate.closed.set()


class Running:
    """A web server in a thread."""

    def __init__(self, kind: str, app: Any, listening: list[socket.socket]) -> None:
        self._listening = listening
        self._server: WebServer = make_server(kind, app, listening)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()

    def connect(self, place: int = 0) -> socket.socket:
        """A connection that says nothing yet."""
        one = self._listening[place]
        visitor = socket.socket(one.family)
        visitor.settimeout(LIMIT)
        visitor.connect(one.getsockname())
        return visitor

    def ask(self, request: bytes = ASK, place: int = 0) -> str:
        with self.connect(place) as visitor:
            return talk(visitor, request)

    def stop(self) -> None:
        self._server.stop()

    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def end(self) -> None:
        self._server.stop()
        self._thread.join(LIMIT)
        assert self.is_over(), "it did not end"


Serving = Callable[..., Running]


@pytest.fixture
def serving(kind: str) -> Iterator[Serving]:
    """Begin to serve an application, on a port of its own or on the sockets given; it ends with the test."""
    with contextlib.ExitStack() as undo:

        def begin(app: Any, *addresses: str) -> Running:
            # A copy, as the program has one of the supervisor's.
            held = [bind(each) for each in addresses or ["127.0.0.1:0"]]
            for each in held:
                undo.callback(remove, each)
            running = Running(kind, app, [each.dup() for each in held])
            undo.callback(close_all, running)
            undo.callback(running.end)
            return running

        yield begin


def close_all(running: Running) -> None:
    for each in running._listening:
        each.close()


@EACH_KIND
@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "unix:s"])
def test_an_application_is_told_the_truth(
    address: str, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Server, client and threads are what they are, at each kind of address, and nothing asks a name server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "getfqdn", None)
    running = serving(tell, address)
    head, _, body = running.ask().partition("\r\n\r\n")
    told = json.loads(body)
    here = running._listening[0].getsockname()
    name, port = ("localhost", "80") if isinstance(here, str) else (here[0], str(here[1]))
    assert " 200 OK" in head
    assert (told["SERVER_NAME"], told["SERVER_PORT"]) == (name, port)
    assert told["REMOTE_ADDR"] == name
    assert told["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert (told["REQUEST_METHOD"], told["SCRIPT_NAME"]) == ("GET", "")
    assert (told["PATH_INFO"], told["QUERY_STRING"], told["HTTP_HOST"]) == ("/a b", "c=d", "example.org")
    assert told["wsgi.url_scheme"] == "http"
    assert (told["wsgi.multithread"], told["wsgi.multiprocess"], told["wsgi.run_once"]) == (True, False, False)


@EACH_KIND
def test_it_keeps_to_the_standard(serving: Serving) -> None:
    """`wsgiref.validate` has nothing to say about it."""
    running = serving(validator(tell))
    assert '"PATH_INFO": "/a b"' in running.ask()


@EACH_KIND
def test_sockets_of_every_kind_at_a_time(serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several sockets, some with a port and some with a path, are served alike, each with its own name."""
    monkeypatch.chdir(tmp_path)
    running = serving(tell, "127.0.0.1:0", "unix:s", "127.0.0.1:0")
    ports = [json.loads(running.ask(place=place).partition("\r\n\r\n")[2])["SERVER_PORT"] for place in range(3)]
    assert ports == [str(running._listening[0].getsockname()[1]), "80", str(running._listening[2].getsockname()[1])]


@EACH_KIND
def test_a_client_that_waits_is_told_to_go_on(serving: Serving) -> None:
    """`Expect: 100-continue` is answered before the body is sent."""
    running = serving(count)
    with running.connect() as visitor:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        assert talk(visitor, head, until=b"\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n"
        answer = talk(visitor, b"12345")
        assert " 200 OK" in answer and answer.endswith("\r\n\r\n5")


@EACH_KIND
@pytest.mark.parametrize("streams", [True, False])
def test_what_was_begun_is_finished(streams: bool, serving: Serving) -> None:
    """Told to stop, it ends when the answers are out, half sent or not begun."""
    gate = Gate()
    gate.streams = streams
    running = serving(gate)
    with running.connect() as visitor:
        visitor.sendall(ASK)
        assert gate.begun.wait(LIMIT)
        running.stop()
        gate.go.set()
        assert talk(visitor, b"").endswith("onemore")
    wait_until(running.is_over, "it ends")


@EACH_KIND
def test_an_upload_is_finished(serving: Serving) -> None:
    """Told to stop in the middle of a large upload, it takes the rest and answers."""
    size = 4_000_000
    running = serving(count)
    with running.connect() as visitor:
        visitor.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
        visitor.sendall(b"x" * (size // 2))
        # Both are taken one after the other: when this one has its answer, that one is no longer in the queue.
        running.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        running.stop()
        visitor.sendall(b"x" * (size - size // 2))
        assert talk(visitor, b"").endswith(f"\r\n\r\n{size}")
    wait_until(running.is_over, "it ends")


@EACH_KIND
def test_idle_connections_do_not_hold_it(serving: Serving) -> None:
    """Connections that a browser opened in advance are closed soon after the stop, whether one was used or not."""
    running = serving(tell)
    with running.connect() as unused, running.connect() as used:
        # Where connections are kept: after an answer.
        talk(used, ASK_AND_STAY, until=b"}")
        running.stop()
        wait_until(running.is_over, "it ends")
        assert closed(unused)
        assert closed(used)


@EACH_KIND
def test_a_late_request_is_still_answered(serving: Serving) -> None:
    """Who had connected before the stop and asks right after it gets an answer."""
    running = serving(tell)
    with running.connect() as visitor:
        # Both are taken one after the other: when this one has its answer, that one is no longer in the queue.
        running.ask()
        running.stop()
        assert " 200 OK" in talk(visitor, ASK)


@pytest.mark.skipif(not HAVE_WAITRESS, reason="waitress is not installed")
@pytest.mark.parametrize("kind", ["waitress"])
def test_a_kept_connection_is_told_of_the_end(serving: Serving) -> None:
    """A client that keeps its connection hears with its next answer that it is the last one."""
    running = serving(tell)
    with running.connect() as visitor:
        assert "Connection: close" not in talk(visitor, ASK_AND_STAY, until=b"}")
        running.stop()
        assert "Connection: close" in talk(visitor, ASK_AND_STAY, until=b"}")
        assert closed(visitor)


@pytest.mark.skipif(not HAVE_WAITRESS, reason="waitress is not installed")
@pytest.mark.parametrize("kind", ["waitress"])
def test_a_connection_whose_answer_was_begun_before_is_not_closed_at_once(serving: Serving) -> None:
    """An answer that began before the stop and ends long after it could not say that it is the last: the client may ask
    once more.
    """
    gate = Gate()
    running = serving(gate)
    with running.connect() as visitor:
        visitor.sendall(ASK_AND_STAY)
        assert gate.begun.wait(LIMIT)
        running.stop()
        stopped = time.monotonic()
        wait_until(lambda: time.monotonic() > stopped + 1.2, "an idle connection would be closed by now")
        gate.go.set()
        assert talk(visitor, b"", until=b"onemore")
        answer = talk(visitor, b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n", until=b"quick")
        assert "Connection: close" in answer and answer.endswith("quick")


@EACH_KIND
def test_work_for_a_client_who_has_left_is_finished(
    serving: Serving, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told to stop while a client hangs up: the application comes to its end all the same, and no traceback is shown."""
    gate = Gate()
    gate.streams = False
    running = serving(gate)
    with running.connect() as visitor:
        visitor.sendall(ASK)
        assert gate.begun.wait(LIMIT)
        # Not by the book: the connection is reset.
        visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    running.stop()
    assert not running.is_over()
    gate.go.set()
    wait_until(running.is_over, "it ends")
    assert gate.closed.is_set()
    assert "Traceback" not in capsys.readouterr().err


@EACH_KIND
def test_a_client_that_resets_is_no_news(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """Who connects and is gone without a word leaves no traceback, and the next one is served."""
    running = serving(tell)
    with running.connect() as visitor:
        visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with running.connect() as visitor:
        visitor.sendall(b"GET / HT")
    assert " 200 OK" in running.ask()
    assert "Traceback" not in capsys.readouterr().err


@EACH_KIND
def test_an_application_that_raises_answers_500(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """The client gets no traceback; the server goes on."""

    def raises(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise LookupError("private")

    running = serving(raises)
    for _ in range(2):
        answer = running.ask()
        assert " 500 " in answer
        assert "private" not in answer


@pytest.mark.parametrize("installed", [True, False])
def test_waitress_is_the_best_where_it_is(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, it is wsgiref."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    assert best() == ("waitress" if installed else "wsgiref")


def test_versions() -> None:
    """The log names the web server and its version."""
    assert version("wsgiref") == f"wsgiref of Python {sys.version_info[0]}.{sys.version_info[1]}"
    if HAVE_WAITRESS:
        assert version("waitress").startswith("waitress ")
