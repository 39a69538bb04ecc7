"""Names the user's hook in what it raises, so that a refusal can say which hook it was."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from ..core.refusal import Refusal
from .hidden_frames import hidden_folders


class HookFailed(Exception):
    """The user's hook *name* raised; what it raised is the cause."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the hook {name} raised")
        self.name = name


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Run the user's hook *name* inside. Raises HookFailed."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise HookFailed(name) from error


def refusal_from(error: BaseException, ours: Callable[[str], bool]) -> Refusal:
    """Why no worker could be forked. *ours*: whether a file is the project's."""
    if not isinstance(error, HookFailed) or error.__cause__ is None:
        return Refusal.from_exception(error, hidden_folders(), ours)
    why = Refusal.from_exception(error.__cause__, hidden_folders(), ours)
    return dataclasses.replace(why, reason=f"{error}: {why.reason}")
