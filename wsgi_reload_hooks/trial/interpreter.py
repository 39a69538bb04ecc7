"""Finds the interpreter, working directory and user of an application, from the options of a command."""

from __future__ import annotations

import argparse
import functools
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable

from ..core.errors import USAGE, Failure
from .plan import Plan, Target
from .trial import TRIAL_MAIN

_OLDEST = (3, 10)
_ANSWER_AT_MOST = 30.0
_ASK = """\
import json, os, sys
print()
print(json.dumps([sys.version_info[:2], [each for each in sys.path if each], os.access(sys.argv[1], os.R_OK)]))
"""
# posix_spawn cannot change the user, so a short Python program does that first.
_GIVE_RIGHTS_AWAY = """\
import os, sys
name, group, user, *command = sys.argv[1:]
os.initgroups(name, int(group))
os.setgid(int(group))
os.setuid(int(user))
os.execv(command[0], command)
"""
_APP = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)(?::([^\W\d]\w*)(\(\))?)?\Z")


class Interpreter:
    """Describes the interpreter of an application.

    *python*: the interpreter, if it is not ours. *folder*: the working directory. *user*: the user that it runs as, if
    not ours. Raises `Failure` if there is no such interpreter.
    """

    def __init__(
        self, python: str | None = None, folder: str = os.curdir, user: pwd.struct_passwd | None = None
    ) -> None:
        self.folder = os.path.abspath(folder)
        self.other = python is not None
        """Whether the interpreter was named, so that it may be another one than ours."""
        self._python = _interpreter(python)
        self._user = user

    @functools.cached_property
    def path(self) -> tuple[str, ...]:
        """Return the interpreter's ``sys.path``; starts the interpreter once. Raises `Failure` if it is unusable."""
        return (self.folder, *self._search_path())

    def plan(self, targets: Iterable[Target], root: str, warmup: Iterable[str] = (), asgi: bool = False) -> Plan:
        """Plan a trial of *targets*. *root*: the project's folder; *warmup*, *asgi*: see `Plan`. Raises `Failure`."""
        return Plan(
            command=self._command(),
            path=self.path,
            folder=self.folder,
            root=root,
            targets=tuple(targets),
            # That interpreter may lack watchfiles, which this one may use.
            environ={**os.environ, "WSGI_RELOAD_ENGINE": "stat"},
            modules={},
            argv=("",),
            warmup=tuple(warmup),
            asgi=asgi,
        )

    def _command(self) -> tuple[str, ...]:
        if self._user is None:
            return (self._python,)
        who = (self._user.pw_name, str(self._user.pw_gid), str(self._user.pw_uid))
        return (_interpreter(None), "-I", "-S", "-c", _GIVE_RIGHTS_AWAY, *who, self._python)

    def _search_path(self) -> tuple[str, ...]:
        """Return the ``sys.path`` that the interpreter has when it is started in *folder*."""
        try:
            answer = subprocess.run(
                [*self._command(), "-c", _ASK, TRIAL_MAIN],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_ANSWER_AT_MOST,
                check=False,
            )
            version, path, readable = json.loads(answer.stdout.splitlines()[-1])
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure(f"{self._python}: cannot be run: {error}", USAGE) from None
        except (ValueError, IndexError):
            said = answer.stderr.decode(errors="replace").strip().splitlines()
            raise Failure(
                f"{self._python}: does not tell its search path: {said[-1] if said else '-'}", USAGE
            ) from None
        if tuple(version) < _OLDEST:
            raise Failure(f"{self._python}: is Python {version[0]}.{version[1]}; to try code, 3.10 is needed", USAGE)
        if not readable:
            raise Failure(
                f"{TRIAL_MAIN} cannot be read with the rights of --user: install this where they are enough", USAGE
            )
        return tuple(path)


def _interpreter(given: str | None) -> str:
    """Return the interpreter's absolute path; links are kept, because a virtual environment is found by them."""
    found = shutil.which(given) if given else sys.executable
    if not found:
        raise Failure(
            f"--python {given}: there is no such program" if given else "name an interpreter: --python", USAGE
        )
    return os.path.abspath(found)


# -- the command line --------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser, whose: str) -> None:
    """Add the options ``python``, ``chdir`` and ``user``; *whose* names the code in their help."""
    add = parser.add_argument
    add("--python", metavar="PATH", help=f"the {whose}'s interpreter (default: the one that runs this)")
    add("--chdir", metavar="DIR", default=os.curdir, help=f"where the {whose} runs (default: the working directory)")
    add("--user", metavar="NAME", type=_user, help="as root: with whose rights code is tried, those of the workers")


def given(options: argparse.Namespace) -> Interpreter:
    """Return the interpreter that these options describe. Raises `Failure`."""
    if not os.path.isdir(options.chdir):
        raise Failure(f"--chdir {options.chdir}: there is no such folder", USAGE)
    if options.user and os.geteuid() != 0:
        raise Failure("--user: only root can give rights away", USAGE)
    return Interpreter(options.python, options.chdir, options.user)


def module_target(text: str) -> Target:
    """Parse ``MODULE``, ``MODULE:NAME`` or ``MODULE:FACTORY()``. Raises argparse.ArgumentTypeError."""
    found = _APP.match(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not like shop.wsgi, shop.wsgi:application or shop:make_app()")
    return Target("module", found[1], found[2] or "", call=bool(found[3]))


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no user {name!r}") from None
