"""Runs as the trial process: loads what the live process would load, and reports the outcome.

Started by its path in a fresh interpreter, with these files: 0 nothing, 1 and 2 what is printed, 3 the plan,
4 the report (lines of JSON), 5 a pipe that ends with the process that started the trial. Exit code: 0 after a verdict.
"""

from __future__ import annotations

import _thread
import faulthandler
import fcntl
import importlib.machinery
import importlib.util
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

_PLAN, _TOLD, _LIFELINE = 3, 4, 5
_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PACKAGE_ROOT = os.path.dirname(_FOLDER)
_PACKAGE = "wsgi_reload_hooks"
# Seconds. If no thread could report by then where the code hangs, C code holds the interpreter's lock.
_LAST_WORDS = 0.25


class NotServable(Exception):
    """Reports that the loaded object is not what a server needs. *path*: where to look, or None."""

    def __init__(self, reason: str, path: str | None) -> None:
        super().__init__(reason)
        self.path = path


class TrialProcess:
    """Prepares this interpreter as *plan* says (see `plan.Plan`), and runs the trial in it."""

    def __init__(self, plan: dict[str, Any]) -> None:
        # By full names: as a program, this file belongs to no package.
        from wsgi_reload_hooks.core.refusal import Refusal
        from wsgi_reload_hooks.core.settings import Settings
        from wsgi_reload_hooks.trial.frameworks import finish
        from wsgi_reload_hooks.trial.warmup import Failed, warm_up, warm_up_any
        from wsgi_reload_hooks.watching.import_hook import ImportHook
        from wsgi_reload_hooks.watching.rules import Files
        from wsgi_reload_hooks.watching.signature import known_signature

        self._plan = plan
        self._pid = os.getpid()
        self._thread = _thread.get_ident()
        self._last = ""
        self._finish = finish
        self._apps: list[Any] = []
        self._warm_up, self._failed = warm_up_any if plan["asgi"] else warm_up, Failed
        self._refused = Refusal
        self._signature = known_signature
        try:
            os.chdir(plan["folder"])
            # Without patterns: this interpreter may lack pathspec.
            settings = Settings.load(plan["root"], extra_files=(), exclude=())
            self._files = Files(settings, plan["root"])
        except (OSError, ValueError) as error:
            # A live process could not start with these settings either.
            self._verdict(Refusal(str(error), files=(os.path.join(plan["root"], "pyproject.toml"),)))
        self._witness = ImportHook(self._ours, self._seen)
        self._stand_ins = [_stand_in(name, values) for name, values in _received(plan["modules"]).items()]

    def watch(self) -> None:
        """Run in a thread: end this process when it takes too long, or when its starter has closed the pipe."""
        if select.select([_LIFELINE], [], [], max(0.0, self._plan["deadline"] - time.monotonic()))[0]:
            os.killpg(0, signal.SIGKILL)
        # The package has imported it already, so this import cannot block.
        import traceback

        stack = traceback.extract_stack(sys._current_frames().get(self._thread))
        stack[:] = [each for each in stack if not each.filename.startswith((os.path.join(_PACKAGE_ROOT, ""), "<"))]
        if not any(self._ours(each.filename) for each in stack):
            # Another greenlet runs in the main thread now.
            self._verdict(
                self._refused(self._plan["late"], self._last or None, None, "", (self._last,) if self._last else ())
            )
        self._verdict(self._refused.from_stack(self._plan["late"], stack, self._ours))

    def play(self) -> NoReturn:
        """Load everything and report the verdict."""
        sys.path[:] = self._plan["path"]
        sys.argv[:] = self._plan["argv"]
        for module in self._stand_ins:
            sys.modules[module.__name__] = module
        self._witness.install()
        try:
            for target in self._plan["targets"]:
                self._load(target)
            self._finish()
            # With several applications, it is unknown which of them the paths belong to.
            if len(self._apps) == 1:
                self._warm_up(self._apps[0], self._plan["warmup"])
        except self._failed as error:
            path = self._last or None
            self._verdict(self._refused(str(error), path, None, "", (path,) if path else ()))
        except NotServable as error:
            self._verdict(self._refused(str(error), error.path, None, "", (error.path,) if error.path else ()))
        except BaseException as error:
            # The last one is the library that ran the warm-up of an ASGI application.
            carriers = [
                importlib,
                *([sys.modules["asyncio"]] if self._plan["asgi"] and "asyncio" in sys.modules else []),
            ]
            hidden = (_PACKAGE_ROOT, *(os.path.dirname(os.path.abspath(str(each.__file__))) for each in carriers))
            self._verdict(self._refused.from_exception(error, hidden, self._ours))
        self._verdict(None)

    def _load(self, target: dict[str, Any]) -> None:
        for path in target["files"]:
            if self._ours(path):
                self._seen(path, self._signature(path))
        what, where = _LOADERS[target["kind"]](target)
        if not isinstance(what, dict):
            _check(what, target["name"], where)
            self._apps.append(what)
        elif target["table"] or target["attribute"]:
            self._check_callables(target, what, where)

    def _check_callables(self, target: dict[str, Any], names: dict[str, Any], path: str | None) -> None:
        where = self._files.relative(os.path.abspath(path)) if path else target["name"]
        # A server that knows of such tables looks into its own module first.
        for each in (*(vars(module) for module in self._stand_ins), names):
            table = each.get(target["table"])
            if isinstance(table, dict) and table:
                for key, found in table.items():
                    _check(
                        names.get(found) if isinstance(found, str) else found,
                        f"{target['table']}[{key!r}]",
                        where,
                        path,
                    )
                return
        wanted = [name for name in (target["attribute"], target["otherwise"]) if name]
        name = next((each for each in wanted if names.get(each) is not None), None)
        if name is None:
            raise NotServable(f"{where} has no callable {' and no '.join(map(repr, wanted))}", path)
        found = names[name]
        if target["anything"]:
            return
        _check(found, repr(name), where, path)
        if target["call"]:
            found = found()
            _check(found, f"{name}()", where, path)
        self._apps.append(found)

    def _ours(self, path: str) -> bool:
        return os.path.exists(path) and self._files.ours(os.path.abspath(path))

    def _seen(self, path: str, signature: Any) -> None:
        self._last = path
        self._tell({"loaded": [path, signature]})

    def _verdict(self, refused: Any) -> NoReturn:
        if refused is None:
            self._tell({"good": True})
        else:
            # The loaders of some servers name files relative to the working directory.
            files = [os.path.abspath(path) if os.path.exists(path) else path for path in refused.files]
            path = os.path.abspath(refused.path) if refused.path else None
            self._tell({"refused": {**vars(refused), "path": path, "files": files}})
        # Neither the application's threads nor its exit handlers may delay the end.
        os._exit(0)

    def _tell(self, line: dict[str, Any]) -> None:
        if os.getpid() == self._pid:
            os.write(_TOLD, json.dumps(line).encode() + b"\n")


def _check(found: object, name: str, where: str | None, path: str | None = None) -> None:
    if not callable(found):
        raise NotServable(f"{name} in {where} is no callable: its type is {type(found).__name__}", path)


def _module(target: dict[str, Any]) -> tuple[Any, str | None]:
    names = vars(importlib.import_module(target["name"]))
    path = names.get("__file__")
    return names, os.path.abspath(path) if isinstance(path, str) else None


def _file(target: dict[str, Any]) -> tuple[Any, str | None]:
    from wsgi_reload_hooks.process.safe_read import SOURCE_AT_MOST, safe_read

    path: str = target["name"]
    package = os.path.isdir(path)
    source = os.path.join(path, "__init__.py") if package else path
    text = safe_read(source, SOURCE_AT_MOST)
    loader = importlib.machinery.SourceFileLoader(target["alias"], source)
    places = [path] if package else None
    spec = importlib.util.spec_from_file_location(
        target["alias"], source, loader=loader, submodule_search_locations=places
    )
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = source
    sys.modules[target["alias"]] = module
    # Compiled from its text: servers use no byte code for such a file.
    exec(compile(text, source, "exec", dont_inherit=True), vars(module))
    return vars(sys.modules[target["alias"]]), os.path.abspath(source)


def _code(target: dict[str, Any]) -> tuple[Any, str | None]:
    module = sys.modules[target["alias"]] = ModuleType(target["alias"])
    exec(compile(target["name"], target["alias"], "exec", dont_inherit=True), vars(module))
    return vars(module), None


def _paste(target: dict[str, Any]) -> tuple[Any, str | None]:
    loadapp: Any = importlib.import_module("paste.deploy").loadapp
    return loadapp(target["name"]), "paste"


def _pecan(target: dict[str, Any]) -> tuple[Any, str | None]:
    deploy: Any = importlib.import_module("pecan.deploy").deploy
    return deploy(target["name"]), "pecan"


_Loader = Callable[[dict[str, Any]], tuple[Any, str | None]]
_LOADERS: dict[str, _Loader] = {"module": _module, "file": _file, "code": _code, "paste": _paste, "pecan": _pecan}


class _StandIn(ModuleType):
    """Replaces a module that exists in the live process only."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return _nothing


def _stand_in(name: str, values: dict[str, Any]) -> ModuleType:
    module = _StandIn(name)
    for key, value in values.items():
        if key.endswith("()"):
            setattr(module, key[:-2], _constantly(value))
        else:
            setattr(module, key, value)
    return module


def _constantly(value: Any) -> Callable[..., Any]:
    return lambda *arguments, **named: value


def _nothing(*arguments: object, **named: object) -> None:
    """Do nothing: a function of a stand-in module."""


def _received(value: Any) -> Any:
    if isinstance(value, list):
        return [_received(each) for each in value]
    if isinstance(value, dict):
        if "bytes" in value:
            return value["bytes"].encode("latin-1")
        return {_received(key): _received(each) for key, each in value["dict"]}
    return value


def _close_what_was_inherited() -> None:
    for name in os.listdir("/dev/fd"):
        if int(name) > _LIFELINE:
            try:
                os.close(int(name))
            except OSError:
                continue
    for number in (_TOLD, _LIFELINE):
        os.set_inheritable(number, False)


def _end_with_the_other_side() -> None:
    """Have the kernel, if it can, kill this process group when the pipe ends, whatever runs here."""
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(_LIFELINE, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(_LIFELINE, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(_LIFELINE, fcntl.F_SETFL, fcntl.fcntl(_LIFELINE, fcntl.F_GETFL) | fcntl.FASYNC)


def _load_package() -> None:
    """Load our package by its path: it is not added to the application's search path."""
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, os.path.join(_PACKAGE_ROOT, "__init__.py"), submodule_search_locations=[_PACKAGE_ROOT]
    )
    assert spec is not None and spec.loader is not None
    sys.modules[_PACKAGE] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def main() -> None:
    """Run the plan. Does not return."""
    # This folder's names (`files`, `settings`) must not hide the application's.
    sys.path[:] = [entry for entry in sys.path if entry != _FOLDER]
    _close_what_was_inherited()
    _end_with_the_other_side()
    with open(_PLAN, "rb") as file:
        plan = json.loads(file.read())
    faulthandler.enable(2)
    faulthandler.dump_traceback_later(max(0.01, plan["deadline"] - time.monotonic() + _LAST_WORDS), file=2)
    _load_package()
    stage = TrialProcess(plan)
    _thread.start_new_thread(stage.watch, ())
    # An application that looks at `__main__` finds as little there as in a server; the real module has to stay alive.
    _ourselves, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    stage.play()


if __name__ == "__main__":
    main()
