"""Describes what a trial loads, in which environment, and its outcome: `Target`, `Plan`, `Outcome`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from ..core.refusal import Refusal
from ..watching.signature import Signature


@dataclasses.dataclass(frozen=True)
class Target:
    """Names one callable to load.

    *kind* and *name*: ``module`` and its dotted name; ``file`` and its path (a folder: its ``__init__.py``); ``code``
    and the text of it; ``paste`` and its URI; ``pecan`` and its configuration file. *attribute*: the callable's name
    there, "" if loading is enough (``paste`` and ``pecan``: they return the callable).
    *call*: *attribute* is a factory that returns the callable.
    """

    kind: str
    name: str
    attribute: str = ""
    call: bool = False
    alias: str = ""
    """The name in ``sys.modules`` of a ``file`` or ``code``."""
    table: str = ""
    """A dictionary of this name, in a stand-in module or in the target, holds the callables in place of *attribute*."""
    anything: bool = False
    """The attribute need not be callable."""
    room: int = 0
    """Targets of different rooms do not share an interpreter."""
    otherwise: str = ""
    """The callable's name if there is none with the name *attribute*."""

    def files(self, folder: str = "") -> list[str]:
        """Return the absolute paths of the files that the target itself names (not those that it imports).

        *folder*: the folder of relative names (default: the working directory).
        """
        name = self.name
        if self.kind == "paste":
            scheme, _, rest = name.partition(":")
            name = rest.partition("#")[0] if scheme == "config" else ""
        elif self.kind == "file" and os.path.isdir(os.path.join(folder, name)):
            name = os.path.join(name, "__init__.py")
        elif self.kind not in ("file", "pecan"):
            name = ""
        return [os.path.abspath(os.path.join(folder, name))] if name else []


@dataclasses.dataclass(frozen=True)
class Plan:
    """Says what to try, and the environment that it would have in the live process."""

    command: tuple[str, ...]
    """The command that starts the interpreter, its absolute path first; a script is appended."""
    path: tuple[str, ...]
    """``sys.path``."""
    folder: str
    """The working directory."""
    root: str
    """The project's folder, for the settings and the rules that decide which files are ours."""
    targets: tuple[Target, ...]
    environ: Mapping[str, str]
    modules: Mapping[str, Mapping[str, Any]]
    """Stand-in modules and their values: str, bytes, numbers, None, and lists and dictionaries of them. A name with
    "()" after it is a function that returns the value; a name that is not given, a function that returns None."""
    argv: tuple[str, ...]
    """``sys.argv``."""
    warmup: tuple[str, ...] = ()
    """Requests that the one application among the targets has to answer (see `warmup`)."""
    asgi: bool = False
    """The application may be an ASGI application; otherwise it is called as a WSGI server does."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Reports the result of a trial. *refused* is None if the code is good; *loaded* has each of our files that the
    trial began to load, with the signature just before; *seconds* is how long the trial took."""

    refused: Refusal | None
    loaded: dict[str, Signature | None]
    seconds: float
