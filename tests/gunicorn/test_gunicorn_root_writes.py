"""gunicorn as root with `user = nobody`: the arbiter writes as root only where root decided."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Gunicorn, Project, wait_until

pytestmark = [
    pytest.mark.adapters,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights away"),
]
VARIABLE = "WSGI_RELOAD_METRICS_FILE"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder below folders that only root can change, for a project of the workers' and for files of root's."""
    with tempfile.TemporaryDirectory(dir="/var/lib", prefix="wrh-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def the_workers(folder: Path) -> Project:
    """A project that belongs to nobody."""
    project = Project(folder / "project", import_seconds=0.0)
    project.release()
    nobody = pwd.getpwnam("nobody")
    for path in (project.root, *project.root.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return project


def start(project: Project, **environment: str) -> Gunicorn:
    group = str(pwd.getpwnam("nobody").pw_gid)
    return Gunicorn(project, "--user", "nobody", "--group", group, workers=1, environment=environment)


def test_root_decided(folder: Path) -> None:
    """The environment names a file in a folder of root's: written as root."""
    path = folder / "reload.prom"
    with start(the_workers(folder), **{VARIABLE: str(path)}) as server:
        server.wait_for_workers(1)
        wait_until(path.exists, "the counters")
        assert path.stat().st_uid == 0


def test_the_project_decided(folder: Path) -> None:
    """The workers' pyproject.toml names a file: written as the workers, and not at all where they may not write."""
    project = the_workers(folder)
    path = project.root / "reload.prom"
    settings = project.root / "pyproject.toml"
    settings.write_text('[tool.wsgi_reload_hooks]\nmetrics_file = "reload.prom"\n')
    os.chown(settings, pwd.getpwnam("nobody").pw_uid, -1)
    with start(project) as server:
        server.wait_for_workers(1)
        wait_until(path.exists, "the counters")
        assert path.stat().st_uid == pwd.getpwnam("nobody").pw_uid
    victim = folder / "victim"
    victim.write_text("of root")
    settings.write_text(f'[tool.wsgi_reload_hooks]\nmetrics_file = "{victim}"\n')
    with start(project) as server:
        server.wait_for_log(r"reload: metrics_file .*victim cannot be written: Permission denied")
        assert victim.read_text() == "of root"


def test_a_planted_link(folder: Path) -> None:
    """The environment names a file below a folder of the workers', who put a link to root's folder there."""
    project = the_workers(folder)
    (folder / "private").mkdir()
    (project.root / "run").symlink_to(folder / "private")
    with start(project, **{VARIABLE: "run/reload.prom"}) as server:
        server.wait_for_log(r"reload: metrics_file .*reload\.prom cannot be written: Permission denied")
        project.release()
        server.wait_for_version(project.version)
        assert os.listdir(folder / "private") == []
