"""Is git or Mercurial in the middle of something, and how long do changes wait for that."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from edits import save, without_rights
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wsgi_reload_hooks.watching.checkout import Checkout
from wsgi_reload_hooks.watching.debounce import Debouncer

pytestmark = pytest.mark.unit

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
SOON, LATER = 0.9, 1.0
AT_MOST = 10.0


def git(root: Path, *arguments: str, code: int = 0) -> None:
    """Run git in *root*, without the settings of whoever runs the tests; it ends with *code*."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "XDG_"))}
    who = {f"GIT_{role}_{what}": "x@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    none = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_EDITOR": "true"}
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *arguments],
        cwd=root,
        env={**ours, **who, **none, "HOME": str(root / "nowhere")},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done


def commit(root: Path, text: str, name: str = "a.py") -> None:
    save(root / name, text)
    git(root, "add", "-A")
    git(root, "commit", "-qm", text)


@pytest.fixture
def two_branches(tmp_path: Path) -> Path:
    """A repository that stands on `main`; `other` has changed the same line."""
    root = tmp_path / "work"
    root.mkdir()
    git(root, "init", "-q")
    commit(root, "base")
    git(root, "checkout", "-qb", "other")
    commit(root, "theirs")
    git(root, "checkout", "-q", "main")
    commit(root, "ours")
    return root


def unfinished(root: Path, quiet: float) -> bool:
    return Checkout(str(root)).unfinished(quiet)


def stays_for_a_second(root: Path) -> bool:
    """Whether more is expected within a second, and no longer."""
    return [unfinished(root, quiet) for quiet in (0.0, SOON, LATER, 5.0)] == [True, True, False, False]


def never(root: Path) -> bool:
    return not unfinished(root, 0.0) and not unfinished(root, LATER)


def always(root: Path) -> bool:
    return unfinished(root, 0.0) and unfinished(root, 1e9)


# -- git -------------------------------------------------------------------------------------------------------------


@needs_git
@pytest.mark.parametrize(
    ("begin", "abort"),
    [
        (("rebase", "other"), ("rebase", "--abort")),
        (("rebase", "--apply", "other"), ("rebase", "--abort")),
        (("merge", "other"), ("merge", "--abort")),
        (("cherry-pick", "other"), ("cherry-pick", "--abort")),
        (("revert", "HEAD~1"), ("revert", "--abort")),
    ],
    ids=" ".join,
)
def test_stopped_by_a_conflict(two_branches: Path, begin: tuple[str, ...], abort: tuple[str, ...]) -> None:
    """What git left half done waits a second for its next step, not longer: then it is the user's turn."""
    assert never(two_branches)
    git(two_branches, *begin, code=1)
    assert stays_for_a_second(two_branches)
    git(two_branches, *abort)
    assert never(two_branches)


@needs_git
def test_conflict_that_is_resolved(two_branches: Path) -> None:
    """With the last step of a rebase nothing more is to come."""
    git(two_branches, "rebase", "other", code=1)
    save(two_branches / "a.py", "both")
    git(two_branches, "add", "a.py")
    assert stays_for_a_second(two_branches)
    git(two_branches, "rebase", "--continue")
    assert never(two_branches)


@needs_git
def test_rebase_that_stops_for_an_edit(two_branches: Path) -> None:
    """A rebase between two of its commits, without any conflict."""
    git(two_branches, "-c", "sequence.editor=sed -i.bak s/^pick/edit/", "rebase", "-i", "HEAD~1")
    assert stays_for_a_second(two_branches)


@needs_git
def test_from_a_folder_below(two_branches: Path) -> None:
    """The project may be a folder of the repository."""
    below = two_branches / "src" / "deep"
    below.mkdir(parents=True)
    git(two_branches, "merge", "other", code=1)
    assert stays_for_a_second(below)


@needs_git
def test_lock_of_a_running_git(two_branches: Path) -> None:
    """As long as git holds its index, more is to come; a real git holds it while its hook runs."""
    hook = save(two_branches / ".git" / "hooks" / "pre-commit", "#!/bin/sh\ntest -e .git/index.lock && touch seen\n")
    hook.chmod(0o755)
    save(two_branches / "a.py", "next")
    git(two_branches, "commit", "-qam", "next")
    assert (two_branches / "seen").exists() and never(two_branches)
    lock = save(two_branches / ".git" / "index.lock", "")
    assert always(two_branches)
    lock.unlink()
    assert never(two_branches)


@needs_git
def test_worktree(two_branches: Path) -> None:
    """A worktree has its own index: what happens there is nothing to the main one, and the other way round."""
    tree = two_branches.parent / "tree"
    git(two_branches, "worktree", "add", "-q", str(tree), "other")
    assert (tree / ".git").is_file() and never(tree)
    git(tree, "merge", "main", code=1)
    assert stays_for_a_second(tree) and never(two_branches)
    git(tree, "merge", "--abort")
    save(two_branches / ".git" / "index.lock", "")
    assert never(tree) and always(two_branches)
    save(two_branches / ".git" / "worktrees" / "tree" / "index.lock", "")
    assert always(tree)


@needs_git
def test_submodule(two_branches: Path, tmp_path: Path) -> None:
    """A submodule says with a relative path where its index is."""
    top = tmp_path / "top"
    top.mkdir()
    git(top, "init", "-q")
    git(top, "submodule", "--quiet", "add", str(two_branches), "lib")
    inside = top / "lib"
    assert (inside / ".git").read_text().startswith("gitdir: ../") and never(inside)
    git(inside, "merge", "origin/other", code=1)
    assert stays_for_a_second(inside) and never(top)


def test_nearest_repository_counts(tmp_path: Path) -> None:
    """A repository in another one speaks for itself; without git, nobody has to be asked."""
    (tmp_path / "outer" / ".git").mkdir(parents=True)
    save(tmp_path / "outer" / ".git" / "index.lock", "")
    (tmp_path / "outer" / "inner" / ".git").mkdir(parents=True)
    (tmp_path / "outer" / "plain").mkdir()
    assert always(tmp_path / "outer" / "plain") and never(tmp_path / "outer" / "inner")


@pytest.mark.parametrize("text", ["", "gitdir", "gitdir:", "gitdir: /no/such/place", "elsewhere: .git\n", "\xff\0\n"])
def test_file_that_leads_nowhere(tmp_path: Path, text: str) -> None:
    """A `.git` file that says nothing of use is no error, and nothing is unfinished."""
    (tmp_path / ".git").write_bytes(text.encode("latin-1"))
    assert never(tmp_path)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A `.git` file without rights to it is no error."""
    tmp_path.chmod(0o755)
    save(tmp_path / "real" / "index.lock", "")
    file = save(tmp_path / ".git", f"gitdir: {tmp_path}/real\n")
    assert always(tmp_path)
    file.chmod(0)
    # Without the folders above: those of pytest are closed to others.
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert without_rights(lambda: not Checkout(".").unfinished(0.0))
    finally:
        os.chdir(here)


# -- Mercurial, nothing, both ----------------------------------------------------------------------------------------


def test_mercurial(tmp_path: Path) -> None:
    """Mercurial's lock of the working copy is a link to nowhere, that names who holds it."""
    (tmp_path / ".hg").mkdir()
    below = save(tmp_path / "src" / "a.py", "").parent
    assert never(tmp_path) and never(below)
    lock = tmp_path / ".hg" / "wlock"
    lock.symlink_to("machine/4026531836:4711")
    assert not lock.exists() and always(tmp_path) and always(below)
    lock.unlink()
    assert never(tmp_path)


def test_no_repository(tmp_path: Path) -> None:
    """Outside of any repository nothing is ever unfinished; a folder that is gone neither."""
    if any((folder / name).exists() for folder in tmp_path.parents for name in (".git", ".hg")):
        pytest.skip("the temporary folder lies in a repository")
    save(tmp_path / "index.lock", "")
    assert never(tmp_path) and never(tmp_path / "gone" / "for good")


def test_repository_that_comes_later(tmp_path: Path) -> None:
    """What there is, is asked each time: `git init` after the start counts."""
    checkout = Checkout(str(tmp_path))
    assert not checkout.unfinished(0.0)
    save(tmp_path / ".git" / "MERGE_HEAD", "")
    assert checkout.unfinished(0.0)


@hypothesis_settings(deadline=None, database=None, max_examples=50)
@given(st.floats(0.0, 2.0) | st.just(1.0))
def test_the_one_second_rule(quiet: float) -> None:
    """A step counts for less than a second, a lock for as long as it is held."""
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / ".git" / "MERGE_HEAD", "")
        assert unfinished(Path(folder), quiet) == (quiet < 1.0)
        save(Path(folder) / ".git" / "index.lock", "")
        assert unfinished(Path(folder), quiet)


# -- changes that wait -----------------------------------------------------------------------------------------------


class Asked:
    """A repository that answers as told, and remembers what it was asked with."""

    def __init__(self, answer: Callable[[], bool] = lambda: True) -> None:
        self.quiet: list[float] = []
        self._answer = answer

    def __call__(self, quiet: float) -> bool:
        self.quiet.append(quiet)
        return self._answer()


def test_waits_on_and_asks_again_after_each_step() -> None:
    """While something is unfinished, changes wait; it is asked once a `step`, with the seconds of quiet."""
    answers = [True, True, False]
    asked = Asked(lambda: answers.pop(0))
    debouncer = Debouncer(0.5, 2.0, asked)
    debouncer.add({"a"}, 100.0)
    assert debouncer.take(100.25) == set() and asked.quiet == []
    assert debouncer.take(100.5) == set() and debouncer.wait(100.5) == 0.5
    assert debouncer.take(100.75) == set() and len(asked.quiet) == 1
    assert debouncer.take(101.0) == set() and debouncer
    assert debouncer.take(101.5) == {"a"} and not debouncer
    assert asked.quiet == [0.5, 1.0, 1.5]


def test_more_that_comes_meanwhile() -> None:
    """What changes while others wait is told with them, and quiet counts anew."""
    answers = [True, False]
    asked = Asked(lambda: answers.pop(0))
    debouncer = Debouncer(0.5, 2.0, asked)
    debouncer.add({"a"}, 100.0)
    assert debouncer.take(100.5) == set()
    debouncer.add({"b"}, 100.75)
    assert debouncer.take(101.0) == set() and debouncer.wait(101.0) == 0.25
    assert debouncer.take(101.25) == {"a", "b"}
    assert asked.quiet == [0.5, 0.5]


def test_gives_up_after_ten_seconds() -> None:
    """A lock that somebody left behind holds changes up for ten seconds, and not one file longer than the other."""
    asked = Asked()
    debouncer = Debouncer(1.0, 2.0, asked)
    debouncer.add({"a"}, 100.0)
    for second in range(1, 10):
        assert debouncer.take(100.0 + second) == set()
    assert debouncer.take(100.0 + AT_MOST) == {"a"} and len(asked.quiet) == 9


def test_the_next_change_waits_anew() -> None:
    """After it has given up once, the next change has ten seconds of its own, and is not held up by those before."""
    debouncer = Debouncer(1.0, 2.0, Asked())
    debouncer.add({"a"}, 100.0)
    assert debouncer.take(110.0) == {"a"}
    debouncer.add({"b"}, 110.25)
    assert debouncer.wait(110.25) == 1.0
    assert debouncer.take(111.25) == set() and debouncer.take(119.0) == set()
    assert debouncer.take(120.25) == {"b"}


def test_a_refusal_does_not_hold_up_what_comes_after_it() -> None:
    """What was refused before has no part in when the next change is due."""
    answers = [True, False, False]
    debouncer = Debouncer(1.0, 1.0, Asked(lambda: answers.pop(0)))
    debouncer.add({"a"}, 100.0)
    assert debouncer.take(101.0) == set()
    assert debouncer.take(102.0) == {"a"}
    debouncer.add({"b"}, 100.5)
    assert debouncer.wait(101.5) == 0.0 and debouncer.take(101.5) == {"b"}


def test_nothing_is_asked_without_changes() -> None:
    """As long as nothing has changed, git is nobody's concern."""
    asked = Asked()
    debouncer = Debouncer(1.0, 2.0, asked)
    assert [debouncer.take(float(now)) for now in range(100)] == [set()] * 100
    assert asked.quiet == []


@hypothesis_settings(deadline=None, database=None)
@given(
    st.lists(st.tuples(st.integers(0, 3000), st.booleans()), max_size=40),
    st.integers(1, 500),
    st.integers(1, 4000),
    st.integers(0, 15000),
)
def test_no_spinning_and_an_end(ticks: list[tuple[int, bool]], step: int, debounce: int, released: int) -> None:
    """Whoever sleeps for `wait()` each time is never told to come at once in vain, and is told all in the end.

    Thousandths of a second, as whole numbers: what is due is due exactly.
    """
    clock = itertools.accumulate((delay for delay, _ in ticks), initial=0)
    changes = sorted(when for when, (_, comes) in zip(clock, ticks, strict=False) if comes)
    now = 0
    debouncer = Debouncer(step / 1024, debounce / 1024, lambda quiet: now < released)
    asked_in_a_row = first = 0
    while changes or debouncer:
        if not debouncer:
            now = max(now, changes[0])
        while changes and changes[0] <= now:
            first = first if debouncer else now
            debouncer.add({str(changes.pop(0))}, now / 1024)
        taken = debouncer.take(now / 1024)
        if taken:
            assert now >= released or now - first >= 10 * 1024
            continue
        wait = debouncer.wait(now / 1024)
        assert wait > 0, "it would spin"
        assert now - first < max(10 * 1024, debounce) + step, "for ever"
        now += round(wait * 1024)
        asked_in_a_row += 1
        assert asked_in_a_row < 200_000
