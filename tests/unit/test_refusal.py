"""What is wrong with new code, in the words a user needs."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
import warnings
from pathlib import Path

import pytest
from edits import save

from wsgi_reload_hooks.core.refusal import Refusal
from wsgi_reload_hooks.trial.sources import compile_sources

pytestmark = pytest.mark.unit


def refused(path: Path, hidden: tuple[str, ...] = ()) -> Refusal:
    """Import *path* and tell what it raised, without the frames of this file and importlib."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except BaseException as error:
        return Refusal.from_exception(error, [os.path.dirname(__file__), os.path.dirname(importlib.__file__), *hidden])
    raise AssertionError("nothing was wrong")


@pytest.fixture(autouse=True)
def _undo_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def test_syntax_error(tmp_path: Path) -> None:
    """A syntax error is told with its own file and line, not those of the import."""
    save(tmp_path / "dep.py", "a = 1\n\ndef f(:\n")
    why = refused(save(tmp_path / "app.py", "import dep\n"))
    assert (why.path, why.line) == (str(tmp_path / "dep.py"), 3)
    assert why.reason == "SyntaxError: invalid syntax" or why.reason.startswith("SyntaxError: ")
    assert "def f(:" in why.traceback
    assert why.files == (str(tmp_path / "app.py"), str(tmp_path / "dep.py"))


def test_error_in_a_dependency(tmp_path: Path) -> None:
    """An error in a dependency is told with the dependency's file and line."""
    save(tmp_path / "dep.py", "a = 1\nb = c\n")
    why = refused(save(tmp_path / "app.py", "import os\nimport dep\n"))
    assert (why.path, why.line, why.reason) == (str(tmp_path / "dep.py"), 2, "NameError: name 'c' is not defined")
    assert why.traceback.splitlines()[0] == "Traceback (most recent call last):"
    assert why.traceback.splitlines()[-1] == "NameError: name 'c' is not defined"
    assert "importlib" not in why.traceback and "test_proof" not in why.traceback


def test_library_frames_are_not_the_place(tmp_path: Path) -> None:
    """The place is the deepest file that is ours, though a library raised."""
    path = save(tmp_path / "app.py", "import json\njson.loads('{')\n")
    try:
        exec(compile(path.read_text(), str(path), "exec"), {})
    except ValueError as error:
        why = Refusal.from_exception(error, ours=lambda each: each == str(path))
    assert (why.path, why.line) == (str(path), 2)
    assert any(each.endswith("decoder.py") for each in why.files)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import sys; sys.exit()", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise ValueError('first\\nsecond')", "ValueError: first"),
        ("raise ValueError('\\n\\n  third\\n')", "ValueError: third"),
        ("raise ValueError('')", "ValueError"),
        ("raise ValueError('   ')", "ValueError"),
        ("raise SyntaxError", "SyntaxError"),
        ("raise SyntaxError(5)", "SyntaxError: 5"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
        ("import nosuchmodule", "ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("class E(Exception):\n    def __str__(self): raise OSError\nraise E", "E: (it cannot be shown)"),
        ("class E(Exception):\n    def __str__(self): return 5\nraise E", "E: (it cannot be shown)"),
    ],
)
def test_reason_is_one_line(tmp_path: Path, code: str, reason: str) -> None:
    """Whatever was raised, the reason is one line: its type and the first line of its text."""
    why = refused(save(tmp_path / "app.py", code))
    assert why.reason == reason
    assert why.path == str(tmp_path / "app.py") and why.line is not None


def test_chained_exceptions_name_all_their_files(tmp_path: Path) -> None:
    """A repair may happen in the file of the cause, so it is among the files."""
    save(tmp_path / "deep.py", "1 / 0\n")
    save(tmp_path / "other.py", "def ask(): raise KeyError('x')\n")
    save(
        tmp_path / "middle.py",
        "import other\ntry:\n    import deep\nexcept Exception as error:\n"
        "    try:\n        other.ask()\n    except KeyError:\n        raise RuntimeError('no set-up') from error\n",
    )
    why = refused(save(tmp_path / "app.py", "import middle\n"))
    assert why.reason == "RuntimeError: no set-up"
    assert (why.path, why.line) == (str(tmp_path / "middle.py"), 8)
    names = {"app.py", "middle.py", "deep.py", "other.py"}
    assert set(why.files) == {str(tmp_path / name) for name in names}


def test_exception_that_causes_itself(tmp_path: Path) -> None:
    """A circle of causes ends."""
    why = refused(
        save(
            tmp_path / "app.py", "a = ValueError('a'); b = ValueError('b')\na.__cause__ = b; b.__cause__ = a\nraise a\n"
        )
    )
    assert why.reason == "ValueError: a"


def test_nothing_is_left_of_the_server(tmp_path: Path) -> None:
    """Where all frames are the server's there is neither place nor traceback, only the reason."""
    why = refused(save(tmp_path / "app.py", "raise ValueError('no such callable')\n"), hidden=(str(tmp_path),))
    assert why == Refusal("ValueError: no such callable")


def test_hidden_folder_does_not_hide_its_neighbour(tmp_path: Path) -> None:
    """A folder whose name continues a hidden one is shown."""
    why = refused(save(tmp_path / "gunicorn2" / "app.py", "1 / 0\n"), hidden=(str(tmp_path / "gunicorn"),))
    assert why.path == str(tmp_path / "gunicorn2" / "app.py")


def test_long_tracebacks_are_cut(tmp_path: Path) -> None:
    """Of a long traceback the last lines are kept, and of a long line its beginning."""
    why = refused(save(tmp_path / "app.py", "raise ValueError('\\n'.join('line %d' % n for n in range(100)))\n"))
    assert len(why.traceback.splitlines()) == 12 and why.traceback.endswith("line 99")
    why = refused(save(tmp_path / "app2.py", "raise ValueError('x' * 1_000_000)\n"))
    assert len(why.reason) < 1000 and len(why.traceback) < 12 * 1000


def test_from_a_stack(tmp_path: Path) -> None:
    """Where code was at a moment is told like an error: the deepest file that is ours."""
    stack = [traceback.FrameSummary(name, 7, "f", line="x = 1") for name in ("/ours/a.py", "/ours/b.py", "/lib/c.py")]
    why = Refusal.from_stack("its import did not end", stack, lambda path: path.startswith("/ours/"))
    assert (why.path, why.line, why.reason) == ("/ours/b.py", 7, "its import did not end")
    assert why.files == ("/ours/a.py", "/ours/b.py", "/lib/c.py") and '"/lib/c.py", line 7' in why.traceback
    assert Refusal.from_stack("nothing", []) == Refusal("nothing")


# -- compile ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (b"x = 1\ndef f(:\n", 2),
        (b"if 1:\n    x\n  y\n", 3),
        (b"return 1\n", 1),
        (b"x = 1\n\x00\n", None),
        (b"# coding: nosuch\n", 1),
        (b"x = '\xff'\n", 1),
        (b"x = " + b"(" * 5000, 1),
        (b"x" + b"()" * 100_000, None),
    ],
)
def test_broken_sources(tmp_path: Path, source: bytes, line: int | None) -> None:
    """Code that does not compile is refused with its file, and with its line where Python tells one."""
    path = tmp_path / "app.py"
    path.write_bytes(source)
    why = compile_sources([str(path)])
    assert why is not None
    assert (why.path, why.line, why.files) == (str(path), line, (str(path),))
    assert len(why.reason.splitlines()) == 1 and "wsgi_reload_hooks" not in why.traceback


def test_first_broken_source_of_several(tmp_path: Path) -> None:
    """Of several broken files the first by name is told."""
    paths = [str(save(tmp_path / name, text)) for name, text in [("c.py", "("), ("a.py", "1"), ("b.py", ")")]]
    why = compile_sources(paths)
    assert why is not None and why.path == str(tmp_path / "b.py")


def test_what_is_not_compiled(tmp_path: Path) -> None:
    """What is no Python source, or is not there, is no failure."""
    (tmp_path / "folder.py").mkdir()
    paths = [str(save(tmp_path / "a.html", "(")), str(tmp_path / "gone.py"), str(tmp_path / "folder.py")]
    assert compile_sources(paths) is None


def test_source_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """A FIFO without a writer, an endless device, a file of many gigabytes: told, and not waited for."""
    fifo, zero, sparse = (tmp_path / f"{name}.py" for name in ("fifo", "zero", "sparse"))
    os.mkfifo(fifo)
    zero.symlink_to("/dev/zero")
    sparse.touch()
    os.truncate(sparse, 1 << 36)
    reasons = [compile_sources([str(path)]) for path in (fifo, zero, sparse)]
    assert [why and why.reason for why in reasons] == ["is no regular file"] * 2 + ["is larger than 4194304 bytes"]


def test_compiling_runs_nothing_and_is_silent(tmp_path: Path) -> None:
    """To compile runs no code, writes no byte code and emits no warning."""
    path = save(tmp_path / "app.py", f"open({str(tmp_path / 'ran')!r}, 'w')\nx = '\\d'\nif x is 'literal': pass\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert compile_sources([str(path)]) is None
    assert caught == [] and sorted(os.listdir(tmp_path)) == ["app.py"]


def test_sources_do_not_inherit_our_future(tmp_path: Path) -> None:
    """Code is compiled as it stands: features that these hooks import from the future are not its own."""
    path = save(tmp_path / "app.py", "def f(a: (b := 1)): pass\n")
    assert compile_sources([str(path)]) is None
