"""Has gunicorn read a command line, with its own parser and its own order of configuration files.

A program, run by its path in the interpreter that would run gunicorn, in gunicorn's folder and with its environment:
``gunicorn_probe.py HOW WORD...``. HOW: the path of gunicorn's script, ``-m``, or ``-`` where nothing but a configuration is
known, and no application need be named. One line of JSON on standard output. No server is started, and no application
imported; a configuration is Python, and is run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import sys
import traceback
from typing import Any

_SETTINGS = ("preload_app", "reload", "backlog", "chdir", "config", "raw_env", "pythonpath")
_ENV_PREFIX = "WSGI_RELOAD_"
_HOOKS = "wsgi_reload_hooks.gunicorn.attach"


def _ask(anonymous: bool) -> dict[str, Any]:
    """What gunicorn says of ``sys.argv``. *anonymous*: it need not name an application."""
    try:
        import gunicorn
        from gunicorn.app.wsgiapp import WSGIApplication
    except ImportError as error:
        return {"missing": str(error)}
    answer: dict[str, Any] = {"version": gunicorn.__version__}
    read: dict[str, str] = {}
    load, init = WSGIApplication.load_config_from_module_name_or_filename, WSGIApplication.init

    def load_and_note(self: Any, location: str) -> Any:
        found = load(self, location)
        read.update((name, location) for name in found or ())
        return found

    def init_anyhow(self: Any, parser: Any, options: Any, words: Any) -> Any:
        found = init(self, parser, options, words)
        if anonymous and self.app_uri is None:
            self.app_uri = ""
        return found

    WSGIApplication.load_config_from_module_name_or_filename = load_and_note
    WSGIApplication.init = init_anyhow
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            app = WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]")
    except BaseException as error:
        # Whatever a configuration raises.
        return {**answer, "error": _what_failed(error, said.getvalue(), os.path.dirname(gunicorn.__file__))}
    application = "" if app.cfg.paste is not None else app.app_uri or app.cfg.wsgi_app or ""
    return {
        **answer,
        "places": _places(app, read),
        "settings": {name: app.cfg.settings[name].get() for name in _SETTINGS},
        "hooks": _HOOKS in sys.modules,
        "environ": {name: value for name, value in os.environ.items() if name.startswith(_ENV_PREFIX)},
        "watchfiles": importlib.util.find_spec("watchfiles") is not None,
        "application": application,
        "path": [*map(os.path.abspath, filter(None, (app.cfg.pythonpath or "").split(","))), *sys.path],
    }


def _places(app: Any, read: dict[str, str]) -> dict[str, str]:
    """What each setting comes from, where that is no default."""
    from gunicorn.config import Config

    parser = Config().parser()
    words, variable = parser.parse_args(), parser.parse_args(app.cfg.get_cmd_args_from_env())
    places = {name: read[name] for name in _SETTINGS if name in read}
    for source, found in (("GUNICORN_CMD_ARGS", variable), ("command line", words)):
        places.update((name, source) for name in _SETTINGS if getattr(found, name, None) is not None)
    return places


def _what_failed(error: BaseException, said: str, gunicorn: str) -> dict[str, Any]:
    # gunicorn prints what it met and leaves by SystemExit: what it met is the context.
    cause = error.__context__ if isinstance(error, SystemExit) and error.__context__ is not None else error
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if isinstance(cause, SystemExit):
        # The parser of the command line, help and version included.
        return {
            "reason": lines[-1] if lines else f"it ends gunicorn, exit code {cause.code}",
            "path": None,
            "line": None,
        }
    if isinstance(cause, SyntaxError) and cause.filename:
        return {"reason": f"{type(cause).__name__}: {cause.msg}", "path": cause.filename, "line": cause.lineno}
    reason = f"{type(cause).__name__}: {cause}".strip(" :")
    frames = traceback.extract_tb(cause.__traceback__)
    theirs = [each for each in frames if not each.filename.startswith((gunicorn + os.sep, "<", __file__))]
    if not theirs:
        # A wrong value: gunicorn has said of which setting.
        wrong = next((line for line in lines if line.startswith("Invalid value")), "")
        return {"reason": f"{wrong} ({reason})" if wrong else reason, "path": None, "line": None}
    # Where a library raises, it is the caller that is wrong.
    libraries = (os.path.dirname(os.__file__) + os.sep, sys.prefix + os.sep)
    place = next((each for each in reversed(theirs) if not each.filename.startswith(libraries)), theirs[-1])
    return {"reason": reason, "path": place.filename, "line": place.lineno}


def main() -> None:
    """Ask, and print the answer. Does not return."""
    sys.dont_write_bytecode = True
    how, *sys.argv[1:] = sys.argv[1:]
    # As gunicorn would find it: the folder of this file hides modules of the application.
    folder = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == folder:
        sys.path[0] = os.getcwd() if how.startswith("-") else os.path.dirname(os.path.abspath(how))
    sys.argv[0] = "gunicorn"
    # What a configuration prints goes elsewhere.
    answer = os.dup(1)
    os.dup2(2, 1)
    with open(answer, "w", encoding="utf-8") as file:
        file.write(json.dumps(_ask(how == "-"), default=str) + "\n")
    # Neither its threads nor what it has registered for the end may keep us.
    os._exit(0)


if __name__ == "__main__":
    main()
