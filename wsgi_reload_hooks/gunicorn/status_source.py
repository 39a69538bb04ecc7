"""What a gunicorn arbiter answers at its desk: how its workers are, and whether a save is in service in all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..control.channel import Message
from ..process.sockets import somaxconn
from ..report.history import History
from ..watching.scanner import Scanner
from .pool import Role, WorkerPool
from .setting_checks import check_settings

# Old workers that have been told to leave look at that once a second.
_STILL_TAKING = 2.0


class ArbiterStatus:
    """A `control.service.StatusSource`. *under_way*: whether the arbiter has begun something that is not over, besides its workers. *share*:
    the setting of that name."""

    def __init__(
        self,
        server: Any,
        crew: WorkerPool,
        scanner: Scanner,
        record: History,
        under_way: Callable[[], bool],
        share: str,
    ) -> None:
        self._server = server
        self._share = share
        self._crew = crew
        self._scanner = scanner
        self._record = record
        self._under_way = under_way

    def status(self) -> Message:
        """See `control.service.StatusSource`."""
        workers = [member.pid for member in self._crew.all(Role.SERVING)]
        return {**self._record.as_note(), "pids": workers, "workers": len(workers), "watched": len(self._scanner)}

    def busy(self) -> bool:
        """See `control.service.StatusSource`."""
        now = time.monotonic()
        leaving = [
            member
            for member in self._crew.all(Role.RETIRING)
            if not member.terminated or now - member.terminated < _STILL_TAKING
        ]
        booting = [member for member in self._crew.all(Role.BOOTING) if member.batch is not None]
        return bool(leaving or booting or self._under_way())

    def loaded_by(self, path: str) -> list[int]:
        """See `control.service.StatusSource`."""
        workers = self._crew.all(Role.SERVING, Role.BOOTING, Role.RETIRING)
        return [member.pid for member in workers if path in member.files or path in member.inherited]

    def examine(self) -> Message:
        """See `control.service.StatusSource`."""
        cfg, place = self._server.cfg, f"process {self._server.pid}"
        given = {"raw_env": cfg.raw_env, "backlog": cfg.backlog, **cfg.post_fork.switched_off}
        found = check_settings(given, lambda name: place, hooks=True, share=self._share, somaxconn=somaxconn())
        name = "" if cfg.paste is not None else getattr(self._server.app, "app_uri", None) or cfg.wsgi_app
        return {"findings": [each._asdict() for each in found], "application": name or ""}
