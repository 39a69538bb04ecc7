"""Imported by uWSGI before the hooks: notes who registers a uwsgidecorators timer, and who calls `uwsgi.reload()`.

One line a call in the file `notes`.
"""

import sys
from collections.abc import Callable
from typing import Any

import uwsgi
import uwsgidecorators

uwsgi_reload = uwsgi.reload


def note(text: str) -> None:
    """Add a line; one write, so lines of several processes do not mix."""
    with open("notes", "a") as notes:
        notes.write(text + "\n")


class RecordedTimer(uwsgidecorators.timer):  # type: ignore[misc]
    """The decorator, and a note of the module whose function is under it."""

    def __call__(self, function: Callable[[int], object]) -> Any:
        note(f"timer {function.__module__}")
        return super().__call__(function)


def recorded_reload() -> None:
    """Reload, and a note of the module that asked for it."""
    note(f"reload {sys._getframe(1).f_globals['__name__']}")
    uwsgi_reload()


uwsgidecorators.timer = RecordedTimer
uwsgi.reload = recorded_reload
