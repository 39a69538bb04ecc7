"""Faults found in the field: `wsgi-reload hup`, which files count and what withholds a signal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import Gunicorn, Hup, LittleServer, Project, holds, wait_until

from .faces import STAT

pytestmark = pytest.mark.field

# As cookiecutter has it in its folder of templates.
TEMPLATE = "{% if cookiecutter.use_celery %}\nimport celery\n{% endif %}\n# {{ cookiecutter.year }}\n"


@pytest.fixture
def server(project: Project) -> Iterator[LittleServer]:
    """A server in the project's folder."""
    with LittleServer(project.root) as server:
        yield server


# -- what is no Python -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [False, True], ids=["compiled", "app"])
@pytest.mark.xfail(strict=True, reason="a template that is no Python withholds all that is saved")
def test_template_that_was_never_python_withholds_nothing(
    project: Project, server: LittleServer, app: bool, limit: float
) -> None:
    """A `.py` file that did not compile before its save either says nothing about the code; nor does one beside --app."""
    project.save("template/{{cookiecutter.name}}/main.py", TEMPLATE)
    options = ["--app", "app:app"] if app else []
    with Hup(project, "server.pid", *options, environment=STAT) as watcher:
        project.save("template/{{cookiecutter.name}}/main.py", TEMPLATE + "# more\n")
        project.release()
        watcher.wait_for_log(r"HUP sent.*app\.py", limit=limit)
        server.wait_got("SIGHUP")


@pytest.mark.xfail(strict=True, reason="a file that is no Python withholds an application that loads")
def test_new_file_that_is_no_python_does_not_withhold_an_application_that_loads(
    project: Project, server: LittleServer, limit: float
) -> None:
    """With --app the application is the judge: a file that it does not load may be anything."""
    with Hup(project, "server.pid", "--app", "app:app", environment=STAT) as watcher:
        project.save("template/main.py", TEMPLATE)
        project.release()
        watcher.wait_for_log(r"HUP sent.*app\.py", limit=limit)


def test_broken_save_of_good_python_is_withheld(project: Project, server: LittleServer) -> None:
    """A file that did compile and does not any more is refused, as ever, and its repair goes in."""
    project.save("part.py", "x = 1\n")
    with Hup(project, "server.pid", environment=STAT) as watcher:
        project.save("part.py", TEMPLATE)
        watcher.wait_for_log(r"refused.*part\.py")
        holds(lambda: not server.got(), "nothing is sent", 0.3)
        project.save("part.py", "x = 2\n")
        server.wait_got("SIGHUP")


# -- what counts -------------------------------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="globs do not enter linked folders, silently")
def test_glob_enters_a_linked_folder(project: Project, server: LittleServer, limit: float) -> None:
    """What lies in a folder that is linked into the project counts like all else in it."""
    outside = Project(project.root.parent / "outside")
    outside.save("part.py", "x = 1\n")
    (project.root / "shared").symlink_to(outside.root)
    with Hup(project, "server.pid", environment=STAT) as watcher:
        outside.save("part.py", "x = 2\n")
        watcher.wait_for_log(r"HUP sent.*part\.py", limit=limit)


@pytest.mark.xfail(strict=True, reason="globs do not enter linked folders, silently")
def test_glob_in_extra_files_enters_a_linked_folder(project: Project, limit: float) -> None:
    """The same for gunicorn and its `extra_files`."""
    outside = Project(project.root.parent / "outside")
    outside.save("prices.yaml", "one\n")
    (project.root / "shared").symlink_to(outside.root)
    with Gunicorn(project, workers=1, environment={**STAT, "WSGI_RELOAD_EXTRA_FILES": "**/*.yaml"}) as gunicorn:
        gunicorn.wait_for_log(r"watching \d+ files?")
        outside.save("prices.yaml", "two\n")
        gunicorn.wait_for_log(r"reloaded in.*prices\.yaml", limit=limit)


def test_glob_does_not_go_round_in_a_circle_of_links(project: Project, server: LittleServer) -> None:
    """A link to a folder above itself: each file counts once, and saves are noticed."""
    (project.root / "again").symlink_to(project.root)
    with Hup(project, "server.pid", environment=STAT) as watcher:
        project.release()
        assert watcher.wait_sent(1).count("app.py") == 1
        server.wait_got("SIGHUP")


@pytest.mark.parametrize(
    "name",
    [
        "._app.py",
        ".~lock.prices.ods#",
        ".nfs000000000a1b2c3d00000001",
        "app.py.filepart",
        "app.py.crdownload",
        ".app.py.Ab12cd",
        ".DS_Store",
        "Thumbs.db",
        ".app.py.kate-swp",
        "~$prices.xlsx",
    ],
)
@pytest.mark.xfail(strict=True, reason="this name of a temporary file is not known")
def test_temporary_file_is_no_change(project: Project, server: LittleServer, name: str) -> None:
    """Files that systems, editors and transfers leave beside others for a while are none of the project's."""
    with Hup(project, "server.pid", "--pattern", "*", environment=STAT) as watcher:
        project.save(name, "\0")
        # Whoever notices this new file has met the other one, too.
        project.save("other.txt", "")
        wait_until(lambda: any("other.txt" in what for what in watcher.sent()), "a signal is sent for other.txt")
        assert watcher.sent() == ["other.txt"]


@pytest.mark.parametrize("name", [".env.sample", ".env.docker", "lock.txt", "thumbs.dbx"])
def test_file_whose_name_looks_like_a_temporary_one_counts(project: Project, server: LittleServer, name: str) -> None:
    """rsync's random suffix has six letters, as names of people's own have: only one beside its file is temporary."""
    with Hup(project, "server.pid", "--pattern", "*", environment=STAT) as watcher:
        project.save(name, "one\n")
        assert watcher.wait_sent(1) == name


# -- what is said ------------------------------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="that no file is watched is told like all is well")
def test_watching_nothing_is_a_warning(project: Project, server: LittleServer) -> None:
    """No file matches: the line about that is a warning, and names what to do."""
    (project.root / "empty").mkdir()
    with Hup(project, "server.pid", "empty", environment=STAT) as watcher:
        (line,) = [line for line in watcher.log.splitlines() if "watching 0 files" in line]
        assert "WARN" in line and "--pattern" in line
