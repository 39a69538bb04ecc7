"""A code reloader for WSGI servers that one dares to leave on. Importing it needs no server and starts nothing."""

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
