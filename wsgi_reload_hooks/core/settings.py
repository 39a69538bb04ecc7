"""Defines all settings in one table, and loads their values.

Sources, the first that has a value wins: keyword, environment (``WSGI_RELOAD_*``), the table
``[tool.wsgi_reload_hooks]`` of ``pyproject.toml``, default. The idea of one table from which everything
else derives is waitress's.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .patterns import fault

ENV_PREFIX = "WSGI_RELOAD_"
TABLE = "wsgi_reload_hooks"
_PYPROJECT_AT_MOST = 1 << 20
# A project may name the package (in a list of dependencies, say) without having the table.
_TABLE_KEY = re.compile(rb"^[ \t\[]*(tool[ \t]*\.[ \t]*)?[\"']?wsgi_reload_hooks[\"']?[ \t]*[].=]", re.MULTILINE)


class SettingsError(ValueError):
    """Reports a setting that cannot be used. The text is one line: name, value, source, what is allowed."""

    def __init__(self, text: str) -> None:
        # A path or the name of a variable may have anything in it.
        super().__init__(" ".join(text.splitlines()))


@dataclasses.dataclass(frozen=True)
class Rule:
    """Says what one setting accepts, and its line of help."""

    help: str
    allowed: str
    minimum: float | None = None
    choices: tuple[str, ...] = ()
    each: str = ""
    """A pattern for each item of a list."""
    check: Callable[[Any], object] | None = None
    """Raises ValueError for a value that cannot be used."""


def _setting(default: Any, text: str, allowed: str, **limits: Any) -> Any:
    return dataclasses.field(default=default, metadata={"rule": Rule(text, allowed, **limits)})


def _is_command(text: str) -> None:
    """Check that *text* is empty, or a command with valid quoting. Raises ValueError."""
    if text and not (shlex.split(text) or [""])[0]:
        raise ValueError("no command")


_SECONDS = "seconds, a number above 0"
_CALLBACK = "`package.module:function`, or a command with its arguments, quoted as for a shell"
_GLOBS = (
    "file names or patterns as in `.gitignore`, `!` before one that takes back what earlier ones matched; "
    "separated by commas in the environment; needs `pip install pathspec`"
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Holds all settings with their values. Times are in seconds, floats.

    Raises nothing by itself; `load` checks.
    """

    enabled: bool = _setting(True, "off: the server runs as if the hooks were not loaded", "true or false")
    engine: str = _setting(
        "auto",
        "how changes are noticed: events of the kernel (`watchfiles`, an optional package) or polling (`stat`); `auto`: "
        "events where they are available",
        "auto, watchfiles or stat",
        choices=("auto", "watchfiles", "stat"),
    )
    interval: float = _setting(0.2, "time between two polls of the stat engine", _SECONDS, minimum=0.01)
    budget: float = _setting(
        0.01,
        "maximum part of one core that polling may use; with very many files the stat engine polls less often",
        "a part of one core, a number above 0",
        minimum=0.0001,
    )
    step: float = _setting(
        0.05, "how long no further file may change before a burst of changes counts as ended", _SECONDS, minimum=0.001
    )
    debounce: float = _setting(1.6, "maximum time to wait for a burst of changes to end", _SECONDS, minimum=0.001)
    extra_files: tuple[str, ...] = _setting(
        (),
        "files to watch besides the loaded modules, relative to the project; globs and folders leave out what git ignores",
        _GLOBS,
    )
    exclude: tuple[str, ...] = _setting(
        (), "files that never cause a reload, even if they are loaded or listed", _GLOBS
    )
    third_party: bool = _setting(
        False, "also watch each module of site-packages and of the standard library", "true or false"
    )
    broken_start: str = _setting(
        "wait",
        "what to do when the application does not load at the start: `wait` for its repair, or leave it to the server (`exit`)",
        "wait or exit",
        choices=("wait", "exit"),
    )
    boot_timeout: float = _setting(
        60.0, "maximum time for new code to load; after that it is refused", _SECONDS, minimum=0.1
    )
    kill_after: float = _setting(
        5.0,
        "run: time between SIGTERM and SIGKILL for a program and its process group",
        _SECONDS,
        minimum=0.01,
    )
    warmup: tuple[str, ...] = _setting(
        (),
        "paths, or URLs where the host matters, that new code must answer before it serves; an exception, or a status of "
        "500 or above, refuses it",
        "paths that begin with `/`, or URLs; separated by commas in the environment",
        each=r"(https?://[^/\s:]+(:\d{1,5})?)?/\S*",
    )
    share: str = _setting(
        "auto",
        "gunicorn on Linux: import the application once, in a process from which all workers are forked; `auto`: with "
        "preload_app",
        "auto, always or never",
        choices=("auto", "always", "never"),
    )
    trial: bool = _setting(
        True,
        "uWSGI, run: import new code in a fresh interpreter before it serves; off: it is only compiled",
        "true or false",
    )
    surge: int = _setting(
        0,
        "gunicorn: how many new workers may start next to the old ones; 0: all at once, behind one gate; 1 or more: less "
        "memory, but old and new code serve side by side for a while",
        "a whole number, 0 or more",
        minimum=0,
    )
    on_change: str = _setting("", "called when a change is going to be tried", _CALLBACK, check=_is_command)
    on_reloaded: str = _setting("", "called when new code is in service", _CALLBACK, check=_is_command)
    on_refused: str = _setting("", "called when new code is refused", _CALLBACK, check=_is_command)
    metrics_file: str = _setting(
        "", "where to write counters for Prometheus, in its text format", "a file, relative to the project"
    )
    log_format: str = _setting(
        "text",
        "`json`: each log line of the hooks is one JSON object",
        "text or json",
        choices=("text", "json"),
    )

    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    """Name of each setting that is not a default -> where its value came from."""

    @classmethod
    def load(
        cls,
        root: str | None = None,
        environ: Mapping[str, str] | None = None,
        **keywords: Any,
    ) -> Settings:
        """Load the settings for the project in *root* (default: the working directory).

        *keywords* win over *environ* (default: ``os.environ``), and *environ* wins over ``pyproject.toml``.
        Raises `SettingsError` for a wrong type, value or name.
        """
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for source, name, value in _given(project_root(root), os.environ if environ is None else environ, keywords):
            values[name] = _checked(name, value, source)
            sources[name] = source
        if values.get("engine") == "watchfiles" and importlib.util.find_spec("watchfiles") is None:
            raise SettingsError(
                f"setting engine = 'watchfiles' (from {sources['engine']}): watchfiles is not installed; "
                "pip install watchfiles, or use engine = auto"
            )
        for name in ("extra_files", "exclude"):
            _check_patterns(name, values.get(name, ()), sources.get(name, ""))
        return cls(**values, sources=sources)


FIELDS: dict[str, dataclasses.Field[Any]] = {
    field.name: field for field in dataclasses.fields(Settings) if "rule" in field.metadata
}


def project_root(start: str | None = None) -> str:
    """Find the nearest folder at or above *start* (default: working directory) with ``pyproject.toml``, else *start*."""
    folder = here = os.path.abspath(start or os.getcwd())
    while not os.path.exists(os.path.join(folder, "pyproject.toml")):
        above = os.path.dirname(folder)
        if above == folder:
            return here
        folder = above
    return folder


def _given(root: str, environ: Mapping[str, str], keywords: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield (source, name, value), weakest source first."""
    path = os.path.join(root, "pyproject.toml")
    yield from ((path, name, value) for name, value in _pyproject(path).items())
    for variable in sorted(environ):
        if variable.startswith(ENV_PREFIX):
            yield variable, variable[len(ENV_PREFIX) :].lower(), environ[variable]
    yield from (("keyword", name, value) for name, value in keywords.items())


def _pyproject(path: str) -> dict[str, Any]:
    try:
        # A FIFO without a writer would hold up the server's start.
        with open(path, "rb", 0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
            text = file.read(_PYPROJECT_AT_MOST + 1) or b""
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}; make it readable or remove it") from None
    if len(text) > _PYPROJECT_AT_MOST:
        raise SettingsError(f"{path} is larger than {_PYPROJECT_AT_MOST} bytes; make it smaller")
    if not _TABLE_KEY.search(text):
        return {}
    toml = _toml(path)
    try:
        tool = toml.loads(text.decode()).get("tool", {})
    except ValueError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    table = tool.get(TABLE, {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise SettingsError(f"tool.{TABLE} in {path} must be a table, not {table!r}")
    return table


def _toml(path: str) -> Any:
    """Read the TOML file *path*. Python 3.11 has a TOML reader; older ones use tomli if it is installed."""
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise SettingsError(
        f"[tool.{TABLE}] in {path} cannot be read by this Python: install tomli, or use {ENV_PREFIX}* variables"
    )


def _checked(name: str, value: Any, source: str) -> Any:
    field = FIELDS.get(name)
    if field is None:
        known = ", ".join(sorted(FIELDS))
        raise SettingsError(f"unknown setting {name!r} = {value!r} (from {source}); known are: {known}")
    rule: Rule = field.metadata["rule"]
    try:
        result = _converted(value, field.default)
        if rule.choices and result not in rule.choices:
            raise ValueError
        if rule.each and not all(re.fullmatch(rule.each, item) for item in result):
            raise ValueError
        if rule.check is not None:
            rule.check(result)
        if rule.minimum is not None and not (result >= rule.minimum and result < float("inf")):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        least = f", {rule.minimum:g} at least" if rule.minimum else ""
        raise SettingsError(f"setting {name} = {value!r} (from {source}): must be {rule.allowed}{least}") from None
    return result


def _check_patterns(name: str, texts: tuple[str, ...], source: str) -> None:
    for text in texts:
        why = fault("/" + text.removeprefix("!"))
        if why:
            raise SettingsError(f"setting {name} = {text!r} (from {source}): {why}")


_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _converted(value: Any, default: Any) -> Any:
    """Convert *value* to the type of *default*. Raises ValueError or TypeError."""
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in _WORDS:
            return _WORDS[value.strip().lower()]
        raise ValueError
    if isinstance(default, (int, float)):
        if isinstance(value, bool) or (isinstance(default, int) and isinstance(value, float)):
            raise TypeError
        return type(default)(value)
    if isinstance(default, tuple):
        items = value.split(",") if isinstance(value, str) else list(value)
        if not all(isinstance(item, str) for item in items):
            raise TypeError
        names = tuple(item.strip() for item in items if item.strip())
        if "!" in names:
            raise ValueError
        return names
    if not isinstance(value, str):
        raise TypeError
    if "\0" in value:
        raise ValueError
    return value
