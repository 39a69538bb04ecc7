"""The pipe by which a worker is asked to exit: which process gets a request, and what happens without one."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path

import pytest

from wsgi_reload_hooks.uwsgi.graceful_exit import ExitRequests, request_exit

pytestmark = pytest.mark.unit


def test_it_is_heard_once(tmp_path: Path) -> None:
    """By whom it is meant for; `select` wakes up."""
    path = str(tmp_path / "bell")
    requests = ExitRequests(path)
    try:
        assert not requests.received()
        assert select.select([requests], [], [], 0.0)[0] == []
        assert request_exit(path, os.getpid())
        assert select.select([requests], [], [], 0.0)[0] == [requests]
        assert requests.received()
        assert not requests.received()
    finally:
        requests.close()


def test_the_process_that_was_there_before_is_not_meant(tmp_path: Path) -> None:
    """A worker that has just begun does not go because its predecessor was to."""
    path = str(tmp_path / "bell")
    requests = ExitRequests(path)
    try:
        assert request_exit(path, os.getpid() * 10)
        assert not requests.received()
        assert request_exit(path, 7) and request_exit(path, os.getpid()) and request_exit(path, 7)
        assert requests.received()
    finally:
        requests.close()


def test_nobody_has_it(tmp_path: Path) -> None:
    """No bell, one whose owner has died, one that is full, something else in its place: the answer is no, at once."""
    path = str(tmp_path / "bell")
    assert not request_exit(path, 7)
    os.mkfifo(path)
    assert not request_exit(path, 7)
    requests = ExitRequests(path)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(requests.fileno(), b"7\n" * 2048)
        assert not request_exit(path, 7)
        assert not requests.received()
    finally:
        requests.close()
    (tmp_path / "other").write_text("as it was")
    (tmp_path / "bell").symlink_to("other")
    assert not request_exit(path, 7)
    assert (tmp_path / "other").read_text() == "as it was"


def test_it_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    """What somebody left behind, or planted, is not followed. The end removes it, and may come twice."""
    (tmp_path / "other").write_text("as it was")
    (tmp_path / "bell").symlink_to("other")
    requests = ExitRequests(str(tmp_path / "bell"))
    assert request_exit(str(tmp_path / "bell"), os.getpid())
    assert requests.received()
    requests.close()
    requests.close()
    assert not requests.received()
    assert sorted(os.listdir(tmp_path)) == ["other"]
    assert (tmp_path / "other").read_text() == "as it was"


def test_a_place_where_none_can_be(tmp_path: Path) -> None:
    """A folder that is gone, for example."""
    with pytest.raises(FileNotFoundError):
        ExitRequests(str(tmp_path / "nowhere" / "bell"))
