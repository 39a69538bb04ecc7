"""Defines what the arbiter knows of one worker or zygote, and of the workers that boot together."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Collection

from ..core.refusal import Refusal
from ..reload.commands import Attempt
from ..watching.signature import Digest
from .channels import Channel
from .gate import Gate
from .zygote import Zygote


class WorkerState(enum.Enum):
    """What a worker does. WITHDRAWN: it has not served a request and is to end. ZYGOTE: it forks workers."""

    BOOTING = "booting"
    SERVING = "serving"
    RETIRING = "retiring"
    WITHDRAWN = "withdrawn"
    ZYGOTE = "zygote"


@dataclasses.dataclass(eq=False)
class Batch:
    """Workers that boot together and wait at one gate.

    *deadline* (monotonic seconds) is when they must be ready. *attempt* is what they bring into service; None where
    they only replace the workers with the pids *replaces*. *changed*: files whose byte code is not used. *size* is the
    number of workers.
    """

    gate: Gate
    deadline: float
    size: int
    attempt: Attempt | None = None
    replaces: frozenset[int] = frozenset()
    changed: Collection[str] = ()
    ordered: bool = False
    """Whether its zygote has been told to fork the workers."""
    overdue: bool = False
    closed: bool = False
    """Whether it is over: its workers were withdrawn."""
    unavailable: str = ""
    """Why the system has no room for its workers."""
    failure: Refusal | None = None
    """Why its first worker failed."""
    loaded: dict[str, Digest] = dataclasses.field(default_factory=dict)
    """What its failed workers had loaded."""

    def fail(self, why: Refusal, loaded: dict[str, Digest] | None = None) -> None:
        """One of its workers did not become ready."""
        self.failure = self.failure or why
        self.loaded.update(loaded or {})


@dataclasses.dataclass(eq=False)
class WorkerHandle:
    """One worker. *channel*: on what it reports. *since* and *terminated* are monotonic seconds; *age* is gunicorn's
    running number.

    *duck*: it can close its kept-alive connections before it ends (see `close_connections`).
    """

    pid: int
    age: int
    channel: Channel
    since: float
    state: WorkerState = WorkerState.BOOTING
    batch: Batch | None = None
    ready: bool = False
    duck: bool = False
    error_page: bool = False
    zygote: Zygote | None = None
    wants_replacement: bool = False
    interrupted: int = 0
    terminated: float = 0.0
    why: Refusal | None = None
    unavailable: str = ""
    ended: str = ""
    loaded_all: bool = False
    """Of a zygote: it has loaded everything, and forks the workers that are ordered."""
    kept: bool = False
    """Of a zygote: what it has loaded is in service."""
    last_loaded: str | None = None
    loaded: dict[str, Digest] = dataclasses.field(default_factory=dict)
    """What it has loaded while it was not in service and no part of an attempt."""
    files: set[str] = dataclasses.field(default_factory=set)
    """All that it has loaded by itself, for `wsgi-reload explain`."""
    inherited: Collection[str] = ()
    """What the zygote that forked it had loaded."""


def exists(pid: int) -> bool:
    """Whether there is a process with this *pid*, a zombie included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def is_child(pid: int) -> bool:
    """Whether *pid* is a child of this process, one that has ended and was not reaped included."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
