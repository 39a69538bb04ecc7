"""Recognise a command line of gunicorn or uWSGI: its interpreter, its program and its arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

GUNICORN, UWSGI = "gunicorn", "uwsgi"
MODULE = "-m"
# Distributions put the version of Python, or built-in plugins, into the program's name.
_KINDS = re.compile(r"(?P<gunicorn>gunicorn(-?[\d.]*|\.app\.wsgiapp))\Z|(?P<uwsgi>(py)?uwsgi([-_][\w.-]+)?)\Z")
_PYTHON = re.compile(r"python[\d.]*\Z")
_WITH_VALUE = (MODULE, "-W", "-X", "--check-hash-based-pycs")


class CommandLine(NamedTuple):
    """*kind*: `GUNICORN` or `UWSGI`. *python*: the interpreter with its options, empty where the program is started by its
    own name. *program*: its path or name, `MODULE` where the interpreter runs it by ``-m``."""

    kind: str
    python: Sequence[str]
    program: str
    arguments: Sequence[str]


def parse(words: Sequence[str]) -> CommandLine | None:
    """Split *words*; None where they start neither gunicorn nor uWSGI."""
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        # gunicorn runs its module as a script when it executes itself again (USR2).
        name = word if before == MODULE else os.path.basename(word.removesuffix(f"{os.sep}__main__.py"))
        found = _KINDS.match(name)
        if found is not None:
            module = before == MODULE
            program = MODULE if module else word
            return CommandLine(found.lastgroup or "", words[: place - module], program, words[place + 1 :])
        is_option = word.startswith("-") and word != "-c"
        if not (is_option or before in _WITH_VALUE[1:] if place else _PYTHON.match(name)):
            return None
    return None
