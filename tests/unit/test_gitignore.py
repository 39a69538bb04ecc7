"""What git ignores: the same answers as git's own, from the file system alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from edits import date, save, without_rights

from wsgi_reload_hooks.watching.gitignore import GitIgnore

pytestmark = pytest.mark.unit

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git to compare with")


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


def ignores(root: Path, path: str, folder: bool = False) -> str | None:
    """The text of the line that has git ignore *path*."""
    reason = GitIgnore(str(root)).reason(os.path.normpath(root / path), folder)
    return reason.partition(" of ")[0].split(" ", 2)[2].strip("'") if reason else None


# The rules, then which paths they have ignored and which not. A path that ends in a slash is a folder on the disk.
TABLE = [
    ("name", "b", ["b", "x/b", "x/b/c"], ["bb", "x/cb"]),
    ("comment", "#b\n\\#c", ["#c"], ["b", "#b"]),
    ("empty lines", "\n \n/\n!\n", [], ["x", " ", "!"]),
    ("star", "*.x", ["c.x", "d/.x"], ["c.xx"]),
    ("star stays in its folder", "d/*.x", ["d/c.x"], ["d/e/c.x", "e/d/c.x"]),
    ("question mark", "d/?", ["d/e"], ["d/ee", "d", "e/d/e"]),
    ("set", "[b-d!].q\n[!a].r", ["c.q", "!.q", "b.r"], ["a.q", "a.r"]),
    ("odd sets", "x[]-]\ny[a-]\nz[\\]]", ["x]", "x-", "y-"], ["xz", "yb"]),
    ("sets that do not end", "x[\ny[]\nz[!]", [], ["x[", "y[]", "zb"]),
    ("only folders", "k/", ["d/k/c", "real/k/"], ["k", "d/k", "link/k"]),
    ("anchored", "/c\nd/e", ["c", "c/x", "d/e"], ["x/c", "x/d/e"]),
    ("two stars before", "**/c\n**/d/e", ["c", "x/y/c", "d/e", "x/d/e"], ["cc"]),
    ("two stars behind", "d/**", ["d/e", "d/e/f"], ["d", "x/d/e"]),
    ("two stars between", "d/**/e", ["d/e", "d/x/e", "d/x/y/e"], ["de", "d/xe"]),
    ("two stars in a name", "d/x?**y", ["d/xzy"], ["d/xz/y"]),
    ("taken back", "*.x\n!keep.x", ["c.x"], ["keep.x", "d/keep.x"]),
    ("the last line wins", "!c\nc\n!d\nd\n!d", ["c"], ["d"]),
    ("a folder is not entered", "d/\n!d/keep", ["d/keep", "d/e/f"], ["keep"]),
    ("all in a folder but one", "d/*\n!d/keep", ["d/c"], ["d/keep"]),
    ("all below a folder but one", "d/**\n!d/keep", ["d/c", "d/e/f"], ["d/keep"]),
    ("escapes", "\\!c\nd\\*\n\\e\nf\\", ["!c", "d*", "e"], ["c", "dx", "f", "f\\"]),
    ("spaces", "c  \nd\\ \ne \\ \n f", ["c", "d ", "e  ", " f"], ["c  ", "d", "e", "f"]),
    ("carriage return", "d\r\n*.e\r\n", ["d", "x.e"], ["c"]),
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
    reason = GitIgnore(str(tmp_path)).reason(str(tmp_path / "d" / "build" / "x"), False)
    assert reason == "line 3 'build/' of d/.gitignore"


# -- over time -------------------------------------------------------------------------------------------------------


def test_changed_rules_count_at_once(tmp_path: Path) -> None:
    """Rules that are written, replaced with the same date, and removed: each time the next look knows."""
    rules = tmp_path / ".gitignore"

    def now() -> list[bool]:
        return [ignores(tmp_path, name) is not None for name in ("c", "d")]

    assert now() == [False, False]
    date(save(rules, "c\n"))
    assert now() == [True, False]
    date(save(rules, "d\n"))
    assert now() == [False, True]
    rules.unlink()
    assert now() == [False, False]


def test_rules_that_cannot_be_read_yet() -> None:
    """A file that may not be read has no rules, and has them once it may."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        rules = save(root / ".gitignore", "c\n")

        def allowed() -> bool:
            rules.chmod(0)
            before = ignores(root, "c")
            rules.chmod(0o644)
            return before is None and ignores(root, "c") is not None

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


def test_line_with_many_asterisks_hangs_nobody(tmp_path: Path) -> None:
    """A line that would backtrack for years is not used, and told with its place; the lines beside it are."""
    save(tmp_path / ".gitignore", "# *a*a*a*a*\n" + "*a" * 40 + "b\nc\n" + "**/a/" * 3 + "b\n")
    ignored = GitIgnore(str(tmp_path))
    assert not ignored.reason(str(tmp_path / ("a" * 255)), False)
    assert ignored.reason(str(tmp_path / "c"), False) == "line 3 'c' of .gitignore"
    why = "too many asterisks: 3 beside other characters and 2 of `**/` at most"
    assert ignored.unused() == {f"line {number} of .gitignore is not used: {why}" for number in (2, 4)}
