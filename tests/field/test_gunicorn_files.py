"""Files that a server is made of besides Python modules: gunicorn's configuration, PasteDeploy's ini files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import CONFIGURATION, HAVE_UWSGI, Gunicorn, Project, Server, Uwsgi, wait_until

pytestmark = pytest.mark.field

LIMIT = 6.0

# -- the configuration, where the server changes its folder --------------------------------------------------------

# What is given: `-c`, where the configuration is, the options.
WAYS: dict[str, tuple[str | None, str, list[str]]] = {
    "default": (None, "gunicorn.conf.py", ["--chdir", "inner"]),
    "relative": ("server.py", "server.py", ["--chdir", "inner"]),
    "file": ("file:server.py", "server.py", ["--chdir", "inner"]),
    "own chdir": ("server.py", "server.py", []),
    "beside": (str(CONFIGURATION), "gunicorn.conf.py", ["--chdir", "inner"]),
    "absolute": ("/server.py", "server.py", ["--chdir", "inner"]),
}


def each_way(fault: str) -> list[Any]:
    """The ways to name it; today only the absolute path is right."""
    fails = pytest.mark.xfail(strict=True, reason=fault)
    return [pytest.param(way, marks=() if way == "absolute" else fails) for way in WAYS]


def in_another_folder(way: str, tmp_path: Path) -> tuple[Gunicorn, str]:
    """A server whose application is in `inner`, and the name of its configuration."""
    given, name, options = WAYS[way]
    project = Project(tmp_path / "project")
    project.copy("chdir")
    (project.root / "server.py").rename(project.root / name)
    if way == "own chdir":
        project.edit(name, "workers = 1", 'workers = 1\nchdir = "inner"')
    configuration = str(project.root / name) if way == "absolute" else given
    return Gunicorn(project, *options, workers=0, configuration=configuration), name


@pytest.mark.parametrize(
    "way", each_way("it is looked for in the folder that --chdir names: a change says reloaded and is not applied")
)
def test_configuration_is_applied_where_the_server_changes_its_folder(way: str, tmp_path: Path) -> None:
    """By a save, as by its absolute path."""
    server, name = in_another_folder(way, tmp_path)
    with server:
        server.wait_for_log("watching")
        server.project.edit(name, "workers = 1", "workers = 3")
        # While one takes the place of another there are two.
        wait_until(lambda: len(server.workers()) == 3, lambda: f"3 workers; there are {server.workers()}", LIMIT)


@pytest.mark.parametrize(
    "way", each_way("it is looked for in the folder that --chdir names: a broken one is refused as application code")
)
def test_broken_configuration_is_refused_as_such_where_the_server_changes_its_folder(way: str, tmp_path: Path) -> None:
    """A broken configuration is no application code; good code goes in beside it."""
    server, name = in_another_folder(way, tmp_path)
    with server:
        server.wait_for_log("watching")
        server.project.edit(name, "workers = 1", "undefined_name")
        server.wait_for_log(rf"configuration refused.*{name}", limit=LIMIT)
        server.project.edit("inner/app.py", '"v1"', '"v2"')
        server.wait_for_version("v2", limit=LIMIT)


# -- PasteDeploy ---------------------------------------------------------------------------------------------------

uwsgi_too = pytest.mark.skipif(not HAVE_UWSGI, reason="uWSGI is not installed")
uwsgi = pytest.param("--ini-paste site.ini", marks=uwsgi_too)


@pytest.fixture
def site(tmp_path: Path) -> Project:
    """An application that an ini file of PasteDeploy makes."""
    pytest.importorskip("paste.deploy")
    project = Project(tmp_path / "project")
    project.copy("pasted")
    return project


def serve(site: Project, name: str, *, wait: bool = True) -> Server:
    """Two workers of the server and with the ini file that *name* says."""
    option, _, file = name.partition(" ")
    if option == "gunicorn":
        return Gunicorn(site, "--paste", file, workers=2, application=None, wait=wait)
    given = f"config:{site.root / file}" if option == "--paste" else file
    return Uwsgi(site, workers=2, target=(option, given), wait=wait)


unwatched = pytest.mark.xfail(strict=True, reason="the ini file that makes the application is not watched")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("gunicorn site.ini", marks=unwatched),
        pytest.param("gunicorn site.ini#main", marks=unwatched),
        pytest.param("gunicorn derived.ini", marks=unwatched),
        uwsgi,
        pytest.param("--paste site.ini", marks=uwsgi_too),
        pytest.param("--ini-paste derived.ini", marks=[uwsgi_too, unwatched]),
    ],
)
def test_paste_ini_is_watched(name: str, site: Project) -> None:
    """What is saved in it is served, by every worker."""
    with serve(site, name) as server:
        server.wait_for_log("watching")
        server.wait_for_everyone("v1")
        site.edit("site.ini", "text = v1", "text = v2")
        wait_until(lambda: set(server.answers().values()) == {"v2"}, "everyone answers v2", LIMIT)


@pytest.mark.xfail(strict=True, reason="the refusal of a broken ini file names another file")
@pytest.mark.parametrize("name", ["gunicorn site.ini", uwsgi])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("[app:main]", "[app:main", id="syntax"),
        pytest.param("pasted:make", "pasted:nothing", id="factory"),
    ],
)
def test_broken_paste_ini_is_refused(name: str, old: str, new: str, site: Project) -> None:
    """It is refused by its own name, with what a save of Python brought at the same time; its repair goes in."""
    with serve(site, name) as server:
        server.wait_for_log("watching")
        site.edit("site.ini", old, new)
        # A module that is watched: whoever loads it again meets the ini file.
        site.edit("pasted.py", "Answers", "Returns")
        server.wait_for_log(r"refused.*site\.ini", limit=LIMIT)
        assert server.version() == "v1"
        site.edit("site.ini", new, old)
        site.edit("site.ini", "text = v1", "text = v2")
        server.wait_for_version("v2", limit=LIMIT)


@pytest.mark.parametrize("name", [pytest.param("gunicorn site.ini", marks=unwatched), uwsgi])
def test_paste_ini_broken_at_the_start_is_repaired(name: str, site: Project) -> None:
    """The server waits for the repair."""
    site.edit("site.ini", "pasted:make", "pasted:nothing")
    with serve(site, name, wait=False) as server:
        server.wait_for_log("nothing", limit=LIMIT)
        site.edit("site.ini", "pasted:nothing", "pasted:make")
        server.wait_ready(LIMIT)
