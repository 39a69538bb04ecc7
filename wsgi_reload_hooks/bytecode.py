"""Byte code that Python would run in the place of what was saved."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import marshal
import os
import warnings
from collections.abc import Collection, Iterable, Iterator
from typing import Optional

CACHE = "__pycache__"
UNCHECKED, STALE, ORPHAN = "unchecked", "stale", "orphan"
_HEADER = 16
_HASH_BASED, _CHECKED = 1, 2
_LIBRARIES = tuple(importlib.machinery.EXTENSION_SUFFIXES)


def traps_in(folder: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What kind of trap and its path, for the byte code among the files *names* of *folder*.

    `UNCHECKED`: Python never compares it with its source. `STALE`: its source was saved again within the second, with the
    same size, and it is taken for that. `ORPHAN`: it lies where a source would, there is none, and it is imported.
    """
    there = set(names)
    for name in sorted(there):
        if not name.endswith(".pyc"):
            continue
        path = os.path.join(folder, name)
        if os.path.basename(folder) == CACHE:
            kind = _cached(path)
            if kind:
                yield kind, path
        elif _is_imported(folder, name[:-4], there):
            yield ORPHAN, path


def _is_imported(folder: str, module: str, there: Collection[str]) -> bool:
    """Whether byte code beside other files is what ``import`` finds: all else comes first."""
    if not module.isidentifier() or os.path.isdir(os.path.join(folder, module)):
        return False
    return not any(module + ending in there for ending in (".py", *_LIBRARIES))


def _cached(path: str) -> Optional[str]:
    try:
        source = importlib.util.source_from_cache(path)
        there = os.stat(source)
        written = os.stat(path).st_mtime_ns
        with open(path, "rb") as file:
            header = file.read(_HEADER)
    except (OSError, ValueError, NotImplementedError):
        # Without its source Python does not look at it.
        return None
    if len(header) < _HEADER:
        return None
    flags = int.from_bytes(header[4:8], "little")
    if flags & _HASH_BASED:
        return None if flags & _CHECKED else UNCHECKED
    saved, size = (int.from_bytes(header[place : place + 4], "little") for place in (8, 12))
    believed = saved == int(there.st_mtime) & 0xFFFFFFFF and size == there.st_size & 0xFFFFFFFF
    return STALE if believed and written < there.st_mtime_ns and not _is_of(source, path) else None


def _is_of(source: str, path: str) -> bool:
    """Whether the byte code is that of the source, for that of our own Python; of another one nobody knows here."""
    level = path.rpartition(".opt-")[2].removesuffix(".pyc")
    try:
        with open(path, "rb") as file:
            data = file.read()
        with open(source, "rb") as file:
            text = file.read()
        if data[:4] != importlib.util.MAGIC_NUMBER:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(text, source, "exec", dont_inherit=True, optimize=int(level) if level.isdecimal() else 0)
        return bool(marshal.loads(data[_HEADER:]) == code)
    except (OSError, SyntaxError, ValueError, EOFError, TypeError):
        return False
