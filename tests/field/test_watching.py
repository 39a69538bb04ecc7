"""Faults found in the field: which files are watched, what counts as a change, and what is said of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from edits import python
from harness import PACKAGE, Project, holds

from .faces import cell, copied, in_service, release

pytestmark = pytest.mark.field

# The start of a program that asks `code_changed()`.
ASKS = "import os, sys\nsys.path.insert(0, os.getcwd())\nfrom wsgi_reload_hooks import code_changed\n"
GONE = pytest.mark.xfail(strict=True, reason="code_changed() is true once for a file that was loaded and is gone")
# In this time a server that restarts for ever has done so many times.
RESTLESS = 8.0


def answers(folder: Path, code: str, **environment: str) -> list[str]:
    """What a program prints that asks `code_changed()`."""
    return python(code, folder, preamble=ASKS, **environment).split()


def at_rest(imports: Path) -> None:
    """The application is not imported again and again: a few times at the start, a trial included, and no more."""
    holds(lambda: imports.stat().st_size <= 4, "at most 4 imports", RESTLESS)


# -- modules whose file is gone after the import -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("face", "place", "by", "after"),
    [
        cell("gunicorn", "temporary", "import", "0", fault="boots workers for ever: the file that is gone is a change"),
        cell("gunicorn", "project", "import", "0.3", fault="boots workers for ever: the file that is gone is a change"),
        cell("uwsgi", "temporary", "import", "0", fault="tries new code for ever: the file that is gone is a change"),
        cell("uwsgi", "project", "import", "0.3", fault="tries new code for ever: the file that is gone is a change"),
        cell("run", "temporary", "import", "0.3"),
        cell("run", "project", "import", "0.3", fault="restarts for ever: the file that is gone is a change"),
        cell(
            "serve", "project", "import", "0.3", fault="never serves: what it has loaded is never what is on the disk"
        ),
    ],
)
def test_module_whose_file_is_gone_after_its_import_is_no_change(
    tmp_path: Path, face: str, place: str, by: str, after: str, limit: float
) -> None:
    """A server at rest stays at rest, and a save of the application goes into service."""
    project = copied("vanishing", tmp_path / "project")
    folder = str(project.root) if place == "project" else ""
    environment = {"VANISHING_IN": folder, "VANISHING_BY": by, "VANISHING_AFTER": after}
    with in_service(face, project, environment, limit) as server:
        at_rest(project.root / "imports.log")
        release(project, "app.py")
        server.wait_for_version("v2", limit=limit)


@pytest.mark.parametrize(
    ("order", "place", "by"),
    [
        pytest.param("asked first", "temporary", "import", marks=GONE),
        pytest.param("asked first", "project", "import", marks=GONE),
        ("asked first", "temporary", "spec"),
        ("imported first", "temporary", "import"),
        ("imported first", "project", "import"),
    ],
)
def test_code_changed_is_false_for_a_module_whose_file_is_gone(tmp_path: Path, order: str, place: str, by: str) -> None:
    """`code_changed()` stays false, whether it was first asked before the import or after it; then it sees a save."""
    project = copied("vanishing", tmp_path / "project")
    first = "code_changed()\nimport app\n" if order == "asked first" else "import app\ncode_changed()\n"
    code = first + "print(*[code_changed() for _ in range(6)])\nos.utime('app.py', (1, 1))\nprint(code_changed())\n"
    folder = str(project.root) if place == "project" else str(tmp_path)
    environment = {"VANISHING_IN": folder, "VANISHING_BY": by, "VANISHING_AFTER": "0"}
    assert answers(project.root, code, **environment) == ["0"] * 6 + ["1"]


# -- modules that are looked up, and not executed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("face", "by"),
    [
        cell(face, by, fault="a broken module that is only looked up counts as loaded, and withholds a good save")
        for face in ("gunicorn", "uwsgi", "run", "serve")
        for by in ("find_spec", "LazyLoader")
    ],
)
def test_module_that_is_only_looked_up_is_not_loaded(tmp_path: Path, face: str, by: str, limit: float) -> None:
    """No trial executes it, and while it is broken a good save of the application goes into service."""
    project = copied("looked_up", tmp_path / "project")
    with in_service(face, project, {"LOOK_BY": by}, limit) as server:
        project.save("danger.py", "def\n")
        release(project, "app.py")
        server.wait_for_version("v2", limit=limit)
        assert not (project.root / "executed.log").exists()


@pytest.mark.xfail(strict=True, reason="what find_spec looks up counts as loaded")
def test_code_changed_is_false_for_a_module_that_is_only_looked_up(tmp_path: Path) -> None:
    """A save of a module that was asked for by `find_spec`, and not imported, is no change; of one imported it is."""
    (tmp_path / "danger.py").write_text("")
    code = "import importlib.util\ncode_changed()\nimportlib.util.find_spec('danger')\ncode_changed()\n"
    code += "os.utime('danger.py', (1, 1))\nprint(code_changed())\n"
    code += "import danger\ncode_changed()\nos.utime('danger.py', (2, 2))\nprint(code_changed())\n"
    assert answers(tmp_path, code) == ["0", "1"]


# -- files that the application executes itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("face", "at", "by"),
    [
        cell(face, at, by, fault="a file that the application executes itself is not watched")
        for face, at in (
            ("gunicorn", "import"),
            ("gunicorn", "request"),
            ("uwsgi", "import"),
            ("uwsgi", "request"),
            ("run", "import"),
            ("serve", "import"),
        )
        for by in ("spec", "runpy", "compile")
    ],
)
def test_file_that_the_application_executes_itself_is_watched(
    tmp_path: Path, face: str, at: str, by: str, limit: float
) -> None:
    """A save of a plugin goes into service, by whichever recipe it was executed, at the import or for a request."""
    project = copied("plugins", tmp_path / "project")
    project.save("folder/hello.py", "VERSION = 'v1'\n")
    with in_service(face, project, {"PLUGIN_BY": by, "PLUGIN_AT": at}, limit) as server:
        release(project, "folder/hello.py")
        server.wait_for_version("v2", limit=limit)


# -- what is ours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "face",
    [
        cell(face, fault="a package that is linked into site-packages is taken for a library")
        for face in ("gunicorn", "uwsgi", "run", "serve")
    ],
)
def test_package_that_is_linked_into_site_packages_is_ours(tmp_path: Path, face: str, limit: float) -> None:
    """As `flit install --symlink` leaves it: what counts is where the link leads, into the project."""
    project = copied("plain", tmp_path / "project")
    project.save("src/part/__init__.py", "VERSION = 'v1'\n")
    environment = {"PYTHONPATH": os.pathsep.join((str(PACKAGE.parent), str(linked(tmp_path, project))))}
    with in_service(face, project, environment, limit) as server:
        release(project, "src/part/__init__.py")
        server.wait_for_version("v2", limit=limit)


def linked(folder: Path, project: Project) -> Path:
    """A `site-packages` with a link to the package `part` of the project."""
    site = folder / "lib" / "site-packages"
    site.mkdir(parents=True)
    (site / "part").symlink_to(project.root / "src" / "part")
    return site


@pytest.mark.xfail(strict=True, reason="a package that is linked into site-packages is taken for a library")
def test_code_changed_sees_a_package_that_is_linked_into_site_packages(tmp_path: Path) -> None:
    """The same for `code_changed()`."""
    project = copied("plain", tmp_path / "project")
    part = project.root / "src" / "part" / "__init__.py"
    project.save("src/part/__init__.py", "VERSION = 'v1'\n")
    code = f"sys.path.append({str(linked(tmp_path, project))!r})\nimport app\n"
    code += f"code_changed()\nos.utime({str(part)!r}, (1, 1))\nprint(code_changed())\n"
    assert answers(project.root, code) == ["1"]


@pytest.mark.parametrize(
    "face",
    [
        cell("gunicorn"),
        cell("uwsgi"),
        cell("run", fault="the program does not tell of files below a folder with the name of a library"),
        cell("serve", fault="the program does not tell of files below a folder with the name of a library"),
    ],
)
@pytest.mark.parametrize("name", ["dist-packages", "site-packages"])
def test_project_inside_a_folder_with_the_name_of_a_library_is_ours(
    tmp_path: Path, face: str, name: str, limit: float
) -> None:
    """What counts is the part of the path inside the project's folder."""
    project = copied("plain", tmp_path / name / "project")
    project.save("part.py", "VERSION = 'v1'\n")
    with in_service(face, project, {}, limit) as server:
        release(project, "part.py")
        server.wait_for_version("v2", limit=limit)


def test_code_changed_sees_a_project_inside_dist_packages(tmp_path: Path) -> None:
    """The same for `code_changed()`."""
    project = copied("plain", tmp_path / "dist-packages" / "project")
    project.save("part.py", "VERSION = 'v1'\n")
    code = "import app\ncode_changed()\nos.utime('part.py', (1, 1))\nprint(code_changed())\n"
    assert answers(project.root, code) == ["1"]
