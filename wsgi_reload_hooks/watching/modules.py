"""Finds the files that loaded modules came from.

The walk over ``sys.modules`` is CherryPy's and Django's."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

_NAMESPACE: Any = vars(ModuleType)["__dict__"]


def source_of(path: str) -> str:
    """Return the file to watch for a ``__file__`` or ``spec.origin``.

    ``.pyc``, ``.pyo`` and Jython's ``$py.class`` become the source if there is one, a module in a zip file or
    an egg becomes the archive (CherryPy, Django).
    """
    source = path
    if path.endswith((".pyc", ".pyo")):
        try:
            source = importlib.util.source_from_cache(path)
        except (ValueError, NotImplementedError):
            source = path[:-1]
    elif path.endswith("$py.class"):
        source = path[: -len("$py.class")] + ".py"
    for candidate in (source, path):
        if os.path.exists(candidate):
            return os.path.abspath(candidate)
    folder = os.path.dirname(path)
    while folder and folder != os.path.dirname(folder):
        if os.path.isfile(folder):
            return os.path.abspath(folder)
        folder = os.path.dirname(folder)
    return os.path.abspath(source)


def module_value(module: object, name: str) -> Any:
    """Return the attribute *name* of *module*, or None. Runs no code of the module, even if it loads lazily."""
    # Not `isinstance` and not `vars`: both run code of the module.
    if issubclass(type(module), ModuleType):
        namespace = _NAMESPACE.__get__(module)
        return namespace.get(name) if isinstance(namespace, dict) else None
    return inspect.getattr_static(module, name, None)


def module_file(module: object) -> str | None:
    """Return the file that a module came from, or None. Runs no code of the module."""
    path = module_value(module, "__file__")
    return source_of(path) if isinstance(path, str) and path else None


def loaded_files(modules: Iterable[object] | None = None) -> set[str]:
    """Return the files of *modules* (default: all modules of this process)."""
    if modules is None:
        # A copy: another thread may import meanwhile.
        modules = list(sys.modules.values())
    return {path for module in modules for path in [module_file(module)] if path}
