"""Finds folders on file systems that other machines or programs write to: the kernel reports no event for that."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

_TABLE = "/proc/self/mountinfo"
# Another machine, the host of a virtual machine, or a user-space program writes to these without a kernel event.
_REMOTE = re.compile(
    r"""(nfs.* | cifs | smb.* | 9p | virtiofs | vboxsf | vmhgfs | prl_fs | fuse.* | drvfs | afs | ceph | gfs2? | ocfs2
      | lustre | glusterfs | coda | ncpfs | osxfs | fakeowner | grpcfuse | acfs | beegfs | orangefs | gpfs)\Z""",
    re.VERBOSE,
)
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """Holds one line of the mount table: the folder, and the kind of file system."""

    place: str
    kind: str


def mounts(text: str | None = None) -> list[Mount]:
    """Return the mounts of this process, those that hide others last; empty if the system has no mount table.

    *text*: the table itself (default: the kernel's).
    """
    if text is None:
        try:
            with open(_TABLE, "rb") as file:
                text = os.fsdecode(file.read())
        except OSError:
            return []
    found = []
    for line in text.split("\n"):
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > 4 and after:
            found.append(Mount(_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]), after.split(" ")[0]))
    return found


def deaf(
    folders: Iterable[str], table: Iterable[Mount], real: Callable[[str], str] = os.path.realpath
) -> dict[str, str]:
    """Return those of *folders* whose file system does not report every change, with the kind of file system."""
    known = list(table)
    found = {}
    for folder in folders:
        kind = _kind(real(folder), known)
        if kind is not None and _REMOTE.match(kind):
            found[folder] = kind
    return found


def _kind(path: str, table: list[Mount]) -> str | None:
    best: Mount | None = None
    for mount in table:
        inside = mount.place in ("/", path) or path.startswith(mount.place + "/")
        if inside and (best is None or len(mount.place) >= len(best.place)):
            best = mount
    return None if best is None else best.kind
