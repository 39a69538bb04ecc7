"""Runs as the helper process: compiles source files, so that a master or supervisor never compiles user code itself.

Started by its path in a bare interpreter (``-I -S``). Arguments: the rights to take on. Standard input: lines of JSON, ``{"number": N, "paths": [...]}``;
the helper ends with it. Standard output: a line of JSON for each, ``{"number": N, "refused": null or {...}}``. If
compiling kills this process (CPython 3.12 and 3.13 crash on deeply nested comprehensions), the answer is missing.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import warnings
from typing import Any

_SOURCE_AT_MOST = 4 << 20
_REASON_AT_MOST = 500
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def refusal_of(path: str) -> dict[str, Any] | None:
    """Return what is wrong with the source *path*; None if it compiles or does not exist."""
    try:
        source = _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _refused(path, error.strerror or str(error), None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        return _refused(path, f"{type(error).__name__}: {error.msg}", error.lineno, error.text)
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        return _refused(path, f"{type(error).__name__}: {error}", None)
    return None


def _read(path: str) -> bytes:
    # The same as `safe_read`, which a bare interpreter cannot import.
    number = os.open(path, _FLAGS)
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        if status.st_size > _SOURCE_AT_MOST:
            raise OSError(errno.EFBIG, f"is larger than {_SOURCE_AT_MOST} bytes")
        with open(number, "rb", closefd=False) as file:
            return file.read(_SOURCE_AT_MOST)
    finally:
        os.close(number)


def _refused(path: str, reason: str, line: int | None, text: str | None = None) -> dict[str, Any]:
    shown = f"    {text.strip()[:_REASON_AT_MOST]}" if text and text.strip() else ""
    trace = f'  File "{path}", line {line}\n{shown}'.rstrip() if line else ""
    return {"reason": reason.splitlines()[0][:_REASON_AT_MOST], "path": path, "line": line, "traceback": trace}


def main(rights: list[str]) -> None:
    """Take on *rights* (user, group, other groups) where they are given, and answer until standard input ends."""
    if rights:
        user, group, *groups = map(int, rights)
        os.setgroups(groups)
        os.setgid(group)
        os.setuid(user)
    for asked in sys.stdin:
        request = json.loads(asked)
        refused = next((found for found in map(refusal_of, request["paths"]) if found is not None), None)
        answer = json.dumps({"number": request["number"], "refused": refused})
        os.write(1, answer.encode() + b"\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    # Always 0: a gunicorn arbiter that reaps this process would log any other status as a worker's.
    os._exit(0)
