"""Compiles changed source files: the first and cheapest part of a trial."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterable

from ..core.refusal import Refusal
from ..core.text import PACKAGE_ROOT
from ..process.safe_read import SOURCE_AT_MOST, NoRegularFile, TooLarge, safe_read


def compile_sources(paths: Iterable[str]) -> Refusal | None:
    """Compile each Python file of *paths* in memory, about 1 ms each; runs no code. Returns the first failure, or None.

    A missing file is no failure here: only an import can tell whether it is needed.
    """
    for path in sorted(paths):
        if not path.endswith((".py", ".pyw")) or os.path.isdir(path):
            continue
        try:
            source = safe_read(path, SOURCE_AT_MOST)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(source, path, "exec", dont_inherit=True)
        except (NoRegularFile, TooLarge) as error:
            return Refusal(error.strerror or "", path, files=(path,))
        except OSError:
            continue
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            refused = Refusal.from_exception(error, hidden=[PACKAGE_ROOT])
            return dataclasses.replace(refused, path=path, files=(path,))
    return None
