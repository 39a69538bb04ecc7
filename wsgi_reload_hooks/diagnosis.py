"""What will bite in a set-up of gunicorn or uWSGI: decided from what is known of it, nothing is looked at here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Optional

from .findings import Finding, some
from .settings import ENV_PREFIX, Settings
from .setups import Gunicorn, Setup, Uwsgi
from .uwsgi_options import Options
from .uwsgi_traps import ROUTER, traps

_LINE = "import wsgi_reload_hooks.gunicorn_conf"
_MODULE = "python:wsgi_reload_hooks.gunicorn_conf"
_UWSGI_LINE = "import = wsgi_reload_hooks.uwsgi_timer"
_DEFAULT_BACKLOG = 2048
_DEFAULT_LISTEN = 100
_ENOUGH = 1024
# From here on threads run without being asked for.
_ALWAYS_THREADS = (2, 0, 27)


def diagnose(
    setup: Setup, settings: Settings, *, somaxconn: Optional[int] = None, platform: str = sys.platform
) -> Iterator[Finding]:
    """What speaks against *setup*. *somaxconn*: the system's limit for connections that wait; None where it is not known."""
    if setup.broken is not None:
        server = "gunicorn" if isinstance(setup, Gunicorn) else "uWSGI"
        yield Finding(
            "configuration",
            setup.broken.place,
            f"{server}'s configuration does not load: {setup.broken.reason}",
            "repair it: so the server does not start",
        )
    elif isinstance(setup, Gunicorn):
        yield from _hooks(setup, settings, f"put `{_LINE}` into the configuration, or start with -c {_MODULE}")
        yield from _gunicorn(setup, settings, somaxconn, platform)
    elif isinstance(setup, Uwsgi):
        yield from _hooks(
            setup, settings, f"add `{_UWSGI_LINE}`, on a command line --import wsgi_reload_hooks.uwsgi_timer"
        )
        yield from _uwsgi(setup, somaxconn)


def _hooks(setup: Setup, settings: Settings, fix: str) -> Iterator[Finding]:
    if not settings.enabled:
        yield Finding(
            "hooks-off",
            settings.sources["enabled"],
            "enabled is off: the hooks do nothing, saves are not served",
            "remove it",
        )
    elif not setup.hooks and not setup.hooks_run:
        yield Finding(
            "hooks-missing", setup.place, "nothing in the configuration loads the hooks: saves are not served", fix
        )
    elif setup.hooks_run is False:
        yield Finding(
            "hooks-missing",
            setup.place,
            "the configuration loads the hooks, but they cannot be reached in the server: if they do not run there, saves "
            "are not served",
            "look for `reload hooks` and for an ImportError in its log, and restart it",
        )


# -- gunicorn --------------------------------------------------------------------------------------------------------


def _gunicorn(setup: Gunicorn, settings: Settings, somaxconn: Optional[int], platform: str) -> Iterator[Finding]:
    hooked = bool(setup.hooks or setup.hooks_run) and settings.enabled
    yield from _configurations(setup)
    shares = setup.settings["preload_app"] and settings.share != "never"
    if setup.settings["preload_app"] and not setup.hooks:
        yield Finding(
            "preload",
            _place(setup, "preload_app"),
            "the application is loaded before any hook that comes later: a save, and a HUP, leave the old code in service",
            f"put `{_LINE}` into the configuration, or remove preload_app",
        )
    elif hooked and platform != "linux" and (shares or settings.share == "always"):
        where = _place(setup, "preload_app") if shares else settings.sources["share"]
        yield Finding(
            "preload",
            where,
            "no import is shared on this system, only on Linux: each worker imports for itself",
            f"remove {'preload_app' if shares else 'share'}",
        )
    if setup.settings["reload"]:
        text = (
            "gunicorn's own reload is on, too: two reloaders would reload twice, so the hooks switch it off"
            if hooked
            else "gunicorn's own reload: everybody waits for the import, and of broken code it survives a syntax error only"
        )
        yield Finding("another-reloader", _place(setup, "reload"), text, "remove it")
    late = [each.partition("=")[0] for each in setup.settings["raw_env"] or () if each.startswith(ENV_PREFIX)]
    if late:
        yield Finding(
            "raw-env",
            f"{setup.places.get('raw_env', setup.place)}: raw_env",
            f"{some(late)}: gunicorn sets raw_env after the hooks have read their settings",
            "set it in the environment of gunicorn, or in [tool.wsgi_reload_hooks] of pyproject.toml",
        )
    backlog = setup.settings["backlog"]
    if somaxconn is not None and backlog > somaxconn and backlog != _DEFAULT_BACKLOG:
        yield Finding(
            "backlog",
            _place(setup, "backlog"),
            f"the system lets {somaxconn} connections wait, not {backlog}",
            f"sysctl net.core.somaxconn={backlog}",
        )


def _configurations(setup: Gunicorn) -> Iterator[Finding]:
    given = [*setup.variable_configs, *setup.configs]
    if len(given) < 2:
        return
    lost = [name for name in given[:-1] if name != given[-1]]
    if lost:
        place = "command line" if len(setup.configs) > 1 else "GUNICORN_CMD_ARGS"
        yield Finding(
            "two-configurations",
            f"{place}: {' '.join(f'-c {name}' for name in given)}",
            f"gunicorn reads the last configuration only: what is in {some(lost)} is lost"
            + ("" if setup.hooks else ", with these hooks if they are in it"),
            f"one -c, and `{_LINE}` in that file",
        )


def _place(setup: Gunicorn, name: str) -> str:
    return f"{setup.places.get(name, setup.place)}: {name} = {setup.settings[name]}"


# -- uWSGI -----------------------------------------------------------------------------------------------------------


def _uwsgi(setup: Uwsgi, somaxconn: Optional[int]) -> Iterator[Finding]:
    options = setup.options
    if not options.master:
        yield Finding(
            "master",
            setup.place,
            "there is no master process: the hooks need it, saves are not served",
            "add master = true",
        )
    workers = options.number("processes", "workers", default=1)
    stalls = False
    for trap in traps(
        options.names(),
        lazy=options.lazy,
        # As many as one cannot know are enough.
        workers=workers if workers is not None else _ENOUGH,
        threads=options.threads or not setup.version or setup.version >= _ALWAYS_THREADS,
        executable=_is_executable(setup),
        files=setup.files,
    ):
        stalls = stalls or trap.id in ("lazy-apps", "apart", "one-worker")
        text = f"{trap.text} at each reload" if trap.id == ROUTER else trap.text
        yield Finding(trap.id, _where(setup, options, *trap.options), text, trap.fix)
    yield from _listen(setup, options, stalls, somaxconn)
    if options.find("need-app") is not None and not options.lazy:
        yield Finding(
            "need-app",
            _where(setup, options, "need-app"),
            "without lazy-apps a callable that is missing at the very start ends uWSGI, instead of waiting for its repair",
            "add lazy-apps",
        )


def _is_executable(setup: Uwsgi) -> bool:
    # Without lazy-apps the hooks are in the master, and tell uWSGI where its program is.
    helped = setup.hooks and not setup.options.lazy
    return not setup.bound or setup.options.find("binary-path") is not None or helped


def _listen(setup: Uwsgi, options: Options, stalls: bool, somaxconn: Optional[int]) -> Iterator[Finding]:
    listen = options.number("listen", default=_DEFAULT_LISTEN)
    if listen is None:
        return
    where = _where(setup, options, "listen")
    if somaxconn is not None and listen > somaxconn:
        yield Finding(
            "listen",
            where,
            f"the system lets {somaxconn} connections wait, not {listen}: uWSGI does not start",
            f"sysctl net.core.somaxconn={listen}, or listen = {somaxconn}",
        )
    elif stalls and listen <= _DEFAULT_LISTEN:
        most = min(_ENOUGH, somaxconn or _ENOUGH)
        yield Finding(
            "listen",
            where,
            f"while everybody waits for an import, {listen} connections can wait: others are not answered in time",
            f"listen = {most}",
        )


def _where(setup: Setup, options: Options, *names: str) -> str:
    """Where one of the options *names* was given, or where one should be."""
    found = options.find(*names)
    if found is None:
        return setup.place
    return f"{found.place}: {found.name}" + (f" = {found.value}" if found.value else "")
