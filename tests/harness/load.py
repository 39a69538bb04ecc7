"""Load on a server, and what its visitors saw."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

from .waiting import LIMIT, wait_until

CLIENT = Path(__file__).with_name("load_client.py")


class Answer(NamedTuple):
    """One request, as its client saw it; times are of the monotonic clock."""

    start: float
    duration: float
    version: str
    pid: int
    error: str

    @property
    def end(self) -> float:
        return self.start + self.duration


class Load:
    """Clients that ask without a pause, for as long as the block lasts; `pause`: seconds, after a failure."""

    def __init__(self, port: int, *, keep_alive: bool, clients: int = 16, pause: float = 0.0) -> None:
        self.clients = clients
        self._answers: list[Answer] = []
        self._standstills: list[tuple[float, float]] = []
        self._half_a_line = b""
        self._file: IO[bytes] = tempfile.NamedTemporaryFile(prefix="load-")  # noqa: SIM115
        self._command = [sys.executable, str(CLIENT), str(port), str(clients), "keep" if keep_alive else "close"]
        self._pause = pause
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Load:
        self._process = subprocess.Popen([*self._command, self._file.name, str(self._pause)], stdin=subprocess.PIPE)
        self.run(self.clients)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            text = self.summary()
            self._file.close()
        if kind is not None:
            print(text)

    def stop(self) -> None:
        """Let every client finish what it asked."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        assert process.returncode == 0, "the load client itself failed"

    @property
    def answers(self) -> list[Answer]:
        """All requests that are over by now."""
        if self._file.closed:
            return self._answers
        data = self._half_a_line + self._file.read()
        *lines, self._half_a_line = data.split(b"\n")
        for record in map(json.loads, lines):
            if len(record) == 2:
                self._standstills.append((record[0], record[1]))
            else:
                self._answers.append(Answer(*record))
        return self._answers

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.error]

    def longest(self, since: float = 0.0, until: float = float("inf")) -> float:
        """The longest of the requests that began in that time."""
        return max(answer.duration for answer in self.answers if since <= answer.start < until)

    def longest_after(self, times: Sequence[float]) -> list[float]:
        """The longest of the requests that began between each of these times and the next; the last has no end.

        Counted as `seconds` does.
        """
        return [
            self._longest_wait(since, until) for since, until in zip(times, [*times[1:], float("inf")], strict=False)
        ]

    def _longest_wait(self, since: float, until: float = float("inf")) -> float:
        return max(self.seconds(answer.start, answer.end) for answer in self.answers if since <= answer.start < until)

    def longest_gap(self, since: float) -> float:
        """The longest time in which nobody at all was answered; counted as `seconds` does."""
        ends = sorted(answer.end for answer in self.answers if answer.end >= since)
        return max(self.seconds(before, after) for before, after in zip([since, *ends], ends, strict=False))

    def seconds(self, since: float, until: float) -> float:
        """From one time to another, but for those in which the machine stood still: the clients did not run either."""
        return until - since - sum(max(0.0, min(until, end) - max(since, start)) for start, end in self._standstills)

    def first(self, version: str) -> float:
        """When a client held the first answer of that version."""
        return min(answer.end for answer in self.answers if answer.version == version)

    def last(self, version: str) -> float:
        """When a client held the last answer of that version."""
        return max(answer.end for answer in self.answers if answer.version == version)

    def versions(self, since: float) -> set[str]:
        """What requests that began after that time were answered with; waits for the first of them."""

        def found() -> set[str]:
            return {answer.version for answer in self.answers if answer.start >= since and not answer.error}

        return wait_until(found, "an answer to who asked after that")

    def run(self, count: int) -> None:
        """Go on until so many more requests are over."""
        goal = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= goal, f"{count} more answers")

    def measure(self, seconds: float) -> float:
        """The longest request while nothing else happens for so long; counted as `seconds` does."""
        began = time.monotonic()
        wait_until(lambda: self.answers[-1].start > began + seconds, "answers go on", seconds + LIMIT)
        return self._longest_wait(began)

    def wait_for(self, version: str, limit: float = LIMIT) -> float:
        """When the first answer of that version came."""
        seen = 0

        def found() -> float | None:
            nonlocal seen
            answers = self.answers
            news, seen = answers[seen:], len(answers)
            return next((answer.end for answer in news if answer.version == version), None)

        return wait_until(found, f"a client sees {version}", limit)

    def wait_for_only(self, version: str, limit: float = LIMIT) -> None:
        """Go on until 100 answers in a row were of that version."""

        def only() -> bool:
            recent = self.answers[-100:]
            return len(recent) == 100 and all(answer.version == version for answer in recent)

        wait_until(only, f"all clients see {version}", limit)

    def summary(self) -> str:
        answers = self.answers
        if not answers:
            return "load: no answer at all"
        text = f"load: {len(answers)} requests, {len(self.failed)} failed, longest {self.longest():.3f} s"
        if self._standstills:
            text += f"; the machine stood still for {[round(end - start, 3) for start, end in self._standstills]} s"
        first = answers[0].start
        for answer in self.failed[:10]:
            text += f"\n  at {answer.start - first:.3f} s after {answer.duration:.3f} s: {answer.error}"
        return text
