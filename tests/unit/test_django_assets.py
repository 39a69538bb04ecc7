"""Translations and templates for whoever watches: when workers are to forget them, and when not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from edits import date
from msgfmt import mo

from wsgi_reload_hooks import Settings
from wsgi_reload_hooks.core.log import ReloadLog
from wsgi_reload_hooks.django.assets import Assets
from wsgi_reload_hooks.process.counters import TEMPLATES, TRANSLATIONS, Generation, differing
from wsgi_reload_hooks.watching.rules import Files
from wsgi_reload_hooks.watching.scanner import Scanner

pytestmark = pytest.mark.unit

GERMAN, FRENCH = "locale/de/LC_MESSAGES/django.mo", "locale/fr/LC_MESSAGES/django.mo"
PAGE = "templates/page.html"
BROKEN = mo({"hello": "never"})[:-8]


class Log:
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *arguments: object) -> None:
        self.lines.append(text % arguments)

    warning = error = debug = info


class Watching:
    """A project whose assets are watched; `does` says what came of changes since the last time."""

    def __init__(self, root: Path, exclude: tuple[str, ...] = ()) -> None:
        self.root = root
        self.write(GERMAN, mo({"hello": "hallo"}))
        self.write(FRENCH, mo({"hello": "salut"}))
        self.write(PAGE, b"page")
        self.files = Files(Settings(exclude=exclude), str(root))
        self.scanner = Scanner()
        self.generation = Generation()
        self.log = Log()
        self.assets = Assets(self.files, self.scanner, ReloadLog(self.log, self.files.root), self.generation)
        self._before = self.generation.now()

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def hear(self, since: float = 0.0) -> None:
        """Told by a worker that began *since* that many seconds from now."""
        folders = {TRANSLATIONS: [str(self.root / "locale")], TEMPLATES: [str(self.root / "templates")]}
        self.assets.heard(folders, time.time() + 10 + since)

    def change(self, *names: str, reloading: tuple[str, ...] = ()) -> set[str]:
        """The rest of *names*, which have changed."""
        paths, listed = ({str(self.root / name) for name in each} for each in (names, reloading))
        return {os.path.relpath(path, self.root) for path in self.assets.changed(paths, listed)}

    def does(self) -> tuple[set[str], list[str]]:
        """The kinds that were raised, and the lines of the log."""
        before, self._before = self._before, self.generation.now()
        lines, self.log.lines = self.log.lines, []
        return differing(before, self._before), [line.replace("reload: ", "") for line in lines]


@pytest.fixture
def watching(tmp_path: Path) -> Watching:
    watching = Watching(tmp_path)
    watching.hear()
    assert watching.does() == (set(), [])
    return watching


def test_what_is_heard_is_watched(watching: Watching) -> None:
    """The files of the folders are watched from now on, and somebody has to listen to the folders anew."""
    watched, _ = watching.scanner.watched()
    assert sorted(watched) == sorted(str(watching.root / name) for name in (GERMAN, FRENCH, PAGE))
    before = watching.scanner.generation
    watching.hear()
    assert watching.scanner.generation == before
    watching.assets.heard({TEMPLATES: [str(watching.root / "not there yet")]}, time.time())
    assert watching.scanner.generation > before


def test_edits_births_and_deaths(watching: Watching) -> None:
    """Each raises its own kind and is one line; what else has changed is left to others."""
    watching.write(PAGE, b"longer page")
    watching.write("app.py", b"")
    assert watching.change(PAGE, "app.py") == {"app.py"}
    assert watching.does() == ({TEMPLATES}, ["templates reset: templates/page.html"])
    watching.write(GERMAN, mo({"hello": "moin"}))
    (watching.root / FRENCH).unlink()
    watching.write("templates/new/other.html", b"")
    assert watching.change(GERMAN, FRENCH, "templates/new/other.html") == set()
    lines = [f"translations reset: {GERMAN}, {FRENCH}", "templates reset: templates/new/other.html"]
    assert watching.does() == ({TEMPLATES, TRANSLATIONS}, lines)
    (watching.root / "templates/new/other.html").unlink()
    watching.change("templates/new/other.html")
    assert watching.does() == ({TEMPLATES}, ["templates reset: templates/new/other.html"])


def test_what_is_as_before_is_no_change(watching: Watching) -> None:
    """A touch, an edit that was taken back, a file that came and went."""
    date(watching.root / PAGE)
    watching.change(PAGE, GERMAN, "templates/other.html")
    assert watching.does() == (set(), [])


def test_what_is_listed_reloads(watching: Watching) -> None:
    """A template that causes a reload is left to that; so is a folder."""
    watching.write(PAGE, b"longer page")
    (watching.root / "templates" / "folder").mkdir()
    assert watching.change(PAGE, "templates/folder", reloading=(PAGE,)) == {PAGE, "templates/folder"}
    assert watching.does() == (set(), [])


def test_excluded(tmp_path: Path) -> None:
    """What is excluded is watched for nothing."""
    watching = Watching(tmp_path, exclude=("page.html",))
    watching.hear()
    watching.write(PAGE, b"longer page")
    assert watching.change(PAGE) == {PAGE}
    assert watching.does() == (set(), [])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (BROKEN, "File is corrupt"),
        (BROKEN[:30], "error: "),
        (b"", "error: "),
        (b"<<<<<<< HEAD\n", "Bad magic number"),
        (mo({"": "Content-Type: text/plain; charset=ascii\n", "hello": "grüß"}), "UnicodeDecodeError: "),
        (mo({"": "Content-Type: text/plain; charset=none\n", "hello": "x"}), "LookupError: unknown encoding"),
        (mo({"": "Plural-Forms: nplurals=2; plural=import os;\n"}), "ValueError: "),
    ],
    ids=["half", "less", "nothing", "text", "encoding", "no encoding", "plural"],
)
def test_broken_translations_are_refused(watching: Watching, content: bytes, why: str) -> None:
    """They are told once and nothing is raised; the repair goes in, as does taking them back."""
    watching.write(GERMAN, content)
    watching.change(GERMAN)
    kinds, (line,) = watching.does()
    assert kinds == set()
    assert line.startswith(f"translations refused, the previous ones stay: {GERMAN}: ") and why in line, line
    date(watching.root / GERMAN)
    watching.change(GERMAN)
    assert watching.does() == (set(), [])
    watching.write(GERMAN, mo({"hello": "hallo"}))
    watching.change(GERMAN)
    assert watching.does() == (set(), [f"{GERMAN}: as it is in service again, nothing to reset"])
    watching.write(GERMAN, content)
    watching.change(GERMAN)
    assert len(watching.does()[1]) == 1
    watching.write(GERMAN, mo({"hello": "moin"}))
    watching.change(GERMAN)
    assert watching.does() == ({TRANSLATIONS}, [f"translations reset: {GERMAN}"])


def test_good_translations_wait_for_broken_ones(watching: Watching) -> None:
    """They would be loaded together: so they go in together, repaired, taken back, or gone."""
    german = watching.root / GERMAN
    for mended, names in (("moin", [GERMAN, FRENCH]), ("moin", [FRENCH]), (None, [GERMAN, FRENCH])):
        watching.write(GERMAN, BROKEN)
        watching.change(GERMAN)
        watching.write(FRENCH, mo({"hello": f"salut {time.monotonic_ns()}"}))
        watching.change(FRENCH)
        kinds, lines = watching.does()
        assert kinds == set() and len(lines) == 1
        if mended is None:
            german.unlink()
        else:
            watching.write(GERMAN, mo({"hello": mended}))
        watching.change(GERMAN)
        assert watching.does() == ({TRANSLATIONS}, [f"translations reset: {', '.join(names)}"])


def test_translations_that_are_born_broken(watching: Watching) -> None:
    """A new file is refused as well, until it is whole."""
    italian = "locale/it/LC_MESSAGES/django.mo"
    watching.write(italian, BROKEN)
    watching.change(italian)
    assert "refused" in watching.does()[1][0]
    watching.write(italian, mo({"hello": "ciao"}))
    watching.change(italian)
    assert watching.does() == ({TRANSLATIONS}, [f"translations reset: {italian}"])


def test_files_that_are_no_files(watching: Watching) -> None:
    """A named pipe is refused without waiting for its writer, and a huge file is not read as a whole."""
    (watching.root / GERMAN).unlink()
    os.mkfifo(watching.root / GERMAN)
    watching.change(GERMAN)
    assert "no regular file" in watching.does()[1][0]
    (watching.root / GERMAN).unlink()
    watching.write(GERMAN, mo({"hello": "moin"}))
    os.truncate(watching.root / GERMAN, 1 << 30)
    watching.change(GERMAN)
    assert watching.does()[0] == {TRANSLATIONS}


def test_changed_since_a_worker_began(watching: Watching) -> None:
    """What changed before it was watched a worker may have read or not: it forgets it, and nothing is told."""
    watching.hear(since=-3600.0)
    assert watching.does() == ({TEMPLATES, TRANSLATIONS}, [])
    watching.write(PAGE, b"longer page")
    watching.hear(since=-3600.0)
    # That change is about to be told.
    assert watching.does() == ({TRANSLATIONS}, [])
    watching.change(PAGE)
    assert watching.does() == ({TEMPLATES}, ["templates reset: templates/page.html"])


def test_very_many_files(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template folder that holds the world: so many are watched, which is told once."""
    monkeypatch.setattr("wsgi_reload_hooks.watching.rules.ASSETS_AT_MOST", 5)
    monkeypatch.setattr("wsgi_reload_hooks.django.assets.ASSETS_AT_MOST", 5)
    for number in range(9):
        watching.write(f"templates/{number}/page.html", b"")
    watching.hear()
    watching.hear()
    assert len(watching.files.assets()) == 5
    kinds, (line,) = watching.does()
    assert kinds == set() and line.startswith("more than 5 translations and templates"), line


def test_a_birth_is_not_lost(watching: Watching) -> None:
    """A file that was born in a known folder, just before another worker reports, is still told."""
    watching.write("templates/other.html", b"")
    watching.hear()
    assert str(watching.root / "templates/other.html") not in watching.scanner.watched()[0]
    watching.change("templates/other.html")
    assert watching.does() == ({TEMPLATES}, ["templates reset: templates/other.html"])


def test_a_report_that_is_none(watching: Watching) -> None:
    """Relative folders are left out, and what is no list of names raises what the caller expects."""
    watching.assets.heard({TEMPLATES: ["templates"]}, time.time() + 10)
    assert watching.does() == (set(), [])
    with pytest.raises(TypeError):
        watching.assets.heard({TEMPLATES: [1]}, time.time())
