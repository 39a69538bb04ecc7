"""Names the folders whose frames are left out of a traceback: gunicorn, importlib and this package."""

from __future__ import annotations

import importlib
import os

from ..core.text import PACKAGE_ROOT, under


def hidden_folders() -> list[str]:
    """Whose frames are left out of a traceback: gunicorn's, importlib's, ours."""
    import gunicorn

    modules = (gunicorn.__file__, importlib.__file__, os.path.join(PACKAGE_ROOT, "__init__.py"))
    return [os.path.dirname(os.path.abspath(each)) for each in modules if each]


def is_hidden(filename: str) -> bool:
    return filename.startswith("<") or any(under(filename, folder) for folder in hidden_folders())
