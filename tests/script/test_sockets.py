"""Addresses, and the sockets that a supervisor listens on."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsgi_reload_hooks.process.sockets import AddressError, bind, inherited, remove

pytestmark = pytest.mark.unit


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A place for a Unix socket, whose names must be short."""
    before = os.getcwd()
    os.chdir(tmp_path)
    yield Path("s")
    os.chdir(before)


@pytest.mark.parametrize(
    ("address", "host"),
    [("127.0.0.1:0", "127.0.0.1"), ("0", "127.0.0.1"), (":0", "127.0.0.1"), ("localhost:0", "127.0.0.1")],
)
def test_an_address_is_listened_on(address: str, host: str) -> None:
    """HOST:PORT, :PORT or PORT: a socket that takes connections, on this machine only unless told otherwise; port 0 is
    any.
    """
    with bind(address) as listening:
        port = listening.getsockname()[1]
        assert listening.getsockname() == (host, port)
        assert port > 0
        socket.create_connection((host, port), 5).close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_address_stands_in_brackets() -> None:
    """[IPV6]:PORT."""
    with bind("[::1]:0") as listening:
        assert listening.getsockname()[0] == "::1"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nowhere",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "::1:80",
        "[::1]",
        "no.such.host.invalid:80",
        "a..b:80",
        "x" * 70 + ":80",
        "192.0.2.1:0",
        "unix:",
        "unix:/no/such/folder/s",
        "unix:" + "x" * 200,
    ],
)
def test_a_bad_address_is_named(address: str, path: Path) -> None:
    """What cannot be listened on is an error of one line that names it."""
    with pytest.raises(AddressError) as caught:
        bind(address)
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_in_use_is_an_error() -> None:
    """Of two on one port the second is told, and no more than that."""
    with bind("127.0.0.1:0") as first:
        address = f"127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(AddressError, match=f"^{address} cannot be listened on: Address already in use$"):
            bind(address)


def test_a_unix_socket_leaves_no_file(path: Path) -> None:
    """`remove` closes the socket and takes its file away."""
    listening = bind(f"unix:{path}")
    assert path.is_socket()
    remove(listening)
    assert not path.exists()


def test_a_stale_socket_is_replaced(path: Path) -> None:
    """The file of one who has ended without a word is no obstacle."""
    bind(f"unix:{path}").close()
    assert path.is_socket()
    remove(bind(f"unix:{path}"))


def test_a_live_socket_is_not_taken(path: Path) -> None:
    """Where somebody listens, there is no second one, also when the first is too busy to answer."""
    with contextlib.ExitStack() as stack:
        first, visitor = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        first.bind(str(path))
        first.listen(0)
        with pytest.raises(AddressError, match="in use"):
            bind(f"unix:{path}")
        visitor.setblocking(False)
        while visitor.connect_ex(str(path)) == 0:
            visitor = stack.enter_context(socket.socket(socket.AF_UNIX))
            visitor.setblocking(False)
        with pytest.raises(AddressError, match="in use"):
            bind(f"unix:{path}")
        assert path.is_socket()


def test_another_file_is_not_taken(path: Path) -> None:
    """A file that is no socket stays as it is."""
    path.write_text("precious")
    with pytest.raises(AddressError, match="in use"):
        bind(f"unix:{path}")
    assert path.read_text() == "precious"


def test_the_file_of_a_successor_stays(path: Path) -> None:
    """Who has put a socket of its own in the place of ours keeps it."""
    first = bind(f"unix:{path}")
    path.unlink()
    with bind(f"unix:{path}"):
        remove(first)
        assert path.is_socket()


def test_descriptors_are_for_one_process() -> None:
    """`LISTEN_FDS` counts only with our own pid in `LISTEN_PID`, and only where it is a number."""
    own = str(os.getpid())
    assert inherited({"LISTEN_PID": own, "LISTEN_FDS": "2"}) == [3, 4]
    assert inherited({"LISTEN_PID": "1", "LISTEN_FDS": "2"}) == []
    assert inherited({"LISTEN_PID": own, "LISTEN_FDS": "some"}) == []
    assert inherited({"LISTEN_PID": own}) == []
    assert inherited({"LISTEN_FDS": "2"}) == []
