"""Check gunicorn's settings for what gets in the way of reloads: the hooks check the live ones, the doctor a command line's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..core.finding import Finding, some
from ..core.settings import ENV_PREFIX, Settings

ENVIRONMENT = "GUNICORN_CMD_ARGS"
_LINE = "import wsgi_reload_hooks.gunicorn_conf"
_FIXES = {
    "gunicorn": f"put `{_LINE}` into the configuration, or start with -c python:wsgi_reload_hooks.gunicorn_conf",
    "uwsgi": "add `import = wsgi_reload_hooks.uwsgi_timer`, on a command line --import wsgi_reload_hooks.uwsgi_timer",
}
_DEFAULT_BACKLOG = 2048


def hooks_off(settings: Settings) -> Finding:
    """The hooks are switched off by a setting."""
    return Finding(
        "hooks-off",
        settings.sources["enabled"],
        "enabled is off: the hooks do nothing, saves are not served",
        "remove it",
    )


def hooks_missing(place: str, kind: str) -> Finding:
    """The hooks do not run in a server of this *kind*."""
    return Finding("hooks-missing", place, "the hooks are not loaded: saves are not served", _FIXES[kind])


def check_settings(
    given: Mapping[str, Any],
    where: Callable[[str], str],
    *,
    hooks: bool,
    share: str,
    somaxconn: int | None,
    platform: str = sys.platform,
) -> Iterator[Finding]:
    """Findings about the settings *given*: ``preload_app``, ``reload``, ``raw_env`` and ``backlog``.

    *where* names the place of a setting. *hooks*: whether they are loaded. *share*: our setting of that name. *somaxconn*:
    the system's limit of waiting connections, None where it is not known.
    """

    def at(name: str) -> str:
        return f"{where(name)}: {name} = {given[name]}"

    preload = bool(given["preload_app"])
    if preload and not hooks:
        yield Finding(
            "preload",
            at("preload_app"),
            "gunicorn loads the application once: neither a save nor a HUP replaces its code",
            f"put `{_LINE}` into the configuration, or remove preload_app",
        )
    elif hooks and platform != "linux" and (share == "always" or (preload and share != "never")):
        yield Finding(
            "preload",
            at("preload_app"),
            "no import is shared on this system, only on Linux: each worker imports the application",
            f"remove {'share' if share == 'always' else 'preload_app'}",
        )
    if given["reload"]:
        text = (
            "gunicorn's own reload is on, too: the hooks switch it off"
            if hooks
            else "gunicorn's own reload: clients wait for each import, and only a syntax error is survived"
        )
        yield Finding("another-reloader", at("reload"), text, "remove it")
    late = [each.partition("=")[0] for each in given["raw_env"] or () if each.startswith(ENV_PREFIX)]
    if late:
        yield Finding(
            "raw-env",
            f"{where('raw_env')}: raw_env",
            f"{some(late)}: gunicorn sets raw_env after the hooks have read their settings",
            "set it in the environment of gunicorn, or in [tool.wsgi_reload_hooks] of pyproject.toml",
        )
    backlog = given["backlog"]
    if somaxconn is not None and backlog > somaxconn and backlog != _DEFAULT_BACKLOG:
        yield Finding(
            "backlog",
            at("backlog"),
            f"the system lets {somaxconn} connections wait, not {backlog}",
            f"sysctl net.core.somaxconn={backlog}",
        )


def check_configurations(words: Sequence[str], variable: Sequence[str]) -> Iterator[Finding]:
    """A finding where gunicorn reads only the last of several configurations: those on its command line, *words*, and in
    ``GUNICORN_CMD_ARGS``, *variable*."""
    given = [*variable, *words]
    lost = [name for name in given[:-1] if name != given[-1]]
    if lost:
        ours = ", with these hooks" if any("wsgi_reload_hooks" in name for name in lost) else ""
        yield Finding(
            "two-configurations",
            f"{'command line' if len(words) > 1 else ENVIRONMENT}: {' '.join(f'-c {name}' for name in given)}",
            f"gunicorn reads the last configuration only: what is in {some(lost)} is lost{ours}",
            f"one -c, and `{_LINE}` in that file",
        )


def configurations(words: Sequence[str]) -> list[str]:
    """Each ``-c`` and ``--config`` among *words* of a command line."""
    found = []
    for word, after in zip(words, [*words[1:], ""], strict=False):
        if word in ("-c", "--config"):
            found.append(after)
        elif word.startswith("--config="):
            found.append(word.partition("=")[2])
        elif word.startswith("-c") and word[2:]:
            found.append(word[2:])
    return found
