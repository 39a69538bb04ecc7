"""What an import meets, by the files in this folder.

cache: the import writes to it; a link to /dev/full is a disk without room.
parts: the import loads these modules, one after the other.
flood: the import prints so many bytes, then notes its process in `flooded`.
slot: the first import that removes it waits for the file `hold` to go.
hold: the import notes its process in `importing` and waits until the file is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def note(name: str) -> None:
    """Write the number of this process to *name*."""
    new = HERE / f"{name}.{os.getpid()}"
    new.write_text(str(os.getpid()))
    new.replace(HERE / name)


def wait() -> None:
    """Wait for `hold` to go."""
    while (HERE / "hold").exists():
        time.sleep(0.01)


def meet() -> None:
    """Do what the files ask for."""
    if (HERE / "cache").is_symlink():
        (HERE / "cache").write_text("x")
    if (HERE / "parts").exists():
        for name in (HERE / "parts").read_text().split():
            importlib.import_module(name)
    if (HERE / "flood").exists():
        flood(int((HERE / "flood").read_text()))
    if (HERE / "slot").exists():
        with contextlib.suppress(FileNotFoundError):
            (HERE / "slot").unlink()
            wait()
    elif (HERE / "hold").exists():
        note("importing")
        wait()


def flood(size: int) -> None:
    """Print *size* bytes."""
    line = b"x" * 1023 + b"\n"
    with contextlib.suppress(OSError):
        for _ in range(size // len(line)):
            os.write(1, line)
    note("flooded")
    wait()
