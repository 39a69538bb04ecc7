"""Sources are compiled in a process of their own: whatever they are, the one that decides goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from edits import save
from harness import wait_until

from wsgi_reload_hooks.process.helper import Helper
from wsgi_reload_hooks.process.safe_read import NoRegularFile, TooLarge, safe_read
from wsgi_reload_hooks.trial.compile_first import CompileFirst
from wsgi_reload_hooks.trial.plan import Outcome
from wsgi_reload_hooks.trial.trial import FinishedTrial

pytestmark = pytest.mark.unit

GOOD = Outcome(None, {}, 0.0)
# CPython 3.12 and 3.13 die of it, the others refuse it.
NESTED = "x = " + "[" * 30 + "1" + " for a in b]" * 30 + "\n"


@pytest.fixture
def helper() -> Iterator[Helper]:
    helper = Helper(sys.executable)
    yield helper
    helper.close()


def outcome(helper: Helper, *paths: Path, timeout: float = 60.0) -> Outcome:
    """What comes of compiling *paths*."""
    trial = CompileFirst(helper, map(str, paths), lambda: FinishedTrial(GOOD), timeout)
    return wait_until(trial.poll, "it is compiled", 60.0)


def refused(helper: Helper, path: Path, timeout: float = 60.0) -> str:
    why = outcome(helper, path, timeout=timeout).refused
    assert why is not None and why.path == str(path) and why.files == (str(path),)
    return why.reason


def test_good_sources_go_on_to_the_next_trial(helper: Helper, tmp_path: Path) -> None:
    """A file that is gone, or is no source, does not count."""
    good, other = save(tmp_path / "good.py", "x = 1\n"), save(tmp_path / "data.txt", "(")
    assert outcome(helper, good, other, tmp_path / "gone.py") is GOOD
    assert outcome(helper) is GOOD


def test_broken_source_is_refused_with_its_line(helper: Helper, tmp_path: Path) -> None:
    """The other sources may be good."""
    good, bad = save(tmp_path / "a.py", "x = 1\n"), save(tmp_path / "b.py", "x = 1\ndef (:\n")
    why = outcome(helper, good, bad).refused
    assert why is not None and (why.path, why.line) == (str(bad), 2) and "SyntaxError" in why.reason
    assert "def (:" in why.traceback
    assert outcome(helper, good) is GOOD


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\0\n", "null bytes"),
        ("# coding: no-such-coding\n", "unknown encoding"),
        ("\N{LATIN SMALL LETTER E}\xff(", ""),
    ],
)
def test_odd_text_is_refused(helper: Helper, tmp_path: Path, text: str, reason: str) -> None:
    """With what Python says of it."""
    assert reason in refused(helper, save(tmp_path / "odd.py", text))


def test_what_is_no_file_is_refused(helper: Helper, tmp_path: Path) -> None:
    """A FIFO without a writer, a directory, an endless device, a loop of links, 15 MB of data: nothing hangs."""
    fifo, folder, zero, loop, large = (tmp_path / f"{name}.py" for name in ("fifo", "folder", "zero", "loop", "large"))
    os.mkfifo(fifo)
    folder.mkdir()
    zero.symlink_to("/dev/zero")
    loop.symlink_to(loop)
    large.write_bytes(b"x = 1\n" * 2_500_000)
    for path in (fifo, folder, zero):
        assert refused(helper, path) == "is no regular file"
    assert "symbolic links" in refused(helper, loop)
    assert "is larger than" in refused(helper, large)


def test_source_that_ends_the_compiler_is_refused(tmp_path: Path) -> None:
    """It is found among others; the next save is compiled by a new helper. (A compiler that dies of one name.)"""
    compiler = save(
        tmp_path / "python",
        f"#!{sys.executable}\nimport json, os, sys\nfor line in sys.stdin:\n    'nested' in line and os.abort()\n"
        "    print(json.dumps({'number': json.loads(line)['number'], 'refused': None}), flush=True)\n",
    )
    compiler.chmod(0o755)
    helper = Helper(str(compiler))
    nested, good = save(tmp_path / "nested.py", ""), save(tmp_path / "good.py", "")
    why = outcome(helper, good, nested).refused
    assert why is not None and why.path == str(nested) and "ends the process" in why.reason
    assert outcome(helper, good) is GOOD
    helper.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="older compilers take it")
def test_nested_comprehensions_are_refused(helper: Helper, tmp_path: Path) -> None:
    """One kilobyte of them ends CPython 3.12 and 3.13."""
    refused(helper, save(tmp_path / "nested.py", NESTED))


def test_helper_that_is_killed_once_is_started_again(helper: Helper, tmp_path: Path) -> None:
    """That says nothing about the code."""
    good = save(tmp_path / "good.py", "x = 1\n")
    assert outcome(helper, good) is GOOD
    killed = helper.pid
    os.kill(killed, 9)
    assert outcome(helper, good) is GOOD
    with pytest.raises(ChildProcessError):
        os.waitpid(killed, os.WNOHANG)


def test_cancelled_while_it_compiles(helper: Helper, tmp_path: Path) -> None:
    """The helper is ended with it."""
    trial = CompileFirst(helper, [str(save(tmp_path / "a.py", "x = 1\n"))], lambda: FinishedTrial(GOOD), 60.0)
    trial.cancel()
    assert helper.pid == 0


def test_safe_read_reads_regular_files_up_to_its_limit(tmp_path: Path) -> None:
    """At most so many bytes; nothing else is opened for longer than to see what it is."""
    path = save(tmp_path / "a", "12345")
    assert safe_read(str(path), 5) == b"12345"
    with pytest.raises(TooLarge):
        safe_read(str(path), 4)
    assert safe_read(str(path), 4, whole=False) == b"1234"
    assert safe_read(str(path), 6, whole=False) == b"12345"
    os.mkfifo(tmp_path / "fifo")
    for odd in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(NoRegularFile):
            safe_read(str(odd), 5)
    with pytest.raises(TooLarge):
        safe_read("/proc/self/status", 5)
