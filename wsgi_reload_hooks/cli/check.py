"""Load applications once, as a reload does, and say whether they are good: for a deploy script, or before a commit."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re

from ..core.errors import USAGE, Failure
from ..core.log import entry, reasons
from ..core.refusal import Refusal
from ..core.settings import FIELDS, Settings, project_root
from ..core.streams import complain, occupy, say
from ..core.text import printable
from ..trial.interpreter import Interpreter, add_arguments, given, module_target
from ..trial.plan import Outcome, Target
from ..trial.trial import run_trial
from ..watching.rules import Files

HELP = "say whether an application loads, and end with 0 or 1"
EPILOG = """\
examples:
  wsgi-reload check shop.wsgi:application && systemctl reload shop
  wsgi-reload check --warmup /healthz --python venv/bin/python shop.wsgi
  wsgi-reload check --json 'shop:make_app()' site/wsgi.py

Each TARGET is loaded in a fresh interpreter, by the rules of a reload: import, callable,
Django's URLs, the warm-up, each within the timeout. WSGI_TRIAL is set there. It is
MODULE, MODULE:NAME, MODULE:FACTORY(), or a file (its name ends with .py or has a slash),
also with :NAME; without a name it has to have `application` or `app`. Files are relative
to --chdir.

For pre-commit: `pass_filenames: false`, and the application in `entry`; a file that was
changed is no application.

exit codes: 0 all are good, 1 one is not (standard error says why), 2 wrong arguments or
settings, 130 interrupted
"""
# `shop.wsgi` is what half of all applications call their module.
_FILE = re.compile(r"(.*?(?:\.py|/[^:]*))(?::([^\W\d]\w*)(\(\))?)?\Z", re.DOTALL)
_FIRST, _SECOND = "application", "app"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("targets", metavar="TARGET", nargs="+", type=_target, help="what a server is told to load")
    add(
        "--warmup",
        metavar="PATH",
        action="append",
        type=_path,
        help="what it has to answer below 500; may be repeated (default: the setting warmup)",
    )
    add("--timeout", metavar="S", type=_seconds, help="seconds it may take (default: the setting boot_timeout)")
    add("--json", action="store_true", help="a line of JSON for each TARGET, on standard output")
    add_arguments(parser, "application")


def main(options: argparse.Namespace) -> int:
    """Try one target after the other. Returns the exit code. Raises `Failure`, `SettingsError`."""
    occupy()
    surroundings = given(options)
    root = project_root(surroundings.folder)
    # What notices changes has no part in it.
    settings = Settings.load(root, {**os.environ, "WSGI_RELOAD_ENGINE": "stat"})
    settings = dataclasses.replace(
        settings,
        warmup=settings.warmup if options.warmup is None else tuple(options.warmup),
        boot_timeout=options.timeout or settings.boot_timeout,
    )
    for target in options.targets:
        for path in target.files(surroundings.folder):
            if not os.path.exists(path):
                raise Failure(f"{printable(path)}: there is no such file", USAGE)
    checks = [_Check(target, surroundings, settings, Files(settings, root)) for target in options.targets]
    good = True
    for each in checks:
        good = each.run(options.json) and good
    return 0 if good else 1


class _Check:
    """One target and what is told of it."""

    def __init__(self, target: Target, surroundings: Interpreter, settings: Settings, files: Files) -> None:
        self._target = target
        self._surroundings = surroundings
        self._settings = settings
        self._files = files
        self._name = printable(target.name) + (f":{target.attribute}" if target.otherwise == "" else "")
        self._name += "()" if target.call else ""

    def run(self, as_json: bool) -> bool:
        """Try the target and print the result. Tells whether it is good. Raises `Failure`, OSError."""
        plan = self._surroundings.plan([self._target], self._files.root, self._settings.warmup, asgi=True)
        outcome = run_trial(plan, self._files, self._settings.boot_timeout)
        if as_json:
            say(json.dumps(self._fields(outcome)))
        elif outcome.refused is None:
            say(self._praise(outcome))
        else:
            complain(entry(f"{self._name} refused", outcome.refused, self._files.root))
        return outcome.refused is None

    def _praise(self, outcome: Outcome) -> str:
        answers = ", ".join(map(printable, self._settings.warmup))
        count = len(outcome.loaded)
        return (
            f"{self._name} loads{answers and ' and answers '}{answers}: "
            f"{outcome.seconds:.2f} s, {count} file{'s' * (count != 1)}"
        )

    def _fields(self, outcome: Outcome) -> dict[str, object]:
        why = outcome.refused or Refusal("")
        return {
            "ok": outcome.refused is None,
            "target": self._name,
            "seconds": round(outcome.seconds, 3),
            "files": len(outcome.loaded),
            **{name: value or None for name, value in reasons(why).items()},
        }


# -- arguments ---------------------------------------------------------------------------------------------------------


def _target(text: str) -> Target:
    found = _FILE.match(text)
    if found is None:
        target = module_target(text)
    else:
        alias = "wsgi_file_" + re.sub(r"\W", "_", os.path.splitext(found[1])[0])
        target = Target("file", found[1], found[2] or "", call=bool(found[3]), alias=alias)
    return target if target.attribute else dataclasses.replace(target, attribute=_FIRST, otherwise=_SECOND)


def _path(text: str) -> str:
    if not re.fullmatch(FIELDS["warmup"].metadata["rule"].each, text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a path that begins with / nor a URL")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, 0.1 at least")
    return seconds
