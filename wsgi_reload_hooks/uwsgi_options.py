"""uWSGI's options as uWSGI would take them from its environment, its command line and the files named there.

Nothing of uWSGI is needed or run. What only uWSGI itself can know (arithmetic, loops, plugins) stays as it is written.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Callable, Optional

from .console import Failure
from .files import printable
from .uwsgi_files import READERS, kind_of

COMMAND_LINE = "command line"
_ENV_PREFIX = "UWSGI_"
_FILES_AT_MOST = 100
_OFF = frozenset({"false", "off", "no", "0"})
# Those that take no value in the word behind them, as far as they are usual.
_FLAGS = re.compile(
    r"""(abstract-socket | auto-procname | catch-exceptions | chmod(-socket)? | close-on-exec2? | die-on-(idle|term)
      | disable-logging | enable-(metrics|threads) | freebind | harakiri-verbose | honour-stdin | lazy(-apps)?
      | log-(4xx|5xx|date|master|x-forwarded-for) | logdate | manage-script-name | master(-as-root)? | memory-report | mule
      | need-app | no-(default-app|fd-passing|initgroups|orphans|site|threads-wait) | py-call-.*fork.*
      | reload-on-exception | reuse-port | show-config | single-interpreter | skip-atexit | strict | thunder-lock | vacuum
      | vhost | wsgi-(accept-buffers?|disable-file-wrapper|strict))\Z""",
    re.VERBOSE,
)
_LETTERS = {
    "C": "chmod-socket",
    "H": "home",
    "L": "disable-logging",
    "M": "master",
    "Q": "spooler",
    "S": "set",
    "T": "enable-threads",
    "a": "abstract-socket",
    "b": "buffer-size",
    "d": "daemonize",
    "i": "single-interpreter",
    "j": "json",
    "l": "listen",
    "m": "memory-report",
    "p": "processes",
    "s": "socket",
    "w": "module",
    "x": "xml",
    "y": "yaml",
    "z": "socket-timeout",
}
# Switched off by 0.
_NUMBERS = re.compile(r"py(thon)?-auto-?reload|mules|cheaper|threads")
_SET = ("set", "set-ph", "set-placeholder")
_ENDS = ("end", "endif", "end-if", "endfor", "end-for")
_PLACEHOLDER = re.compile(r"%\(([^)\s]+)\)")
_VARIABLE = re.compile(r"\$\(([^):]+)(?::([^)]*))?\)")
_MAGIC = re.compile(r"%([dpsnecvko])")
# Options with one of these names, or beginning so, bring the master with them.
_BRING_MASTER = re.compile(
    r"touch-.*|fs-.*|mules?|farm|spooler|cheap(er.*)?|idle|(unique-)?cron2?|(smart-)?attach-(control-)?daemon2?|master-fifo"
    r"|stats.*|legion.*|log-master.*|alarm.*|metric.*|signal-(rb)?timer|(rb)?timer|py(thon)?-auto-?reload.*"
    r"|py-tracebacker|subscribe.*|(req-)?logger|threaded-logger|zerg-server|brutal-reload-on-fd|reload-on-fd"
)
_TAKES_FILES = re.compile(
    r"(ini|json|js|yaml|yml|xml|xmlconfig|config|include|inherit|set|env|if.*|for.*|touch-.*|fs-.*|.*paste.*)\Z"
)
_BRING_THREADS = re.compile(r"threads|py(thon)?-auto-?reload.*|py-tracebacker")


@dataclasses.dataclass(frozen=True)
class Option:
    """One option as it was given. *place*: the file, the variable or the command line."""

    name: str
    value: str
    place: str


class Unreadable(Exception):
    """A configuration file cannot be read: *place* and *reason*."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class Options:
    """All options, the one that counts last."""

    def __init__(self, given: Sequence[Option]) -> None:
        last = {each.name: each for each in given}
        self._given = [each for each in given if not _is_off(last[each.name])]

    def find(self, *names: str) -> Optional[Option]:
        """The one of these that counts, or None."""
        return next((each for each in reversed(self._given) if each.name in names), None)

    def value(self, *names: str) -> Optional[str]:
        """Its value."""
        found = self.find(*names)
        return None if found is None else found.value

    def values(self, *names: str) -> list[str]:
        """The values of all of these, in their order."""
        return [each.value for each in self._given if each.name in names]

    def number(self, *names: str, default: int) -> Optional[int]:
        """Its value as a number; None where it is none, because only uWSGI knows what it stands for."""
        value = self.value(*names)
        if value is None:
            return default
        return int(value) if value.isdecimal() else None

    def names(self) -> list[str]:
        """The names of all that are on, each once."""
        return list(dict.fromkeys(each.name for each in self._given))

    @property
    def lazy(self) -> bool:
        return self.find("lazy-apps", "lazy") is not None

    @property
    def master(self) -> bool:
        """Whether there is a master: some other options bring it with them."""
        return self.find("master") is not None or any(map(_BRING_MASTER.fullmatch, self.names()))

    @property
    def threads(self) -> bool:
        """Whether Python threads are asked for; newer versions have them in any case."""
        return self.find("enable-threads") is not None or any(map(_BRING_THREADS.fullmatch, self.names()))


def read(words: Sequence[str], environ: Mapping[str, str], folder: str) -> Options:
    """The options of ``uwsgi WORDS``, started in *folder* with *environ*.

    Raises `Unreadable`, and `Failure` for a kind of file that is not read here.
    """
    return _Reading(environ, folder).options(words)


class _Reading:
    def __init__(self, environ: Mapping[str, str], folder: str) -> None:
        self._environ = dict(environ)
        self._folder = folder
        self._given: list[Option] = []
        self._files = 0
        # What decides of the options to come, inside of an `if-...`.
        self._logic: Optional[Callable[[], bool]] = None
        self._last_file = ""

    def options(self, words: Sequence[str]) -> Options:
        for name, value in self._environ.items():
            if name.startswith(_ENV_PREFIX):
                self._add(name[len(_ENV_PREFIX) :].lower().replace("_", "-"), value, name)
        for name, value in _parsed(words):
            self._add(name, value, COMMAND_LINE)
        return Options(self._resolved())

    def _add(self, name: str, value: str, place: str) -> None:
        if name in _ENDS:
            self._logic = None
        elif self._logic is not None and not self._logic():
            return
        elif name in ("for", "for-glob", "for-times", "for-readline"):
            self._logic = lambda: True
        elif name.startswith("if"):
            self._logic = self._condition(name, value)
        elif name in _SET:
            key, _, what = value.partition("=")
            self._given.append(Option(key, what, place))
        else:
            self._given.append(Option(name, value, place))
            self._follow(name, value, place)

    def _condition(self, name: str, value: str) -> Callable[[], bool]:
        _, _, what = name.removeprefix("if").lstrip("-").rpartition("-")
        negative = "not-" in name
        key, equals, expected = value.partition("=")
        path = os.path.join(self._folder, value)

        def holds() -> bool:
            found: Optional[bool] = None
            if what == "env":
                found = key in self._environ and (not equals or self._environ[key] == expected)
            elif what == "opt":
                values = [each.value for each in self._given if each.name == key]
                found = bool(values) and (not equals or expected in values)
            elif what in ("exists", "file", "dir"):
                found = {"exists": os.path.exists, "file": os.path.isfile, "dir": os.path.isdir}[what](path)
            elif what == "reload":
                found = False
            # Of what only uWSGI knows, both branches count.
            return True if found is None else found != negative

        return holds

    # -- files -------------------------------------------------------------------------------------------------------

    def _follow(self, name: str, value: str, place: str) -> None:
        kind = {"yml": "yaml", "js": "json", "xmlconfig": "xml"}.get(name, name)
        given = self._substituted(value)
        if kind in ("config", "include", "inherit"):
            kind = kind_of(given)
            if not kind:
                raise Failure(f"{printable(given)} (from {place}): only ini, json, xml and yaml files are read")
        if kind in READERS:
            self._read_file(kind, given)

    def _read_file(self, kind: str, given: str) -> None:
        path, section = given, "uwsgi"
        if kind == "ini" and ":" in given and not os.path.exists(os.path.join(self._folder, given)):
            path, _, section = given.rpartition(":")
            section = section or "uwsgi"
        if "://" in given:
            raise Failure(f"{printable(given)}: only files are read; name one")
        full = os.path.join(self._folder, path) if path else self._last_file
        self._files += 1
        shown = printable(os.path.relpath(full, self._folder) if full.startswith(self._folder + os.sep) else full)
        if self._files > _FILES_AT_MOST:
            raise Unreadable(shown, "files include each other without end")
        try:
            with open(full, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError as error:
            raise Unreadable(shown, error.strerror or str(error)) from None
        self._last_file = full
        try:
            pairs = READERS[kind](self._with_magic(text, full), section)
        except ValueError as error:
            raise Unreadable(shown, " ".join(str(error).split())) from None
        if pairs is None:
            raise Unreadable(shown, f"there is no section {section} in it")
        for name, value in pairs:
            self._add(name, value, shown)

    def _with_magic(self, text: str, path: str) -> str:
        full = os.path.abspath(path)
        folder, name = os.path.split(full)
        stem, dot, ending = name.rpartition(".")
        values = {
            "d": folder.rstrip("/") + "/",
            "p": full,
            "o": path,
            "s": name,
            "n": stem if dot else name,
            "e": ending if dot else "",
            "c": os.path.basename(folder),
            "v": self._folder,
            "k": str(os.cpu_count() or 1),
        }
        return _MAGIC.sub(lambda found: values[found[1]], text)

    # -- placeholders ------------------------------------------------------------------------------------------------

    def _substituted(self, value: str) -> str:
        value = _VARIABLE.sub(lambda found: self._environ.get(found[1], found[2] or ""), value)
        values: dict[str, str] = {}
        for each in self._given:
            values.setdefault(each.name, each.value)
        return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), value)

    def _resolved(self) -> list[Option]:
        # Placeholders may stand in the values of others.
        for _ in range(3):
            self._given = [dataclasses.replace(each, value=self._substituted(each.value)) for each in self._given]
        return self._given


def _is_off(option: Option) -> bool:
    can_be = _FLAGS.match(option.name) or _NUMBERS.fullmatch(option.name)
    return can_be is not None and option.value.lower() in _OFF


def _parsed(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and value of each option on a command line; what is named without one comes last, as with uWSGI."""
    rest = list(words)
    plain: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            plain += rest
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
        elif word.startswith("-") and len(word) > 1:
            name, value, equals = _LETTERS.get(word[1], word[1]), word[2:], word[2:]
        else:
            plain.append(word)
            continue
        takes_value = not equals and not _FLAGS.match(name) and rest and not rest[0].startswith("-")
        # Before the name of a configuration file it may be a flag that is not known here.
        if takes_value and (_TAKES_FILES.match(name) or not kind_of(rest[0])):
            value = rest.pop(0)
        yield name, value
    for word in plain:
        kind = kind_of(word.partition(":")[0])
        if kind:
            yield kind, word
        elif word.endswith((".py", ".wsgi")):
            yield "wsgi-file", word


def _takes_files(name: str) -> bool:
    return bool(re.match(r"touch-|fs-|for|emperor|set|env|paste|logfile|if-", name))
