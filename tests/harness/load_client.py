"""A load client in a process of its own: N clients in one loop, one record a request.

Every client sends the next request when the answer is there. With `keep` a connection is used
again until the server announces `Connection: close`; an unannounced end is a failure, as it is
for a proxy that cannot know whether its request was done.
One JSON list a line: start, duration, version, pid, error ("" when all is well). The clock is the
machine's monotonic one, so another process can compare. A list of two, start and end, says when this
process itself did not run. The loop ends when stdin does.
Who failed asks again at once, and gives up when a thousand have; or, with a pause, after that, for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import time

PATIENCE = 30.0
# Who sleeps for no more than TICK, and comes back LATE, was not let run: a few answers take a thousandth of that.
TICK = 0.05
LATE = 0.1
GRACE = 10.0


class Client:
    """One visitor: connects, asks, reads, tells."""

    def __init__(self, selector: selectors.BaseSelector, port: int, keep: bool) -> None:
        self.selector = selector
        self.port = port
        self.keep = keep
        self.sock: socket.socket | None = None
        self.started = 0.0
        self.received = b""
        self.busy = False
        self.rests_until: float | None = None
        self.body: list[str] = []
        wish = "keep-alive" if keep else "close"
        self.request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {wish}\r\n\r\n".encode()

    def start(self) -> None:
        """Ask again, on the old connection if there is one."""
        self.started = time.monotonic()
        self.rests_until = None
        self.received = b""
        self.busy = True
        if self.sock is not None:
            self._send()
            return
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect_ex(("127.0.0.1", self.port))
        self.selector.register(self.sock, selectors.EVENT_WRITE, self)

    def go_on(self, pause: float) -> None:
        """Ask again, so many seconds later."""
        self.rests_until = time.monotonic() + pause
        if not pause:
            self.start()

    def start_rested(self) -> None:
        """Ask again, if it is time."""
        if self.rests_until is not None and time.monotonic() >= self.rests_until:
            self.start()

    def ready(self, events: int) -> str | None:
        """One step; the record's error text (or "") when the request is over."""
        assert self.sock is not None
        if events & selectors.EVENT_WRITE:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                return f"connect: {os.strerror(code)}"
            self.selector.modify(self.sock, selectors.EVENT_READ, self)
            self._send()
            return None
        return self._read()

    def _send(self) -> None:
        assert self.sock is not None
        # The read that follows meets the same end and tells it.
        with contextlib.suppress(OSError):
            self.sock.sendall(self.request)

    def _read(self) -> str | None:
        assert self.sock is not None
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return None
        except OSError as error:
            return f"read: {error.strerror} after {len(self.received)} bytes"
        if not data:
            return f"closed after {len(self.received)} bytes"
        self.received += data
        return self._judge()

    def _judge(self) -> str | None:
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return None
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if len(body) < int(headers.get("content-length", "0")):
            return None
        self.body = body.decode("latin-1").split()
        status = lines[0].split(" ")[1]
        if headers.get("connection", "").lower() == "close" or not self.keep:
            self.close()
        return "" if status == "200" and len(self.body) == 2 else f"status {status}: {body[:200]!r}"

    def close(self) -> None:
        """The server said close, or something went wrong."""
        if self.sock is not None:
            self.selector.unregister(self.sock)
            self.sock.close()
            self.sock = None

    def record(self, error: str) -> bytes:
        """The line that tells how the request went."""
        self.busy = False
        now = time.monotonic()
        version, pid = ("", 0) if error else (self.body[0], int(self.body[1]))
        if error:
            self.close()
        return json.dumps([self.started, now - self.started, version, pid, error]).encode() + b"\n"


def give_up(everyone: list[Client], stopped: float | None) -> list[bytes]:
    """The records of those who have waited for too long."""
    patience = GRACE if stopped is not None else PATIENCE
    lines = []
    for client in everyone:
        if client.busy and time.monotonic() - max(client.started, stopped or 0.0) > patience:
            lines.append(client.record(f"no answer within {patience:g} s"))
            if stopped is None:
                client.start()
    return lines


def main(port: int, clients: int, keep: bool, output: str, pause: float) -> None:
    """Ask until stdin ends, and then until every answer is there."""
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    out = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    everyone = [Client(selector, port, keep) for _ in range(clients)]
    for client in everyone:
        client.start()
    stopped: float | None = None
    failures = 0
    sleep, awake = pause or TICK, time.monotonic()
    while any(client.busy or client.rests_until is not None for client in everyone):
        lines = []
        for client in everyone:
            client.start_rested()
        for key, events in selector.select(sleep):
            if key.data is None:
                stopped = time.monotonic()
                selector.unregister(sys.stdin)
                for client in everyone:
                    client.rests_until = None
                continue
            error = key.data.ready(events)
            if error is None:
                continue
            lines.append(key.data.record(error))
            failures += bool(error)
            # A server that is gone refuses 100,000 times a second: enough is known by then.
            if stopped is None and (pause or failures < 1000):
                key.data.go_on(pause if error else 0.0)
        lines += give_up(everyone, stopped)
        now = time.monotonic()
        if now - awake > sleep + LATE:
            lines.append(json.dumps([awake + sleep, now]).encode() + b"\n")
        awake = now
        if lines:
            os.write(out, b"".join(lines))
    for client in everyone:
        client.close()
    selector.close()
    os.close(out)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "keep", sys.argv[4], float(sys.argv[5]))
