"""Formats text and paths for log lines: escapes them, and tells whether one path lies below another."""

from __future__ import annotations

import os

PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder of this package. Everything that needs it takes it from here."""


def printable(text: str) -> str:
    """Return *text* on one line, with control characters and undecodable bytes escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def under(path: str, folder: str) -> bool:
    """Tell whether *path* is *folder* or lies in it (``/srv/app2`` does not lie in ``/srv/app``)."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def relative(path: str, root: str) -> str:
    """Return *path* for a log line: relative to the folder *root* if it lies in it, on one line."""
    return printable(os.path.relpath(path, root) if under(path, root) else path)
