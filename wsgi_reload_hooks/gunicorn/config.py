"""Loads gunicorn's configuration again, so that a broken one does not stop the server."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Collection
from typing import Any

from ..core.log import ReloadLog
from ..core.refusal import Refusal
from ..core.text import PACKAGE_ROOT
from ..reload.commands import Attempt
from ..trial.sources import compile_sources
from ..watching.modules import module_file
from ..watching.signature import Digest

_FACE = "wsgi_reload_hooks.gunicorn_conf"
_REFUSED = "configuration refused, still running with the previous one"


def configuration_files(server: Any) -> set[str]:
    """The files that *server* took its configuration from, or would take it from if they were there."""
    given = server.cfg.config
    # Where the server went at its start; the working directory itself may have been deleted since.
    folder = os.path.abspath(server.cfg.chdir)
    default = os.path.join(folder, "gunicorn.conf.py")
    if not given:
        return {default}
    if given.startswith("python:"):
        module = sys.modules.get(given[len("python:") :])
        path = module_file(module) if module is not None else None
    else:
        path = os.path.normpath(os.path.join(folder, given[len("file:") :] if given.startswith("file:") else given))
    face = module_file(sys.modules.get(_FACE)) or os.path.join(PACKAGE_ROOT, "gunicorn_conf.py")
    # Our own file as the configuration stands for the user's default one.
    return {path} if path is not None and path != os.path.abspath(face) else {default}


class ConfigurationUpdate:
    """The configuration as attempts find it: loaded where it changed, and kept out where it is refused.

    *digest*: returns the content of a file as of now.
    """

    def __init__(self, server: Any, log: ReloadLog, digest: Callable[[str], Digest]) -> None:
        self._server = server
        self._log = log
        self._digest = digest
        self._loaded: Configuration | None = None
        self._why: Refusal | None = None
        self._refused: dict[str, Digest] = {}
        self._is_news = False

    def load(self, attempt: Attempt, serves: bool) -> Refusal | None:
        """Load it where *attempt* changes or requests it. Why the attempt is refused, if it is.

        Good code that was saved together with a broken configuration is not refused: it gets the configuration of
        before.
        """
        files = configuration_files(self._server)
        changed = files & attempt.paths
        requested = attempt.request is not None
        found = {path: self._digest(path) for path in files}
        tried = requested or (bool(changed) and found != self._refused)
        if tried:
            self._load(found)
        if self._why is None:
            return None
        if requested or (changed and changed == attempt.paths):
            return dataclasses.replace(self._why, about=_REFUSED) if serves else self._why
        if tried:
            self._is_news = True
            self._log.refusal(_REFUSED, self._why)
        return None

    def _load(self, found: dict[str, Digest]) -> None:
        update = Configuration(self._server)
        self._why = update.load()
        self._loaded, self._refused = (update, {}) if self._why is None else (None, found)

    @property
    def refused_files(self) -> set[str]:
        """The files that are refused; the server runs with what they said before."""
        return set(self._refused)

    @property
    def workers(self) -> int | None:
        """The number of workers that it asks for, where it has been loaded anew."""
        return None if self._loaded is None else self._loaded.workers

    def restore(self) -> None:
        """The attempt is over, and was not good: put the configuration of before back."""
        update, self._loaded = self._loaded, None
        if update is not None:
            update.restore()

    def keep(self) -> None:
        """The attempt is in service, and its configuration with it."""
        update, self._loaded = self._loaded, None
        if update is not None:
            try:
                update.keep()
            except Exception as error:
                self._log.failure("the new configuration is in service, but not completely", error)

    def still_refused(self) -> tuple[Refusal, bool] | None:
        """After a reload of good code: why the configuration is still refused, and whether that was not reported yet."""
        is_news, self._is_news = self._is_news, False
        if self._why is None or any(self._digest(path) != content for path, content in self._refused.items()):
            return None
        return self._why, is_news


class Configuration:
    """One attempt to load it: `load`, then either `keep` or `restore`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._cfg = server.app.cfg
        self._num_workers = server.num_workers
        self._environ = dict(os.environ)
        self._address = server.cfg.address
        self._listeners = list(server.LISTENERS)
        self._old_pidfile = server.cfg.pidfile
        self.workers = self._num_workers

    def load(self) -> Refusal | None:
        """What is wrong with it, or None: then the server has it, but serves the old number of workers still."""
        server = self._server
        # Compiled first: a syntax error is told with its place, and nothing has happened yet.
        files = configuration_files(server)
        why = compile_sources(files)
        if why is not None:
            return why
        for path in files:
            # Saved twice in a second, its byte code may be of the first text.
            with contextlib.suppress(OSError, NotImplementedError):
                os.unlink(importlib.util.cache_from_source(path))
        said = io.StringIO()
        try:
            self._reset_environment()
            self._forget_module()
            with contextlib.redirect_stderr(said):
                server.app.reload()
            server.setup(server.app)
            self._listen()
        except (Exception, SystemExit) as error:
            self.restore()
            return self._refused(error, said.getvalue())
        sys.stderr.write(said.getvalue())
        self.workers = server.cfg.workers
        server._num_workers = self._num_workers
        server.log.reopen_files()
        return None

    def keep(self) -> None:
        """It is in service: the end of what only the old one had."""
        from gunicorn import sock, util
        from gunicorn.pidfile import Pidfile

        server = self._server
        gone = [each for each in self._listeners if each not in server.LISTENERS]
        if gone:
            sock.close_sockets(gone, not server.systemd)
            server.log.info("Listening at: %s", ",".join(map(str, server.LISTENERS)))
        if server.cfg.pidfile != self._old_pidfile:
            if server.pidfile is not None:
                server.pidfile.unlink()
            server.pidfile = None
            if server.cfg.pidfile is not None:
                server.pidfile = Pidfile(server.cfg.pidfile)
                server.pidfile.create(server.pid)
        util._setproctitle(f"master [{server.proc_name}]")

    def restore(self) -> None:
        """Put the old one back, as if nothing had been."""
        server = self._server
        for listener in server.LISTENERS:
            if listener not in self._listeners:
                listener.close()
        server.LISTENERS = self._listeners
        os.environ.clear()
        os.environ.update(self._environ)
        server.app.cfg = self._cfg
        if server.cfg is not self._cfg:
            server.setup(server.app)
        server._num_workers = self._num_workers

    def _reset_environment(self) -> None:
        """Take back what the old configuration's `raw_env` had set."""
        for name in self._cfg.env:
            if name in self._cfg.env_orig:
                os.environ[name] = self._cfg.env_orig[name]
            else:
                os.environ.pop(name, None)

    def _forget_module(self) -> None:
        # `-c python:module` is imported once; forgotten, it is read again.
        given = self._cfg.config
        if given and given.startswith("python:"):
            sys.modules.pop(given[len("python:") :], None)

    def _listen(self) -> None:
        """New sockets for new addresses; those that stay are kept, so no connection is lost."""
        from gunicorn import sock

        server = self._server
        if server.systemd or server.cfg.address == self._address or not self._listeners:
            return
        open_now = dict(zip(map(str, self._address), self._listeners, strict=False))
        new = [address for address in server.cfg.address if str(address) not in open_now]
        made = sock.create_sockets(_Only(server.cfg, new), server.log) if new else []
        opened = {**open_now, **dict(zip(map(str, new), made, strict=False))}
        server.LISTENERS = [opened[str(address)] for address in server.cfg.address]

    def _refused(self, error: BaseException, said: str) -> Refusal:
        import gunicorn

        # gunicorn prints what it met and leaves by SystemExit: what it met is the context.
        cause = error.__context__ if isinstance(error, SystemExit) and error.__context__ else error
        hidden = [os.path.dirname(os.path.abspath(gunicorn.__file__ or "")), PACKAGE_ROOT]
        why = Refusal.from_exception(cause, hidden, self._is_configuration)
        if why.path is not None and self._is_configuration(why.path):
            return why
        # A wrong value, say: gunicorn's first line tells which.
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        reason = f"{lines[0]} ({why.reason})" if lines and why.reason not in lines[0] else why.reason
        return dataclasses.replace(why, reason=reason, path=next(iter(configuration_files(self._server))), line=None)

    def _is_configuration(self, path: str) -> bool:
        return path in configuration_files(self._server)


class _Only:
    """A configuration with other addresses."""

    def __init__(self, cfg: Any, address: Collection[Any]) -> None:
        self._cfg = cfg
        self.address = address

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cfg, name)
