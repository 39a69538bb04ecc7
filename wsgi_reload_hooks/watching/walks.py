"""Caches directory walks, and repeats one only after a folder that it visited has changed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable

_COARSE = 2.0


class CachedWalk:
    """Keeps the result of a walk until a folder or a file that it depends on has changed.

    *walk* does the walk, and adds to its argument the paths that its result depends on.
    """

    def __init__(self, walk: Callable[[set[str]], set[str]]) -> None:
        self._walk = walk
        self._by: dict[str, tuple[int, int] | None] = {}
        self._found: set[str] = set()
        self._again = True

    def now(self) -> set[str]:
        """Return what the walk finds now; walks only if that may have changed."""
        recent = (time.time() - _COARSE) * 1e9
        if self._again or any(_state(path) != state for path, state in self._by.items()):
            by: set[str] = set()
            self._found = self._walk(by)
            self._by = {path: _state(path) for path in by}
            # File system clocks are coarse: what changed just now may change again with the same time.
            self._again = any(state is not None and state[0] > recent for state in self._by.values())
        return self._found


def _state(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_ino


def locale_folders(ours: Callable[[str], bool]) -> list[str]:
    """Return every locale folder that is *ours* and that a configured Django in this process uses (Django)."""
    conf, registry = sys.modules.get("django.conf"), sys.modules.get("django.apps")
    settings = getattr(conf, "settings", None)
    if settings is None or not settings.configured or not settings.USE_I18N:
        return []
    folders = [os.fspath(folder) for folder in settings.LOCALE_PATHS]
    apps = getattr(registry, "apps", None)
    if apps is not None and apps.ready:
        folders += [os.path.join(config.path, "locale") for config in apps.get_app_configs()]
    return [locale for locale in map(os.path.abspath, folders) if ours(os.path.join(locale, "x"))]


def mo_files(folders: Iterable[str], by: set[str], at_most: int) -> set[str]:
    """Return the ``.mo`` files in *folders*, and add each folder that was read to *by*: *at_most* are."""
    found: set[str] = set()
    for locale in folders:
        by.add(locale)
        for folder, _, names in os.walk(locale):
            if len(by) >= at_most:
                break
            by.add(folder)
            found.update(os.path.join(folder, name) for name in names if name.endswith(".mo"))
    return found
