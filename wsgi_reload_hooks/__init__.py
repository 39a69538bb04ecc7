"""A code reloader for WSGI servers that one dares to leave on. Importing it needs no server and starts nothing.

A map of the modules, each group from the first to read on:

- what is configured: `settings`; which files count: `files`, `gitignore`
- a change is noticed: `watcher`, `engines`, `scanner`, `checkout`, `mounts`; by events: `hearing`, `interest`, `ear`; for
  programs that ask by themselves: `classic`
- new code is proven: `proof`, `rehearsal`, `stage`, `imports`, `frameworks`, `warmup`
- what is to be done about it: `reloader`, `watchlist`; translations and templates: `assets`, `django_assets`, `generation`
- what is told: `journal`, `lines`, `chronicle`, `record`, `callbacks`, `announce`, `metrics`, `systemd`
- what is asked from outside: `control`, `desk`, `private`
- gunicorn, from its face on: `gunicorn_conf`, `attach`, `arbiter`, `lookout`, `crew`, `offspring`, `worker`, `gate`,
  `lameduck`, `configuration`, `reports`, `gunicorn_log`, `gunicorn_clerk`; one import for all workers: `zygote`,
  `subreaper`
- uWSGI, from its face on: `uwsgi_timer`, `uwsgi_attach`, `leader`, `roll`, `station`, `ledger`, `bell`, `departure`, `targets`, `uwsgi_server`,
  `uwsgi_checks`, `uwsgi_traps`
- any script: `scripts`, `supervisor`, `child`, `supervised`, `trial`, `guard`, `sockets`, `terminal`, `native`
- the command line: `__main__`, `cli`, `console`; its commands: `run`, `serve`, `hup`, `outside`, `pidfile`, `check`,
  `surroundings`, `status`, `reload`, `pause`, `resume`, `explain`, `reach`
- the doctor: `doctor`, `findings`, `process_checks`, `project_checks`, `gunicorn_setup`, `gunicorn_checks`, `command_line`,
  `interview`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["FILE_MODIFIED", "I18N_MODIFIED", "Settings", "SettingsError", "code_changed", "run_with_reloader", "watch"]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from .classic import FILE_MODIFIED, I18N_MODIFIED, code_changed
    from .scripts import run_with_reloader
    from .settings import Settings, SettingsError
    from .watcher import watch


def __getattr__(name: str) -> Any:
    """Each name when it is asked for: in a worker of uWSGI there is something to be done before all imports."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import classic, settings, watcher

    for module in (classic, settings, watcher):
        if hasattr(module, name):
            return getattr(module, name)
    from . import scripts

    return getattr(scripts, name)
