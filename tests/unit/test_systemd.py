"""What systemd is told."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsgi_reload_hooks.report import systemd

pytestmark = pytest.mark.unit


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The other end, by either kind of address."""
    if request.param == "abstract" and not os.path.exists("/proc"):
        pytest.skip("only Linux has abstract addresses")
    name = str(tmp_path / "notify") if request.param == "path" else f"@wsgi-reload-hooks-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        channel.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield channel


def test_what_is_sent(manager: socket.socket) -> None:
    """A reload with the steady clock in microseconds, its end with a status of one line, a status alone."""
    before = time.monotonic()
    systemd.reloading()
    first, second = manager.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before - 0.001 <= int(second.removeprefix("MONOTONIC_USEC=")) / 1e6 <= time.monotonic()
    systemd.ready("reloaded: a\nREADY=0\x1b.py")
    assert manager.recv(4096).decode() == "READY=1\nSTATUS=reloaded: a\\nREADY=0\\x1b.py"
    systemd.status("x" * 5000)
    assert manager.recv(8192).decode() == "STATUS=" + "x" * 400
    systemd.status("a\udcff.py")
    assert manager.recv(4096).decode() == "STATUS=a\\udcff.py"


def test_a_manager_that_does_not_listen(manager: socket.socket) -> None:
    """Nobody waits for one whose queue is full."""
    began = time.monotonic()
    for _ in range(2000):
        systemd.status("x" * 400)
    assert time.monotonic() - began < 5.0
    assert manager.recv(4096).decode() == "STATUS=" + "x" * 400


@pytest.mark.parametrize(
    "address", [None, "", "relative", "/no/such/socket", "/" + "x" * 200, "@" + "x" * 200, "vsock:2:1"]
)
def test_without_a_manager(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No address, or one that leads nowhere, is no error, and leaves no file open."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    before = len(os.listdir("/dev/fd"))
    systemd.reloading()
    systemd.ready("ready")
    assert len(os.listdir("/dev/fd")) == before
