"""A root arbiter with user and group set: new code never runs with more rights than the workers have."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Gunicorn, Project, holds, patterns, wait_until

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can give rights away")

NOBODY = "nobody"
NOTE = """
with open({notes!r}, "a") as notes:
    notes.write("%s %s %s %s\\n" % (os.getresuid(), os.getresgid(), os.getgroups(), {what!r}))
"""


def can_run_python(user: str) -> bool:
    """Not where the interpreter lives in root's home."""
    try:
        done = subprocess.run([sys.executable, "-c", "import gunicorn"], user=user, extra_groups=[], check=False)
    except PermissionError:
        return False
    return done.returncode == 0


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter: the ones of pytest are for their owner alone."""
    folder = Path(tempfile.mkdtemp(prefix="wrh-public-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


class Witness:
    """Every import of the application tells with which rights it ran."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notes"
        self.path.write_text("")
        self.path.chmod(0o666)

    def top(self, what: str, then: str = "") -> str:
        return NOTE.format(notes=str(self.path), what=what) + then

    def wait(self, what: str) -> None:
        wait_until(lambda: f" {what}\n" in self.path.read_text(), f"the import of {what}")

    def rights(self) -> set[str]:
        return {line.rpartition(" ")[0] for line in self.path.read_text().splitlines()}


@pytest.mark.adapters
@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_all_code_runs_with_the_rights_of_the_workers(worker_class: str, public: Path) -> None:
    """Good saves, broken saves and their repair: every import ran as the workers' user, none as root."""
    user = pwd.getpwnam(NOBODY)
    group = str(user.pw_gid)
    project, witness = Project(public / "project"), Witness(public)
    project.release(top=witness.top("start"))
    options = ("--user", NOBODY, "--group", group)
    with Gunicorn(project, *options, worker_class=worker_class, workers=2) as server:
        # A save that the last worker of the start has loaded by itself would be no reload.
        server.wait_for_log(patterns.WATCHING)
        first = witness.rights()
        assert len(first) == 1
        assert f"({user.pw_uid}, {user.pw_uid}, {user.pw_uid}) ({group}, {group}, {group})" in first.pop()
        project.release(top=witness.top("good"))
        server.wait_for_version(project.version)
        project.broken(top=witness.top("bad", "undefined_name"))
        server.wait_for_log(patterns.REFUSED)
        project.release(top=witness.top("repaired"))
        server.wait_for_version(project.version)
        server.hup()
        server.wait_for_log(patterns.RELOADED, 3)
        for what in ("good", "bad", "repaired"):
            witness.wait(what)
        assert len(witness.rights()) == 1, witness.rights()


def test_a_broken_start_runs_with_the_rights_of_the_workers(public: Path) -> None:
    """Broken at the start, then repaired: no import ran as root."""
    project, witness = Project(public / "project"), Witness(public)
    group = str(pwd.getpwnam(NOBODY).pw_gid)
    project.broken(top=witness.top("bad", "undefined_name"))
    with Gunicorn(project, "--user", NOBODY, "--group", group, workers=2, wait=False) as server:
        server.wait_for_log(patterns.WAITING_FOR_REPAIR)
        project.release(top=witness.top("repaired"))
        server.wait_until_ready_with(project.version)
        witness.wait("bad")
        witness.wait("repaired")
        assert len(witness.rights()) == 1, witness.rights()
        assert not any("(0, 0, 0)" in rights for rights in witness.rights())


def test_code_that_the_workers_may_not_read_is_refused(public: Path) -> None:
    """A file that root may read and the workers may not: refused, as the workers would."""
    project = Project(public / "project")
    project.release()
    group = str(pwd.getpwnam(NOBODY).pw_gid)
    with Gunicorn(project, "--user", NOBODY, "--group", group, workers=2) as server:
        good = project.version
        text = project.source("secret")
        sibling = project.root / "app.py.new"
        sibling.write_text(text)
        sibling.chmod(0o600)
        os.replace(sibling, project.root / "app.py")
        server.wait_for_log(patterns.REFUSED)
        holds(lambda: server.version() == good, "the version that may be read", seconds=0.5)
        project.release()
        server.wait_for_version(project.version)


def test_an_arbiter_without_root(public: Path) -> None:
    """A server that an ordinary user starts, in a folder it may not write: saves and repairs are served."""
    if not can_run_python(NOBODY):
        pytest.skip(f"{NOBODY} may not run this interpreter")
    project = Project(public / "project")
    project.release()
    with Gunicorn(project, workers=2, run_as=NOBODY) as server:
        project.release()
        server.wait_for_version(project.version)
        project.broken(top="undefined_name")
        server.wait_for_log(patterns.REFUSED)
        project.release()
        server.wait_for_version(project.version)
