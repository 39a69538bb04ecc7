"""Installs the hooks on gunicorn's application and its arbiter: once each, whatever hooks a configuration has."""

from __future__ import annotations

import sys
from typing import Any

from ..core.log import PREFIX
from ..core.settings import Settings, SettingsError
from ..core.text import printable
from .arbiter import RollingArbiter

_ATTRIBUTE = "_reload_hooks"


def enlist(app: Any) -> None:
    """Have the arbiter that gunicorn's application *app* will make prepared; to be called while *app* is configured.

    Once it is, whatever its configuration and its command line say of hooks.
    """
    if hasattr(app, _ATTRIBUTE):
        return
    run = app.run

    def run_with_hooks() -> None:
        theirs = app.cfg.nworkers_changed

        def nworkers_changed(server: Any, new_value: int, old_value: int | None) -> None:
            prepare(server)
            theirs(server, new_value, old_value)

        app.cfg.set("nworkers_changed", nworkers_changed)
        run()

    setattr(app, _ATTRIBUTE, True)
    app.run = run_with_hooks


def prepare(server: Any) -> None:
    """Check the settings and chain our hooks, as early as the server can be had. Twice is once.

    Raises SystemExit(1), after one line in the log, where a setting is wrong.
    """
    if hasattr(server, _ATTRIBUTE):
        return
    try:
        settings = Settings.load(server.cfg.chdir)
    except SettingsError as error:
        server.log.error(PREFIX + "%s", printable(str(error)))
        if getattr(server, "pidfile", None) is not None:
            server.pidfile.unlink()
        sys.exit(1)
    hooks = RollingArbiter(server, settings) if settings.enabled else None
    setattr(server, _ATTRIBUTE, hooks)
    if hooks is not None:
        hooks.chain(server.cfg)


def start(server: Any) -> None:
    """Start watching; to be called when the server is ready and has no worker yet. Twice is once."""
    prepare(server)
    hooks: RollingArbiter | None = getattr(server, _ATTRIBUTE)
    if hooks is not None:
        hooks.start()
