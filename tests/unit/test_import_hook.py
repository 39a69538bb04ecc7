"""The witness of imports: it sees every file before it is loaded, and changes nothing else."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.resources
import importlib.util
import os
import pkgutil
import runpy
import sys
import time
import types
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from edits import LONG_AGO, date, save

from wsgi_reload_hooks.watching.import_hook import ImportHook, Modules, missed_imports
from wsgi_reload_hooks.watching.signature import Signature, signature

pytestmark = pytest.mark.unit


class Here:
    """A folder that modules are imported from, and what witnesses saw there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seen: list[tuple[str, Signature | None]] = []

    @property
    def names(self) -> list[str]:
        return [os.path.relpath(path, self.root) for path, _ in self.seen]

    def ours(self, path: str) -> bool:
        return path.startswith(str(self.root))

    def witness(self, changed: Collection[str] = ()) -> ImportHook:
        witness = ImportHook(self.ours, lambda path, found: self.seen.append((path, found)), changed)
        witness.install()
        return witness

    def module(self, name: str, text: str, mtime_ns: int = LONG_AGO) -> Path:
        path = date(save(self.root / name, text), mtime_ns)
        importlib.invalidate_caches()
        return path

    def forget(self, name: str) -> None:
        del sys.modules[name]
        importlib.invalidate_caches()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """A folder first on `sys.path`; afterwards the interpreter imports as before."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    modules = set(sys.modules)
    yield Here(tmp_path)
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def load(name: str) -> Any:
    return importlib.import_module(name)


# -- what it sees ----------------------------------------------------------------------------------------------------


def test_seen_before_it_is_loaded(here: Here) -> None:
    """A file is told before its code runs, with the signature of that moment."""
    path = here.module("m.py", "import os\nos.utime(__file__, (1, 1))\n")
    before = signature(str(path))
    here.witness()
    load("m")
    assert here.seen == [(str(path), before)] and signature(str(path)) != before


def test_failing_imports_are_seen(here: Here) -> None:
    """A file that fails to import is told like any other, with those that led to it."""
    here.module("broken.py", "def f(:\n")
    here.module("user.py", "import broken\n")
    here.witness()
    with pytest.raises(SyntaxError):
        load("user")
    assert here.names == ["user.py", "broken.py"]


def test_packages_and_what_is_not_ours(here: Here) -> None:
    """Packages are told with their parts, other people's modules are not."""
    here.module("pkg/__init__.py", "import json.tool\n")
    here.module("pkg/part.py", "")
    here.witness()
    sys.modules.pop("json.tool", None)
    load("pkg.part")
    assert here.names == ["pkg/__init__.py", "pkg/part.py"]


def test_archives_are_seen(here: Here) -> None:
    """A module in a zip file is told as its archive."""
    archive = here.root / "lib.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped.py", "VALUE = 1\n")
    sys.path.insert(0, str(archive))
    here.witness()
    assert load("zipped").VALUE == 1
    assert here.names == ["lib.zip"]


def test_no_file_no_word(here: Here) -> None:
    """Built-in, frozen and namespace packages, and what does not exist, are left alone and not told."""
    (here.root / "space" / "inner").mkdir(parents=True)
    here.module("space/inner/m.py", "")
    here.witness()
    assert load("space.inner").__path__ and here.names == []
    assert load("space.inner.m") and here.names == ["space/inner/m.py"]
    frozen = importlib.util.find_spec("zipimport")
    builtin = importlib.util.find_spec("_imp")
    assert frozen is not None and builtin is not None and builtin.origin == "built-in"
    with pytest.raises(ModuleNotFoundError, match="nosuchmodule"):
        load("nosuchmodule")
    assert here.names == ["space/inner/m.py"]


# -- what it changes: nothing ----------------------------------------------------------------------------------------


def facts(spec: importlib.machinery.ModuleSpec | None) -> tuple[object, ...]:
    assert spec is not None
    places = spec.submodule_search_locations
    return (
        spec.name,
        spec.origin,
        spec.cached,
        spec.has_location,
        type(spec.loader),
        None if places is None else [*places],
    )


@pytest.mark.parametrize("name", ["old", "fresh", "pkg", "pkg.part", "space", "json", "sys", "zipimport", "_imp"])
def test_specs_are_what_they_were(here: Here, name: str) -> None:
    """A spec is the same with and without a witness."""
    here.module("old.py", "")
    here.module("fresh.py", "", time.time_ns())
    here.module("pkg/__init__.py", "")
    here.module("pkg/part.py", "")
    (here.root / "space").mkdir()
    before = facts(importlib.util.find_spec(name))
    here.witness()
    assert facts(importlib.util.find_spec(name)) == before


def test_reload_runpy_pkgutil_resources(here: Here) -> None:
    """importlib.reload, runpy, pkgutil and importlib.resources work as before."""
    path = here.module("pkg/__init__.py", "VALUE = 1\n")
    here.module("pkg/__main__.py", "VALUE = 'main'\n", time.time_ns())
    here.module("pkg/data.txt", "text")
    here.witness()
    package = load("pkg")
    save(path, "VALUE = 2\n")
    assert importlib.reload(package) is package and package.VALUE == 2
    assert runpy.run_module("pkg")["VALUE"] == "main"
    assert [each.name for each in pkgutil.walk_packages(package.__path__)] == ["__main__"]
    assert pkgutil.get_data("pkg", "data.txt") == b"text"
    assert importlib.resources.files("pkg").joinpath("data.txt").read_text() == "text"


def test_sources_can_be_shown(here: Here) -> None:
    """The loader of a fresh module still gives its source and its code."""
    path = here.module("fresh.py", "VALUE = 1\n", time.time_ns())
    here.witness()
    loader = load("fresh").__spec__.loader
    assert loader.get_source("fresh") == "VALUE = 1\n" and loader.get_filename() == str(path)
    assert loader.get_code("fresh").co_filename == str(path)


class Finder:
    """A finder that gives what it is told to give, or raises it."""

    def __init__(self, answer: object) -> None:
        self.asked: list[str] = []
        self._answer = answer

    def find_spec(self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None) -> Any:
        self.asked.append(name)
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


def test_finders_that_raise(here: Here) -> None:
    """What another finder raises comes through."""
    sys.meta_path.insert(0, Finder(ZeroDivisionError("a finder's own")))
    here.witness()
    with pytest.raises(ZeroDivisionError, match="a finder's own"):
        load("anything")


def test_odd_specs_pass(here: Here) -> None:
    """A spec whose origin is no text is passed on unchanged."""
    spec = importlib.machinery.ModuleSpec("odd", None, origin=here.root / "odd.py")  # type: ignore[arg-type]
    spec.has_location = True
    sys.meta_path.insert(0, Finder(spec))
    witness = here.witness()
    assert witness.find_spec("odd") is spec and here.seen == []


def test_file_that_cannot_be_asked(here: Here) -> None:
    """A module that an importer made up, with a file nobody has, is told as missing."""
    path = str(here.root / "virtual.py")
    sys.meta_path.insert(0, Finder(importlib.util.spec_from_file_location("virtual", path)))
    here.witness().find_spec("virtual")
    assert here.seen == [(path, None)]


class OldLoader(importlib.abc.Loader):
    """It makes modules without a file."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return types.ModuleType(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__dict__["VALUE"] = "from the old finder"


class OldFinder:
    """A finder of the time before specs."""

    def find_module(self, name: str, path: Sequence[str] | None = None) -> OldLoader | None:
        return OldLoader() if name == "old_style" else None


@pytest.mark.filterwarnings("ignore::ImportWarning")
@pytest.mark.parametrize("watched", [False, True])
def test_finders_without_find_spec(here: Here, watched: bool) -> None:
    """A finder without `find_spec` counts as far as Python itself has it count, and at its place."""
    sys.meta_path[:0] = [OldFinder(), object()]  # type: ignore[list-item]
    here.module("old_style.py", "VALUE = 'from the file'\n")
    if watched:
        here.witness()
    assert ("from the old finder" if sys.version_info < (3, 12) else "from the file") == load("old_style").VALUE


def test_two_witnesses(here: Here) -> None:
    """Two witnesses in one process both see, and do not ask each other in a circle."""
    here.module("m.py", "")
    other = Here(here.root)
    here.witness()
    other.witness()
    load("m")
    assert here.names == other.names == ["m.py"]
    with pytest.raises(ModuleNotFoundError):
        load("nosuchmodule")


def test_only_finders_behind_are_asked(here: Here) -> None:
    """A finder that was put before the witness is not asked through it a second time."""
    here.module("m.py", "")
    here.witness()
    first = Finder(None)
    sys.meta_path.insert(0, first)
    load("m")
    assert first.asked == ["m"] and here.names == ["m.py"]


# -- what nobody witnessed -------------------------------------------------------------------------------------------


def names(modules: list[object]) -> set[str]:
    return {each.__name__ for each in modules if isinstance(each, types.ModuleType)}


def test_newer_modules(here: Here) -> None:
    """Those that came since are told, newest first; none of them that were there before."""
    for name in ("first", "second"):
        here.module(f"{name}.py", "")
    since = Modules()
    assert since.newer() == []
    first = load("first")
    second = load("second")
    assert since.newer() == [second, first] and Modules().newer() == []


@pytest.mark.parametrize("change", ["the last taken out", "the last moved", "another moved", "another taken out"])
def test_newer_modules_where_order_is_lost(here: Here, change: str) -> None:
    """Where older modules were taken out or put in anew, those that came since are told all the same."""
    for name in ("another", "last", "new", "newest"):
        here.module(f"{name}.py", "")
    load("another")
    load("last")
    since = Modules()
    load("new")
    name = "last" if "last" in change else "another"
    module = sys.modules.pop(name)
    if "moved" in change:
        sys.modules[name] = module
    load("newest")
    assert names(since.newer()) >= {"new", "newest"}


def test_what_nobody_witnessed(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of ours that were not reported are told with their signatures, of all modules or of those that came since."""
    old, told, new = (here.module(f"{name}.py", "") for name in ("old", "told", "new"))
    load("old")
    since = Modules()
    load("told")
    load("new")
    # A loop of links, which cannot be asked for anything.
    (here.root / "loop.py").symlink_to("loop.py")
    odd = types.ModuleType("odd")
    odd.__file__ = str(here.root / "loop.py")
    monkeypatch.setitem(sys.modules, "odd", odd)
    assert dict(missed_imports({str(told)}, here.ours, since)) == {str(new): signature(str(new))}
    assert dict(missed_imports({str(told)}, here.ours)).keys() == {str(old), str(new)}


# -- byte code -------------------------------------------------------------------------------------------------------


def cached(path: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(path)))


@pytest.mark.parametrize("witnessed", [False, True])
def test_changed_files_are_compiled(here: Here, witnessed: bool) -> None:
    """Of a file that is known to be changed no byte code is believed, though second and size agree."""
    path = here.module("m.py", "VALUE = 1\n")
    assert load("m").VALUE == 1 and cached(path).exists()
    here.forget("m")
    here.module("m.py", "VALUE = 2\n", LONG_AGO + 1)
    if witnessed:
        here.witness([str(path)])
    # Without a witness Python falls into the trap: this is what it is for.
    assert (2 if witnessed else 1) == load("m").VALUE


def test_fresh_files_are_compiled(here: Here) -> None:
    """Of a file that was saved just now no byte code is believed, and none is written."""
    now = time.time_ns() // 10**9 * 10**9
    path = here.module("m.py", "VALUE = 1\n", now)
    load("m")
    here.forget("m")
    here.module("m.py", "VALUE = 2\n", now + 1)
    here.witness()
    assert load("m").VALUE == 2
    cached(path).unlink()
    here.forget("m")
    assert load("m").VALUE == 2 and not cached(path).exists()


def test_old_files_keep_their_byte_code(here: Here) -> None:
    """For a file that is old and not changed, byte code is read and written as ever."""
    path = here.module("m.py", "VALUE = 1\n")
    here.witness([str(here.root / "other.py")])
    assert load("m").VALUE == 1 and cached(path).exists()
    here.forget("m")
    here.module("m.py", "VALUE = 2\n", LONG_AGO + 1)
    assert load("m").VALUE == 1


def test_meanwhile(here: Here) -> None:
    """What is to be done meanwhile is done before each import, also of what is not ours or not there."""
    calls: list[set[str]] = []
    here.module("first.py", "import second")
    here.module("second.py", "x = 1")
    ImportHook(
        lambda path: False,
        lambda path, found: here.seen.append((path, found)),
        (),
        lambda: calls.append(set(sys.modules)),
    ).install()
    importlib.import_module("first")
    with pytest.raises(ImportError):
        importlib.import_module("not_there_at_all")
    assert len(calls) == 3
    assert "first" in calls[1] and "second" not in calls[1]
    assert "second" in calls[2] and here.seen == []
