"""What git ignores: the same answers as git's own, from the file system alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from edits import date, save, without_rights
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wsgi_reload_hooks.watching import gitignore
from wsgi_reload_hooks.watching.gitignore import GitIgnore

pytestmark = pytest.mark.unit

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git to compare with")
RULES = (".gitignore", "a/.gitignore", ".git/info/exclude")


def git(root: Path, *arguments: str, paths: tuple[str, ...] = ()) -> bytes:
    """What git prints, without the settings of whoever runs the tests."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "XDG_"))}
    done = subprocess.run(
        ["git", *arguments],
        cwd=root,
        env={**ours, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(root / "nowhere")},
        input="\0".join(paths).encode("utf-8", "surrogateescape"),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, 1) and not done.stderr, done
    return done.stdout


def by_git(root: Path, *paths: str) -> dict[str, tuple[str, int]]:
    """The ignored ones of *paths*, each with the file and the line that decide, as git sees it."""
    printed = git(root, "check-ignore", "--no-index", "-v", "-z", "--stdin", paths=paths)
    fields = iter(os.fsdecode(printed).split("\0")[:-1])
    rows = zip(fields, fields, fields, fields, strict=False)
    return {path: (file, int(number)) for file, number, text, path in rows if not text.startswith("!")}


def by_us(root: Path, *paths: str) -> dict[str, tuple[str, int]]:
    """The same, as we see it."""
    ignored = GitIgnore(str(root)).now()
    lines = {path: ignored.line(str(root / path), os.path.isdir(root / path)) for path in paths}
    return {path: (line.file, line.number) for path, line in lines.items() if line}


def ignores(root: Path, path: str, folder: bool = False) -> str | None:
    line = GitIgnore(str(root)).now().line(os.path.normpath(root / path), folder)
    return line and line.text


@pytest.fixture(scope="module")
def repository() -> Iterator[Path]:
    """A repository that the examples share: to make one takes longer than to ask it."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(os.path.realpath(name))
        git(root, "init", "-q")
        yield root


# The rules, then which paths they have ignored and which not. A path that ends in a slash is a folder on the disk.
TABLE = [
    ("name", "b", ["b", "x/b", "x/b/c"], ["bb", "x/cb"]),
    ("comment", "#b\n\\#c", ["#c"], ["b", "#b"]),
    ("empty lines", "\n \n/\n!\n", [], ["x", " ", "!"]),
    ("star", "*.x", ["c.x", "d/.x"], ["c.xx"]),
    ("star stays in its folder", "d/*.x", ["d/c.x"], ["d/e/c.x", "e/d/c.x"]),
    ("question mark", "d/?", ["d/e"], ["d/ee", "d", "e/d/e"]),
    ("question mark is a byte", "?.z", ["a.z"], ["é.z"]),
    ("set", "[b-d!].q\n[!a].r", ["c.q", "!.q", "b.r"], ["a.q", "a.r"]),
    (
        "odd sets",
        "x[]-]\ny[a-]\nz[\\]]\nw[z-a]\nv[[:digit:]_]",
        ["x]", "x-", "y-", "z]", "v5", "v_", "wz"],
        ["wa", "vx", "z\\"],
    ),
    ("a set never means a slash", "x[!a]y\nd/x[./]y", ["x-y", "d/x.y"], ["d/x/y"]),
    ("sets that do not end", "x[\ny[]\nz[!]\nw[[:alpha:]\nv[[:none:]]", [], ["x[", "y[]", "zb", "wb", "vb"]),
    ("only folders", "k/", ["d/k/c", "real/k/"], ["k", "d/k", "link/k"]),
    ("anchored", "/c\nd/e", ["c", "c/x", "d/e"], ["x/c", "x/d/e"]),
    ("two stars before", "**/c\n**/d/e", ["c", "x/y/c", "d/e", "x/d/e"], ["cc"]),
    ("two stars behind", "d/**", ["d/e", "d/e/f"], ["d", "x/d/e"]),
    ("two stars between", "d/**/e", ["d/e", "d/x/e", "d/x/y/e"], ["de", "d/xe"]),
    ("two stars in a name", "d/x?**y", ["d/xzy"], ["d/xz/y"]),
    ("two stars behind a plain beginning", "d**/e", ["dx/y/e", "dx/e"], ["x/d/e"]),
    ("taken back", "*.x\n!keep.x", ["c.x"], ["keep.x", "d/keep.x"]),
    ("the last line wins", "!c\nc\n!d\nd\n!d", ["c"], ["d"]),
    ("a folder is not entered", "d/\n!d/keep", ["d/keep", "d/e/f"], ["keep"]),
    ("all in a folder but one", "d/*\n!d/keep", ["d/c"], ["d/keep"]),
    ("escapes", "\\!c\nd\\*\n\\e\nf\\", ["!c", "d*", "e"], ["c", "dx", "f", "f\\"]),
    ("spaces", "c  \nd\\ \ne \\ \n f", ["c", "d ", "e  ", " f"], ["c  ", "d", "e", "f"]),
    ("tab and carriage return", "c\t\nd\r\n*.e\r\n", ["c\t", "d", "x.e"], ["c"]),
    ("mark of the encoding", "\ufeffc", ["c"], ["\ufeffc"]),
    ("no end of line", "c\nd", ["c", "d"], ["e"]),
    ("bytes", os.fsdecode(b"\xff*"), [os.fsdecode(b"\xffx")], ["ÿx"]),
]


@needs_git
@pytest.mark.parametrize(("rules", "yes", "no"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_same_answers_as_git(tmp_path: Path, rules: str, yes: list[str], no: list[str]) -> None:
    """Each feature of the format means what git means by it."""
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_bytes(os.fsencode(rules))
    (tmp_path / "real" / "k").mkdir(parents=True)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "k").symlink_to(tmp_path / "real" / "k")
    yes, no = [path.rstrip("/") for path in yes], [path.rstrip("/") for path in no]
    ours = {path for path in (*yes, *no) if ignores(tmp_path, path, path == "real/k")}
    assert ours == set(yes) == set(by_git(tmp_path, *yes, *no))


PARTS = [
    "a", "b", "ab", "*", "**", "***", "?", "/", "/", "/", "[ab]", "[!a]", "[a-b]", "[]a]", "[]-a]", "[[:alpha:]]",
    "[[:x]", "[[:digit:]-b]", "[\\]a]", "[a-]", "[--b]", "[", "]", "\\", "\\*", "\\ ", " ", "!", "#", "-", "é", ".", "\r",
]  # fmt: skip
NAMES = ["a", "b", "ab", "ba", "aab", "[", "]", "-", "!a", "#a", "a ", "é", ".a", "a.b", "\\a", "*", "1"]
patterns = st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("".join), max_size=4).map("\n".join)
names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)


@needs_git
@given(texts=st.tuples(patterns, patterns, patterns), paths=st.lists(names, min_size=8, max_size=25, unique=True))
@hypothesis_settings(deadline=None, max_examples=150, database=None)
def test_any_pattern_means_what_git_means(repository: Path, texts: tuple[str, str, str], paths: list[str]) -> None:
    """Whatever is written into the three kinds of files, the same line decides as with git."""
    for file, text in zip(RULES, texts, strict=False):
        save(repository / file, text)
    assert by_us(repository, *paths) == by_git(repository, *paths)


@needs_git
def test_worktree_has_the_exclude_file_of_its_repository(tmp_path: Path) -> None:
    """Where `.git` is a file, `info/exclude` is looked up where git has it."""
    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir()
    git(root, "init", "-q")
    git(root, "-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "-q", "--allow-empty", "-m", "x")
    git(root, "worktree", "add", "-q", str(other))
    save(root / ".git" / "info" / "exclude", "c\n")
    assert (other / ".git").is_file()
    assert ignores(other, "c") == "c" and ignores(other, "d") is None
    assert set(by_git(other, "c", "d")) == {"c"}


# -- which files -----------------------------------------------------------------------------------------------------


def test_rules_above_the_project(tmp_path: Path) -> None:
    """The rules count from the folder of `.git` down; deeper ones win, and those above it say nothing."""
    (tmp_path / "top" / ".git").mkdir(parents=True)
    root = tmp_path / "top" / "project"
    save(tmp_path / ".gitignore", "*.above\n")
    save(tmp_path / "top" / ".gitignore", "*.x\n*.y\n/project/z\n")
    save(root / ".gitignore", "!*.y\n")
    save(root / "d" / ".gitignore", "*.y\n/e\n")
    assert [ignores(root, path) for path in ("c.above", "c.x", "c.y", "z")] == [None, "*.x", None, "/project/z"]
    assert [ignores(root, path) for path in ("d/c.y", "d/e", "e")] == ["*.y", "/e", None]
    assert ignores(root, "../c.x") == "*.x" and ignores(root, "../../c.x") is None


def test_project_without_repository(tmp_path: Path) -> None:
    """Without a `.git` the rules start at the project."""
    save(tmp_path / ".gitignore", "*.x\n")
    save(tmp_path / "project" / ".gitignore", "*.y\n")
    assert [ignores(tmp_path / "project", path) for path in ("c.x", "c.y")] == [None, "*.y"]


def test_the_line_that_decides_can_be_named(tmp_path: Path) -> None:
    """A line says its number, its text and its file, seen from the project."""
    save(tmp_path / "d" / ".gitignore", "# mine\n\nbuild/\n")
    line = GitIgnore(str(tmp_path)).now().line(str(tmp_path / "d" / "build" / "x"), False)
    assert str(line) == "line 3 'build/' of d/.gitignore"


# -- over time -------------------------------------------------------------------------------------------------------


def test_changed_rules_count_at_once(tmp_path: Path) -> None:
    """Rules that are written, replaced with the same date, and removed: each time the next look knows."""
    rules, source = tmp_path / ".gitignore", GitIgnore(str(tmp_path))

    def now() -> list[bool]:
        return [source.now().line(str(tmp_path / name), False) is not None for name in ("c", "d")]

    assert now() == [False, False]
    date(save(rules, "c\n"))
    assert now() == [True, False]
    date(save(rules, "d\n"))
    assert now() == [False, True]
    rules.unlink()
    assert now() == [False, False]


def test_unchanged_rules_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a file is the same, nothing of it is read or compiled again."""
    save(tmp_path / ".gitignore", "c\n")
    source = GitIgnore(str(tmp_path))
    assert source.now().line(str(tmp_path / "c"), False) is not None
    monkeypatch.setattr(gitignore, "_content", None)
    assert source.now().line(str(tmp_path / "c"), False) is not None
    save(tmp_path / ".gitignore", "c\nd\n")
    with pytest.raises(TypeError):
        source.now().line(str(tmp_path / "c"), False)


def test_rules_that_cannot_be_read_yet() -> None:
    """A file that may not be read has no rules, and has them once it may."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        rules = save(root / ".gitignore", "c\n")

        def allowed() -> bool:
            source = GitIgnore(name)
            rules.chmod(0)
            before = source.now().line(str(root / "c"), False)
            rules.chmod(0o644)
            return before is None and source.now().line(str(root / "c"), False) is not None

        if os.geteuid() == 0:
            os.chown(rules, 65534, 65534)
        assert without_rights(allowed)


def test_what_is_no_file_of_rules(tmp_path: Path) -> None:
    """A folder, a link, a pipe and a `.git` full of nonsense have no rules, and nobody waits for them."""
    save(tmp_path / "rules", "c\n")
    (tmp_path / "folder" / ".gitignore").mkdir(parents=True)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / ".gitignore").symlink_to(tmp_path / "rules")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / ".gitignore")
    for text in (b"", b"gitdir: ", b"gitdir: \0", b"gitdir: .\n", b"\xff\xfe"):
        (tmp_path / ".git").write_bytes(text)
        assert [ignores(tmp_path, f"{each}/c") for each in ("folder", "link", "pipe")] == [None, None, None]
    (tmp_path / ".git").unlink()
    os.mkfifo(tmp_path / ".git")
    assert ignores(tmp_path, "pipe/c") is None


def test_binary_rules_raise_nothing(tmp_path: Path) -> None:
    """Whatever bytes are in the file, it is read without an error."""
    (tmp_path / ".gitignore").write_bytes(bytes(range(256)) * 3 + b"\n\0\n[\0-\xff]\nc\n")
    assert ignores(tmp_path, "c") is not None
