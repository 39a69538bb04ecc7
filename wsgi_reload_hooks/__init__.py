"""A code reloader for WSGI servers that people dare to leave on. Importing it needs no server and starts nothing.

The folders, from the lowest level up (lower never imports higher):

- `core`: settings, log lines, refusals, errors, text
- `process`: pipes, real threads beside gevent, prctl and /proc
- `watching`: which files count, did they change, engines, the import hook
- `trial`: new code tried beside the old; `django`: translations and templates; `control`: the control socket
- `report`: history, callbacks, metrics, systemd
- `reload`: what happens after a change
- `gunicorn`, `uwsgi`, `script`, `hup`: the adapters; `api`: `code_changed()` and `watch()`
- `doctor`: what will bite
- `cli`: the command line

`gunicorn_conf` and `uwsgi_timer` are the faces for the two servers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["FILE_MODIFIED", "I18N_MODIFIED", "Settings", "SettingsError", "code_changed", "run_with_reloader", "watch"]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api.code_changed import FILE_MODIFIED, I18N_MODIFIED, code_changed
    from .api.watch import watch
    from .core.settings import Settings, SettingsError
    from .script.run import run_with_reloader

_HOMES = {
    "FILE_MODIFIED": "api.code_changed",
    "I18N_MODIFIED": "api.code_changed",
    "Settings": "core.settings",
    "SettingsError": "core.settings",
    "code_changed": "api.code_changed",
    "run_with_reloader": "script.run",
    "watch": "api.watch",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name when the name is asked for: `uwsgi_timer` sets signals before any import."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
