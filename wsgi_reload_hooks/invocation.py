"""Who is started by a command line: gunicorn or uWSGI, by which interpreter, and with which words."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Optional

GUNICORN, UWSGI = "gunicorn", "uwsgi"
# Those of distributions have the version of Python in their names, or what is built in.
_NAMES = re.compile(r"(?P<gunicorn>gunicorn-?[\d.]*)\Z|(?P<uwsgi>(py)?uwsgi([-_][\w.-]+)?)\Z")
_MODULES = {"gunicorn": GUNICORN, "gunicorn.app.wsgiapp": GUNICORN, "uwsgi": UWSGI, "pyuwsgi": UWSGI}
_PYTHON = re.compile(r"python[\d.]*\Z")
_SHEBANG = re.compile(rb"#! *(?:\S*/env +)?([^\s]*python[\d.]*)\s|#!.*\n'''exec' \"?([^\"\n]+?)\"? \"\$0\"")
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line that starts a *server*. *python*: the interpreter with its options, if there is one. *program*: what it
    runs, by ``-m`` where *module* is true. *words*: the arguments of the server. *named*: whether its application has to
    be among them."""

    server: str
    python: tuple[str, ...]
    program: str
    words: tuple[str, ...]
    module: bool = False
    named: bool = True

    @property
    def virtual(self) -> bool:
        """Whether the interpreter is that of a virtual environment."""
        place = os.path.dirname(os.path.dirname(os.path.abspath(self.python[0]))) if self.python else ""
        return bool(place) and os.path.exists(os.path.join(place, "pyvenv.cfg"))


def command(words: Sequence[str], environ: Mapping[str, str], folder: str) -> Optional[Command]:
    """How *words* start a server in *folder*, or None where they start none that is known."""
    name = os.path.basename(words[0]) if words else ""
    server = _server(name)
    if server:
        program = _found(words[0], environ, folder)
        python = _interpreter(program, environ) if program is not None else None
        if program is None and server == GUNICORN:
            # Not installed as a program; as a module it may be.
            return Command(GUNICORN, (sys.executable,), name, tuple(words[1:]), module=True)
        return Command(server, (python,) if python else (), program or words[0], tuple(words[1:]))
    if not _PYTHON.match(name):
        return None
    python = _found(words[0], environ, folder) or words[0]
    place = 1
    while place < len(words) and words[place].startswith("-") and words[place] not in ("-m", "-c"):
        place += 2 if words[place] in _WITH_VALUE else 1
    options, rest = words[1:place], words[place:]
    module = bool(rest) and rest[0] == "-m"
    program = rest[module] if len(rest) > module else ""
    # After a USR2 gunicorn's module is a script.
    script = os.path.basename(program.removesuffix(f"{os.sep}__main__.py"))
    server = _MODULES.get(program, "") if module else _server(script)
    if not server:
        return None
    program = program if module else os.path.join(folder, program)
    return Command(server, (python, *options), program, tuple(rest[module + 1 :]), module)


def _server(name: str) -> str:
    found = _NAMES.match(name)
    return found.lastgroup or "" if found else ""


def _found(program: str, environ: Mapping[str, str], folder: str) -> Optional[str]:
    """The path of *program*, as a shell would find it in *folder*."""
    if os.sep in program:
        program = os.path.join(folder, program)
    return shutil.which(program, path=environ.get("PATH", os.defpath))


def _interpreter(program: str, environ: Mapping[str, str]) -> Optional[str]:
    """The interpreter that the script *program* names in its first lines, or None where it is no script of Python's."""
    try:
        with open(program, "rb") as file:
            found = _SHEBANG.match(file.read(1000))
    except OSError:
        return None
    named = os.fsdecode(found[1] or found[2]) if found else ""
    return shutil.which(named, path=environ.get("PATH", os.defpath)) if named else None
