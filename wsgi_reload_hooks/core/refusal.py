"""Defines `Refusal`: why new code was not put into service, in the words that a user needs."""

from __future__ import annotations

import dataclasses
import os
import traceback as tracebacks
from collections.abc import Callable, Iterable, Iterator, Sequence

_TRACE_LINES = 12

_LINE_AT_MOST = 500


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Says why new code was not put into service.

    *path* and *line* are where to look (None if unknown), *reason* is one line, *traceback* its last lines.
    *files* are the files of the traceback: a repair may happen in any of them. *about*: what is refused, for the log,
    where it is not new code.
    """

    reason: str
    path: str | None = None
    line: int | None = None
    traceback: str = ""
    files: tuple[str, ...] = ()
    about: str = ""

    @classmethod
    def from_exception(
        cls, error: BaseException, hidden: Iterable[str] = (), ours: Callable[[str], bool] = os.path.exists
    ) -> Refusal:
        """Make a refusal of the exception that an import raised.

        Frames of files in the folders *hidden* (the server's) are left out; *path* is the deepest file that is *ours*.
        """
        report = tracebacks.TracebackException.from_exception(error)
        _strip(report, tuple(os.path.join(folder, "") for folder in hidden))
        text = _last_lines("".join(report.format()))
        frames = list(report.stack)
        if isinstance(error, SyntaxError) and error.filename:
            # Without the text of the line: reading that fails if the file's encoding is wrong.
            frames.append(tracebacks.FrameSummary(error.filename, error.lineno or 1, "", line=""))
        refused = cls.from_stack(_reason(error), frames, ours)
        files = (*refused.files, *(frame.filename for each in _causes(report) for frame in each.stack))
        return dataclasses.replace(refused, traceback=text if frames else "", files=tuple(dict.fromkeys(files)))

    @classmethod
    def from_stack(
        cls, reason: str, stack: Sequence[tracebacks.FrameSummary], ours: Callable[[str], bool] = os.path.exists
    ) -> Refusal:
        """Make a refusal that points to where the code is running now."""
        place = next((frame for frame in reversed(stack) if ours(frame.filename)), stack[-1] if stack else None)
        return cls(
            reason=reason,
            path=place.filename if place else None,
            line=place.lineno if place else None,
            traceback=_last_lines("".join(tracebacks.format_list(list(stack[-4:])))),
            files=tuple(dict.fromkeys(frame.filename for frame in stack)),
        )


def _strip(report: tracebacks.TracebackException, folders: tuple[str, ...]) -> None:
    for each in (report, *_causes(report)):
        each.stack[:] = [frame for frame in each.stack if not frame.filename.startswith((*folders, "<"))]


def _causes(report: tracebacks.TracebackException) -> Iterator[tracebacks.TracebackException]:
    """Yield all exceptions that led to that of *report*."""
    waiting = [report.__cause__, report.__context__]
    while waiting:
        each = waiting.pop()
        if each is not None:
            yield each
            waiting += [each.__cause__, each.__context__]


def _reason(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = str(error.msg or "" if isinstance(error, SyntaxError) else error).strip()
    except Exception:
        # The exception's own `__str__` failed; the rest of the report is still useful.
        text = "(it cannot be shown)"
    return f"{name}: {text.splitlines()[0]}"[:_LINE_AT_MOST] if text else name


def _last_lines(text: str) -> str:
    return "\n".join(line[:_LINE_AT_MOST] for line in text.rstrip().splitlines()[-_TRACE_LINES:])
