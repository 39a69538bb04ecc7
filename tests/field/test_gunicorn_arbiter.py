"""What gunicorn's arbiter has imported itself, and gunicorn that is run from code."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import MODULE, Gunicorn, Project, wait_until

pytestmark = pytest.mark.field

LIMIT = 5.0
NEEDS_RESTART = r"(?i)(?:shop/)?tools\.py.*restart|restart.*tools\.py"

# Who imports `shop.tools` in the arbiter: options, configuration, script.
IMPORTED_BY = {
    "configuration": ([], "configured.py", None),
    "preloading configuration": ([], "preloaded.py", None),
    "worker class": (["--worker-class", "shop.worker.Worker"], MODULE, None),
    "logger class": (["--logger-class", "shop.logger.Logger"], MODULE, None),
    "application handed over": ([], None, "handed_over.py"),
}


def start(name: str, tmp_path: Path) -> Gunicorn:
    """A server whose arbiter has imported a module that the application uses, too."""
    project = Project(tmp_path / "project")
    project.copy("shop")
    options, configuration, script = IMPORTED_BY[name]
    if script is not None:
        return Gunicorn(project, configuration=None, application=None, program=(script,))
    workers = 2 if configuration == MODULE else 0
    return Gunicorn(project, *options, workers=workers, configuration=configuration)


@pytest.mark.xfail(strict=True, reason="told as reloaded, but workers inherit the module that the arbiter has imported")
@pytest.mark.parametrize("name", IMPORTED_BY)
def test_save_of_what_the_arbiter_imported_is_served_or_told(name: str, tmp_path: Path) -> None:
    """The new text is served, or the log says that it needs a restart: never reloaded and the old text."""
    with start(name, tmp_path) as server:
        server.wait_for_log("watching")
        server.project.edit("shop/tools.py", '"v1"', '"v2"')
        wait_until(lambda: server.version() == "v2" or server.count(NEEDS_RESTART), "v2 is served, or told", LIMIT)
        if server.count(r"reloaded in"):
            server.wait_for_version("v2", limit=LIMIT)


@pytest.mark.xfail(strict=True, reason="a broken save is told as reloaded: workers inherit the arbiter's module")
@pytest.mark.parametrize("name", ["configuration", "application handed over"])
def test_broken_save_of_what_the_arbiter_imported_is_not_reloaded(name: str, tmp_path: Path) -> None:
    """It is refused, or the log says that it needs a restart."""
    with start(name, tmp_path) as server:
        server.wait_for_log("watching")
        server.project.edit("shop/tools.py", "WORKERS = 2", "WORKERS = 2\nundefined_name")
        wait_until(lambda: server.count(r"refused.*tools\.py") or server.count(NEEDS_RESTART), "it is refused", LIMIT)
        assert not server.count(r"reloaded in")
        assert server.version() == "v1"


# -- run from code -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        "ready.py",
        "inside.py",
        pytest.param(
            "top.py",
            marks=pytest.mark.xfail(
                strict=True, reason="the import at the top of a script that runs gunicorn does nothing, silently"
            ),
        ),
    ],
)
def test_gunicorn_run_from_code_reloads_or_says_that_it_does_not(script: str, tmp_path: Path) -> None:
    """A save goes in, or one line says that the hooks are not in place."""
    project = Project(tmp_path / "project")
    project.copy("from_code")
    told = r"(?i)wsgi_reload_hooks|reload: |when_ready"
    with Gunicorn(project, configuration=None, application=None, program=(script,)) as server:
        # A worker that loads the application after the save has its new version anyway.
        server.wait_for_everyone("v1")
        project.edit("app.py", '"v1"', '"v2"')
        wait_until(
            lambda: set(server.answers().values()) == {"v2"} or (script == "top.py" and server.count(told)),
            "everyone answers v2, or it is told",
            LIMIT,
        )
