"""Runs the user's callback for one event: a command, or this file again for a function; reports errors of it.

Started by its path in a bare interpreter, with these files: 0 the event (JSON), 1 nothing, 2 the server's standard error,
3 the plan, 4 a pipe for the verdict. Its exit code is always 0: some servers take others as their workers'.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from typing import Any

_ERRORS, _PLAN, _VERDICT = 2, 3, 4
_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PACKAGE_ROOT = os.path.dirname(_FOLDER)
_PACKAGE = "wsgi_reload_hooks"
_WORDS_AT_MOST = 2000


def oversee() -> None:
    """Run what the plan names, and report what was wrong with it, if anything."""
    plan = _plan()
    try:
        verdict = _run(plan)
    except Exception as error:
        verdict = f"{plan['name']}: an error in the hooks themselves: {error!r}"
    _tell(plan, verdict)


def _plan() -> dict[str, Any]:
    # By its place: two processes read it, and share one position in it.
    plan: dict[str, Any] = json.loads(os.pread(_PLAN, os.fstat(_PLAN).st_size, 0))
    return plan


def _run(plan: dict[str, Any]) -> str:
    name, words = plan["name"], plan["words"]
    kept: tuple[int, ...] = ()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    if plan["function"]:
        words, kept = [*plan["python"], os.path.abspath(__file__), "call", str(writer)], (_PLAN, writer)
    rights: dict[str, Any] = dict(zip(("user", "group", "extra_groups"), plan["rights"] or (), strict=False))
    try:
        process = subprocess.Popen(
            words, stdout=_ERRORS, cwd=plan["folder"], start_new_session=True, pass_fds=kept, **rights
        )
    except FileNotFoundError as error:
        there = "folder" if error.filename == plan["folder"] and words[0] != plan["folder"] else "command"
        return f"{name}: no such {there}: {error.filename}"
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"{name}: {words[0]} cannot be started: {error}"
    ended = _end(process, plan["limit"])
    try:
        raised = os.read(reader, _WORDS_AT_MOST).decode(errors="replace")
    except BlockingIOError:
        raised = ""
    wrong = raised or ended
    return f"{name}: {plan['function'] or words[0]} {wrong}" if wrong else ""


def _end(process: subprocess.Popen[bytes], limit: float) -> str:
    """Wait for the end of *process*, *limit* seconds at most. Returns what was wrong with it."""
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except PermissionError:
            # What macOS says of a group of zombies.
            pass
        process.wait()
        return f"did not end within {limit:g} s, and was killed"
    if status < 0:
        return f"was killed by {_signal(-status)}"
    return f"ended with exit code {status}" if status else ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tell(plan: dict[str, Any], verdict: str) -> None:
    if not verdict:
        return
    try:
        # Processes that it has forked may still hold the other end.
        if os.getppid() == plan["server"]:
            os.write(_VERDICT, verdict.encode(errors="backslashreplace"))
            return
    except OSError:
        pass
    try:
        # The pipe is broken: the server has ended.
        os.write(_ERRORS, f"[WARNING] reload: {ascii(verdict)[1:-1]}\n".encode())
    except OSError:
        return


# -- the process of a function -----------------------------------------------------------------------------------------


def call(writer: int) -> None:
    """Call the function of the plan with the event; write what it raises to *writer*, in words."""
    os.set_inheritable(writer, False)
    plan = _plan()
    os.close(_PLAN)
    # This folder's names (`files`, `settings`) must not hide the user's.
    sys.path[:] = [entry for entry in sys.path if entry != _FOLDER]
    _load_package()
    from wsgi_reload_hooks.report.callbacks import Event

    event = Event.from_json(sys.stdin.read())
    sys.path[:] = plan["path"]
    sys.argv[:] = [plan["function"]]
    module, _, name = plan["function"].partition(":")
    try:
        found: Any = importlib.import_module(module)
        for each in name.split("."):
            found = getattr(found, each)
        found(event)
    except SystemExit:
        # Its exit code tells.
        raise
    except BaseException as error:
        os.write(writer, f"raised {_reason(error, plan['folder'])}".encode(errors="backslashreplace")[:_WORDS_AT_MOST])


def _reason(error: BaseException, folder: str) -> str:
    """What it is, and where in the user's files."""
    from wsgi_reload_hooks.core.refusal import Refusal
    from wsgi_reload_hooks.core.settings import Settings
    from wsgi_reload_hooks.watching.rules import Files

    files = Files(Settings(), folder)
    hidden = (_PACKAGE_ROOT, os.path.dirname(os.path.abspath(importlib.__file__ or "")))
    why = Refusal.from_exception(error, hidden, files.ours)
    place: str | None = None if why.path is None else f"{files.relative(why.path)}, line {why.line}"
    return why.reason + (f" ({place})" if place else "")


def _load_package() -> None:
    """Load our package by its path: it need not be on the search path of functions."""
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, os.path.join(_PACKAGE_ROOT, "__init__.py"), submodule_search_locations=[_PACKAGE_ROOT]
    )
    assert spec is not None and spec.loader is not None
    sys.modules[_PACKAGE] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "__main__":
    if sys.argv[1:2] == ["call"]:
        call(int(sys.argv[2]))
    else:
        oversee()
