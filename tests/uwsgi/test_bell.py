"""The bell: whom it reaches, and who has none."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path

import pytest

from wsgi_reload_hooks.uwsgi.exit_request import Bell, ring

pytestmark = pytest.mark.unit


def test_it_is_heard_once(tmp_path: Path) -> None:
    """By whom it is meant for; `select` wakes up."""
    path = str(tmp_path / "bell")
    bell = Bell(path)
    try:
        assert not bell.rang()
        assert select.select([bell], [], [], 0.0)[0] == []
        assert ring(path, os.getpid())
        assert select.select([bell], [], [], 0.0)[0] == [bell]
        assert bell.rang()
        assert not bell.rang()
    finally:
        bell.close()


def test_the_process_that_was_there_before_is_not_meant(tmp_path: Path) -> None:
    """A worker that has just begun does not go because its predecessor was to."""
    path = str(tmp_path / "bell")
    bell = Bell(path)
    try:
        assert ring(path, os.getpid() * 10)
        assert not bell.rang()
        assert ring(path, 7) and ring(path, os.getpid()) and ring(path, 7)
        assert bell.rang()
    finally:
        bell.close()


def test_nobody_has_it(tmp_path: Path) -> None:
    """No bell, one whose owner has died, one that is full, something else in its place: the answer is no, at once."""
    path = str(tmp_path / "bell")
    assert not ring(path, 7)
    os.mkfifo(path)
    assert not ring(path, 7)
    bell = Bell(path)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(bell.fileno(), b"7\n" * 2048)
        assert not ring(path, 7)
        assert not bell.rang()
    finally:
        bell.close()
    (tmp_path / "other").write_text("as it was")
    (tmp_path / "bell").symlink_to("other")
    assert not ring(path, 7)
    assert (tmp_path / "other").read_text() == "as it was"


def test_it_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    """What somebody left behind, or planted, is not followed. The end removes it, and may come twice."""
    (tmp_path / "other").write_text("as it was")
    (tmp_path / "bell").symlink_to("other")
    bell = Bell(str(tmp_path / "bell"))
    assert ring(str(tmp_path / "bell"), os.getpid())
    assert bell.rang()
    bell.close()
    bell.close()
    assert not bell.rang()
    assert sorted(os.listdir(tmp_path)) == ["other"]
    assert (tmp_path / "other").read_text() == "as it was"


def test_a_place_where_none_can_be(tmp_path: Path) -> None:
    """A folder that is gone, for example."""
    with pytest.raises(FileNotFoundError):
        Bell(str(tmp_path / "nowhere" / "bell"))
