"""Runs in a worker: reports Django's folders of translations and templates, and resets both without a restart.

Nothing here imports Django or a part of it that the application has not loaded: what is not loaded has no cache. It
clears what Django's development server clears, but while requests are served.
"""

from __future__ import annotations

import contextvars
import functools
import gettext
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ..process.counters import KINDS, TEMPLATES, TRANSLATIONS, Generation, differing
from ..watching.walks import locale_folders

_OURSELVES = "wsgi_reload_hooks"
# Seconds until the second reset: a request may cache after the first one what it began to load before.
_AGAIN = 1.0
_CACHED = type(functools.lru_cache(maxsize=1)(lambda: None))

_numbers = itertools.count(1)
# The number of the last `renew` that this thread, or this task, has seen.
_known: contextvars.ContextVar[int] = contextvars.ContextVar("wsgi_reload_hooks_known", default=0)

Folders = dict[str, list[str]]
Tell = Callable[[str, BaseException], object]


class Memory(NamedTuple):
    """Says since when a process may cache something: seconds since the epoch, and the counters of that moment."""

    since: float
    seen: bytes


class DjangoAssets:
    """Runs at each Django request, once `connect` has found Django. Make it before the application is loaded.

    *report* is called with the folders that are *ours*, by kind, whenever they change, in the thread of a request.
    *tell* is called with a line and the exception if something cannot be reset. *memory*: that of the process that has
    loaded the application, if that is another one (a zygote).
    """

    def __init__(
        self,
        generation: Generation,
        ours: Callable[[str], bool],
        report: Callable[[Folders], object],
        tell: Tell,
        memory: Memory | None = None,
    ) -> None:
        memory = memory or Memory(time.time(), generation.now())
        self.since = memory.since
        """Django has read everything in its caches after this time (seconds since the epoch)."""
        self._generation = generation
        self._ours = ours
        self._report = report
        self._tell_anew = tell
        self._told: set[str] = set()
        self._seen = memory.seen
        self._connected = False
        self._again_at = 0.0
        self._again: set[str] = set()
        self._woken: object = None
        self._folders: Folders = {kind: [] for kind in KINDS}
        self._catalogs: TranslationCache | None = None

    def connect(self) -> None:
        """Connect to Django's signals if Django is loaded by now. Cheap, from any thread, and raises nothing."""
        if self._connected:
            return
        signals, conf = sys.modules.get("django.core.signals"), sys.modules.get("django.conf")
        started, finished = getattr(signals, "request_started", None), getattr(signals, "request_finished", None)
        if started is None or finished is None or not hasattr(conf, "settings"):
            return
        self._connected = True
        # Made now: gevent may have replaced the lock class since this process began.
        self._renew_lock()
        try:
            started.connect(self._on_started, weak=False, dispatch_uid=_OURSELVES)
            finished.connect(self._on_finished, weak=False, dispatch_uid=_OURSELVES)
        except Exception as error:
            self._tell("translations and templates of Django will not be reset", error)
        # A process that the application forks may inherit the lock while a thread holds it.
        os.register_at_fork(after_in_child=self._renew_lock)

    def look(self) -> None:
        """Report the folders if Django has loaded something since the last time."""
        try:
            woken = _woken()
            if woken != self._woken:
                self._woken = woken
                folders = {TRANSLATIONS: locale_folders(self._ours), TEMPLATES: template_folders(self._ours)}
                if folders != self._folders:
                    self._folders = folders
                    self._report(folders)
        except Exception as error:
            self._tell("the folders of Django's translations and templates cannot be had", error)

    def _on_started(self, **_: object) -> None:
        if self._generation.now() != self._seen or (self._again_at and time.monotonic() >= self._again_at):
            self._catch_up()
        if self._catalogs is not None:
            self._catalogs.refresh()

    def _on_finished(self, **_: object) -> None:
        self.look()

    def _catch_up(self) -> None:
        # The first request resets, the others wait for it: no request may be answered with an old text.
        with self._lock:
            now, clock = self._generation.now(), time.monotonic()
            kinds = differing(self._seen, now)
            if kinds:
                self._told = set()
                self._again |= kinds
                self._again_at = clock + _AGAIN
            elif self._again_at and clock >= self._again_at:
                kinds, self._again, self._again_at = self._again, set(), 0.0
            for kind in KINDS:
                if kind in kinds:
                    self._reset(kind)
            self._seen = now

    def _reset(self, kind: str) -> None:
        try:
            if kind == TRANSLATIONS:
                self._reset_translations()
            else:
                reset_templates()
        except Exception as error:
            self._tell(f"{kind} cannot be reset, the previous ones stay", error)

    def _reset_translations(self) -> None:
        trans_real = sys.modules.get("django.utils.translation.trans_real")
        if trans_real is None:
            return
        if self._catalogs is None or trans_real._translations is not self._catalogs:
            self._catalogs = TranslationCache(trans_real, self._tell)
        self._catalogs.renew()

    def _tell(self, line: str, error: BaseException) -> None:
        told = f"{line}: {error!r}"
        if told not in self._told:
            self._told.add(told)
            self._tell_anew(line, error)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()
        if self._catalogs is not None:
            self._catalogs.renew_lock()


class TranslationCache(dict[str, Any]):
    """Replaces Django's dictionary of translations by language, which other threads must never see empty.

    Django asks whether a language is in it, puts it there, and takes it out: between two of these steps another thread
    may have emptied it. So this one makes what is missing, and keeps nothing that Django's code stores in it.
    """

    def __init__(self, trans_real: Any, tell: Tell) -> None:
        super().__init__(trans_real._translations)
        self._trans_real = trans_real
        self._tell = tell
        self._before: dict[str, Any] = {}
        self._renewed = 0
        self.renew_lock()
        trans_real._translations = self

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where no thread holds it."""
        self._lock = threading.RLock()

    def renew(self) -> None:
        """Clear all caches, in this order: an object must not outlive what it was made from."""
        with self._lock:
            self._before.update(self)
            gettext._translations.clear()  # type: ignore[attr-defined]
            self.clear()
            for each in list(vars(self._trans_real).values()):
                # Caches of which languages exist, found by their files.
                if isinstance(each, _CACHED):
                    each.cache_clear()
            self._renewed = next(_numbers)
        self.refresh()

    def refresh(self) -> None:
        """Renew the default translation, and the one that an earlier request left active in this thread."""
        try:
            default = self._trans_real._default
            if default is not None and dict.get(self, default.language()) is not default:
                # Never None, not for a moment: other threads use it unchecked.
                self._trans_real._default = self[default.language()]
            if _known.get() == self._renewed:
                return
            _known.set(self._renewed)
            active = getattr(self._trans_real._active, "value", None)
            language = getattr(active, "language", None)
            # `deactivate_all` leaves a translation without a language.
            if language is not None and dict.get(self, language()) is not active:
                self._trans_real.activate(language())
        except Exception as error:
            self._tell("translations cannot be reset, the previous ones stay", error)

    def __contains__(self, language: object) -> bool:
        # The caller will take the language or make it; it is made here.
        return self[str(language)] is not None

    def __setitem__(self, language: str, translation: Any) -> None:
        """Store nothing: *translation* may be made from old files."""

    def __missing__(self, language: str) -> Any:
        with self._lock:
            made = dict.get(self, language)
            if made is None:
                made = self._make(language)
                super().__setitem__(language, made)
            return made

    def _make(self, language: str) -> Any:
        before = self._before.get(language)
        try:
            made = self._trans_real.DjangoTranslation(language)
        except Exception as error:
            if before is None:
                raise
            # The file may be in the middle of another save.
            self._tell(f"translations of {language} cannot be loaded, the previous ones stay", error)
            return before
        self._before.pop(language, None)
        return made


def template_folders(ours: Callable[[str], bool]) -> list[str]:
    """Return every folder that is *ours* and from which a loaded template engine of Django takes templates."""
    found: list[str] = []
    for backend in _backends():
        engine, env = getattr(backend, "engine", None), getattr(backend, "env", None)
        found += _paths(getattr(engine, "dirs", ()))
        for loader in _loaders(engine):
            found += _paths(loader.get_dirs() if hasattr(loader, "get_dirs") else ())
        if env is not None:
            found += _paths(backend.template_dirs)
            found += _paths(getattr(env.loader, "searchpath", ()))
    return [folder for folder in dict.fromkeys(found) if ours(os.path.join(folder, "x"))]


def reset_templates() -> None:
    """Clear the caches of every loaded template engine. Raises the first error at the end."""
    errors = []
    for backend in _backends():
        cache = getattr(getattr(backend, "env", None), "cache", None)
        resets = [loader.reset for loader in _loaders(getattr(backend, "engine", None))]
        for reset in resets if cache is None else [*resets, cache.clear]:
            try:
                reset()
            except Exception as error:
                errors.append(error)
    if errors:
        raise errors[0]


def _backends() -> Iterator[Any]:
    """Yield the loaded template backends, including the one that renders forms."""
    engines = getattr(sys.modules.get("django.template"), "engines", None)
    yield from list(getattr(engines, "_engines", {}).values())
    renderer = getattr(sys.modules.get("django.forms.renderers"), "get_default_renderer", None)
    if renderer is not None and renderer.cache_info().currsize:
        backend = getattr(renderer(), "__dict__", {}).get("engine")
        if backend is not None:
            yield backend


def _loaders(engine: Any) -> list[Any]:
    """Return the loaders of Django's own *engine*, if it has made them by now."""
    return list(getattr(engine, "__dict__", {}).get("template_loaders", ()))


def _woken() -> object:
    """Return a value that changes when Django has loaded more than before."""
    conf, registry = sys.modules.get("django.conf"), sys.modules.get("django.apps")
    configured = getattr(getattr(conf, "settings", None), "configured", False)
    ready = getattr(getattr(registry, "apps", None), "ready", False)
    return configured, ready, [len(_loaders(getattr(backend, "engine", None))) for backend in _backends()]


def _paths(folders: Iterable[Any]) -> list[str]:
    return [os.path.abspath(os.fsdecode(folder)) for folder in folders if folder]
