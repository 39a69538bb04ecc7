"""Keeps the contents of files that the reload machine compares: on disk, in service, and in the current attempt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..watching.signature import UNKNOWN, Digest


class Contents:
    """Keeps contents by path as its callers report them. The machine extends it; no method reads a file."""

    def __init__(self) -> None:
        self._pending: set[str] = set()
        self._service: dict[str, Digest] = {}
        self._listed: set[str] = set()
        self._disk: dict[str, Digest] = {}
        self._tried: dict[str, Digest] = {}
        self._loaded: set[str] = set()

    @property
    def pending(self) -> set[str]:
        """Return the paths whose content on disk is not in service."""
        return set(self._pending)

    @property
    def service(self) -> dict[str, Digest]:
        """What is in service: path to content."""
        return dict(self._service)

    def in_service(self, path: str) -> Digest | None:
        """The content of *path* that is in service; None where nothing that serves has loaded it."""
        return self._service.get(path)

    @property
    def tried(self) -> dict[str, Digest]:
        """The files of the current attempt: path to the content that it stands for."""
        return dict(self._tried)

    def listed(self, found: Mapping[str, Digest]) -> None:
        """Files that count without being loaded; the content that they have now is in service."""
        for path, content in found.items():
            self._listed.add(path)
            self._disk.setdefault(path, content)
            self._service.setdefault(path, content)

    def forget(self, paths: Iterable[str]) -> None:
        """Forget *paths*, which were loaded and then removed for good: no later change of them counts."""
        for path in paths:
            for known in (self._service, self._disk, self._tried):
                known.pop(path, None)
            self._pending.discard(path)
            self._loaded.discard(path)

    def _nothing_serves(self, loaded: Iterable[str] = ()) -> None:
        """No content of a file is in service: none that it may have later is a revert."""
        self._service = dict.fromkeys([*self._listed, *loaded], UNKNOWN)

    def _outdated(self, disk: Mapping[str, Digest]) -> set[str]:
        """Return the files of the attempt whose content on disk has changed since."""
        self._disk.update(disk)
        return {path for path, content in self._tried.items() if disk.get(path, content) != content}
