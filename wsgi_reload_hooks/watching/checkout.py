"""Is git or Mercurial in the middle of something? Then what lies on disk is half of one state and half of another."""

from __future__ import annotations

import os

# Held while files are being written.
_LOCKS = ("index.lock",)
# There from the first step to the last, also while the user is asked.
_STEPS = ("rebase-merge", "rebase-apply", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")
_BETWEEN_STEPS = 1.0


class Checkout:
    """The working copy that *root* lies in, if it does. Asks the file system only."""

    def __init__(self, root: str) -> None:
        self._root = root

    def unfinished(self, quiet: float) -> bool:
        """Whether more is to come, when nothing has changed for *quiet* seconds.

        A lock says so. A rebase or a merge does for a second after each of its steps: later it is the user who is
        asked for something, and wants to see what he does.
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
    """`.git` or `.hg` at or above *root*; of a git worktree or submodule, where its index is."""
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
        with open(file, "rb") as stream:
            text = os.fsdecode(stream.read(4096))
    except OSError:
        return None
    kind, _, place = text.partition(":")
    return os.path.join(os.path.dirname(file), place.strip()) if kind == "gitdir" else None
