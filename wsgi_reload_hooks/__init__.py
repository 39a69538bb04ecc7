"""A code reloader that WSGI servers can leave on: hooks for gunicorn, and the scanner they share.

Importing this package needs no server and starts nothing.
"""

from .classic import FILE_MODIFIED, I18N_MODIFIED, code_changed
from .settings import Settings, SettingsError
from .watcher import watch

__all__ = ["FILE_MODIFIED", "I18N_MODIFIED", "Settings", "SettingsError", "code_changed", "watch"]
__version__ = "0.1.0"
