"""Tells whether git or Mercurial is in the middle of an operation: the files on disk are then a mix of two states."""

from __future__ import annotations

import os

from ..process.safe_read import safe_read

# Held while files are being written.
_LOCKS = ("index.lock",)
# There from the first step to the last, also while the user is asked.
_STEPS = ("rebase-merge", "rebase-apply", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")
_BETWEEN_STEPS = 1.0


class Checkout:
    """Examines the working copy that *root* lies in, if any. Asks the file system only."""

    def __init__(self, root: str) -> None:
        self._root = root

    def unfinished(self, quiet: float) -> bool:
        """Tell whether more changes will follow, when nothing has changed for *quiet* seconds.

        They will while a lock exists, and for a second after each step of a rebase or a merge: after that second the
        tool waits for the user, who wants to see his changes.
        """
        folder = _control_folder(self._root)
        if folder is None:
            return False
        if os.path.basename(folder) == ".hg":
            return os.path.lexists(os.path.join(folder, "wlock"))
        if any(os.path.exists(os.path.join(folder, name)) for name in _LOCKS):
            return True
        return quiet < _BETWEEN_STEPS and any(os.path.exists(os.path.join(folder, name)) for name in _STEPS)


def _control_folder(root: str) -> str | None:
    """Find `.git` or `.hg` at or above *root*; for a git worktree or submodule, the folder of its index."""
    folder = root
    while True:
        git, hg = os.path.join(folder, ".git"), os.path.join(folder, ".hg")
        if os.path.isdir(git):
            return git
        if os.path.isfile(git):
            return _pointed_at(git)
        if os.path.isdir(hg):
            return hg
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def _pointed_at(file: str) -> str | None:
    try:
        text = os.fsdecode(safe_read(file, 4096, whole=False))
    except OSError:
        return None
    kind, _, place = text.partition(":")
    return os.path.join(os.path.dirname(file), place.strip()) if kind == "gitdir" else None
