"""Requests to an application in its own process, before anybody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from wsgi_reload_hooks.core.settings import Settings
from wsgi_reload_hooks.trial.warmup import Failed, warm_up, warm_up_asgi

pytestmark = pytest.mark.unit

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Recorder:
    """A WSGI application that keeps what it was asked."""

    def __init__(self, status: str = "200 OK") -> None:
        self.status = status
        self.asked: list[dict[str, Any]] = []
        self.closed = self.read = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Recorder:
        self.asked.append(environ)
        start_response(self.status, [])
        return self

    def __iter__(self) -> Iterator[bytes]:
        self.read += 1
        yield b"x"

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", ("http", "localhost", "80", "localhost", "/", "")),
        ("/a%20b/%C3%A9?x=1&y=%20", ("http", "localhost", "80", "localhost", "/a b/\xc3\xa9", "x=1&y=%20")),
        ("https://shop.example/healthz", ("https", "shop.example", "443", "shop.example", "/healthz", "")),
        ("http://shop.example:8080", ("http", "shop.example", "8080", "shop.example:8080", "/", "")),
    ],
)
def test_what_is_asked(target: str, expected: tuple[str, ...]) -> None:
    """A path, or a URL where host and scheme matter; the answer is read to its end and closed."""
    app = Recorder()
    warm_up(app, [target])
    (environ,) = app.asked
    names = ("wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "HTTP_HOST", "PATH_INFO", "QUERY_STRING")
    assert tuple(environ[name] for name in names) == expected
    assert environ["REQUEST_METHOD"] == "GET" and environ["wsgi.input"].read() == b""
    assert (app.read, app.closed) == (1, 1)


def test_a_valid_environ() -> None:
    """The standard library's checker of WSGI has nothing to say."""
    from wsgiref.validate import validator

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x"]

    warm_up(validator(app), ["/", "/?a=b"])


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "404 Not Found", "499 Odd"])
def test_what_is_good_enough(status: str) -> None:
    """All that is no error of the server's."""
    app = Recorder(status)
    warm_up(app, ["/", "/more"])
    assert len(app.asked) == 2


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "nonsense"])
def test_what_is_refused(status: str) -> None:
    """An error of the server's, told with the request; what comes after is not asked, and the answer is closed."""
    app = Recorder(status)
    with pytest.raises(Failed, match=f"^GET /healthz was answered with {status}$"):
        warm_up(app, ["/healthz", "/more"])
    assert (len(app.asked), app.closed) == (1, 1)


def test_an_exception_is_the_applications_own() -> None:
    """Raised at the call, or amid the answer: what was begun is closed."""

    class Failing(Recorder):
        def __iter__(self) -> Iterator[bytes]:
            raise ZeroDivisionError

    app = Failing()
    with pytest.raises(ZeroDivisionError):
        warm_up(app, ["/"])
    assert app.closed == 1


def test_an_answer_that_begins_late() -> None:
    """A generator says its status when the first part of it is asked for."""

    def late(environ: object, start_response: Callable[..., object]) -> Iterator[bytes]:
        start_response("500 Late", [])
        yield b"x"

    with pytest.raises(Failed, match="500 Late"):
        warm_up(late, ["/"])


def test_no_status_at_all() -> None:
    """An application that never says one is refused."""
    with pytest.raises(Failed, match="no status"):
        warm_up(lambda environ, start_response: [b"x"], ["/"])


def answering(status: int) -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert (await receive()) == {"type": "http.request", "body": b"", "more_body": False}
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    return app


def test_asgi() -> None:
    """An ASGI application is asked in its event loop, by the same rules."""
    asyncio.run(warm_up_asgi(answering(204), ["/", "/more"]))
    with pytest.raises(Failed, match="GET /healthz was answered with 500"):
        asyncio.run(warm_up_asgi(answering(500), ["/healthz"]))


def test_asgi_visitors_wait_for_the_end_of_the_answer() -> None:
    """A framework that listens for those who leave hears nothing before the answer is complete."""
    heard: list[str] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        leaving = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        heard.append("left" if leaving.done() else "there")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(0)
        heard.append("left" if leaving.done() else "there")
        await send({"type": "http.response.body", "body": b""})
        heard.append((await leaving)["type"])

    asyncio.run(warm_up_asgi(app, ["/"]))
    assert heard == ["there", "there", "http.disconnect"]


def test_asgi_requests_have_the_state_of_the_lifespan() -> None:
    """A copy each; none where there is none."""
    seen: list[object] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        seen.append(dict(scope.get("state", {"none": True})))
        scope.get("state", {})["mine"] = True
        await answering(200)(scope, receive, send)

    asyncio.run(warm_up_asgi(app, ["/", "/more"], {"pool": 1}))
    asyncio.run(warm_up_asgi(app, ["/"]))
    assert seen == [{"pool": 1}, {"pool": 1}, {"none": True}]


def test_the_setting() -> None:
    """One path or more, with commas between them in the environment; none by default."""
    assert Settings.load(environ={"WSGI_RELOAD_WARMUP": "/healthz, /?q=1"}).warmup == ("/healthz", "/?q=1")
    assert Settings.load(environ={}).warmup == ()
