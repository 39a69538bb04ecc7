"""The numbers by which workers notice that they are to forget something."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from edits import python

from wsgi_reload_hooks.process.counters import TEMPLATES, TRANSLATIONS, Generation, differing

pytestmark = pytest.mark.unit

FORKED = """
import os
from wsgi_reload_hooks.process.counters import KINDS, TEMPLATES, TRANSLATIONS, Generation, differing

numbers = Generation(path)
before = numbers.now()
wait, go = os.pipe()
if os.fork() == 0:
    os.read(wait, 1)
    print(*differing(before, numbers.now()), flush=True)
    os._exit(0)
numbers.advance(TEMPLATES)
os.write(go, b".")
os.wait()
numbers.advance(TRANSLATIONS)
print(*sorted(differing(before, numbers.now())))
"""


@pytest.mark.parametrize("path", [None, "numbers"], ids=["memory", "file"])
def test_a_forked_child_notices(path: str | None, tmp_path: Path) -> None:
    """What is raised after a fork the child sees, each kind by itself."""
    shown = python(FORKED, tmp_path, preamble=f"path = {path!r}\n")
    assert shown.split() == [TEMPLATES, TEMPLATES, TRANSLATIONS]


def test_another_process_goes_on_from_there(tmp_path: Path) -> None:
    """Who opens the file later reads what was raised, and raises it further; nobody else may read it."""
    path = tmp_path / "numbers"
    first = Generation(str(path))
    before = first.now()
    first.advance(TEMPLATES)
    second = Generation(str(path))
    assert second.now() == first.now() != before
    second.advance(TEMPLATES)
    assert second.now() == first.now()
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["numbers"]


def test_a_file_that_was_cleaned_away(tmp_path: Path) -> None:
    """It is made again, and those who had the one before come to the same by themselves."""
    path = tmp_path / "numbers"
    watching, worker = Generation(str(path)), Generation(str(path))
    watching.advance(TEMPLATES)
    seen = worker.now()
    path.unlink()
    watching.advance(TRANSLATIONS)
    worker.renew()
    assert differing(seen, worker.now()) == {TRANSLATIONS}
    path.unlink()
    tmp_path.rename(tmp_path.with_name("gone"))
    seen = worker.now()
    worker.renew()
    assert worker.now() == seen


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link in the place of the file is an error."""
    (tmp_path / "elsewhere").write_bytes(bytes(64))
    os.symlink("elsewhere", tmp_path / "numbers")
    with pytest.raises(OSError, match="numbers"):
        Generation(str(tmp_path / "numbers"))
