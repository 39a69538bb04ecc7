"""Returns the workers' user and groups if the arbiter has more rights than they."""

from __future__ import annotations

import os
import pwd
from typing import Any

from ..report.callbacks import Rights


def rights_of_workers(cfg: Any) -> Rights | None:
    """What a process of the arbiter takes on to have the rights that gunicorn's *cfg* gives workers; None: they are its own."""
    if os.geteuid() != 0 or cfg.uid == 0:
        return None
    groups = os.getgrouplist(pwd.getpwuid(cfg.uid).pw_name, cfg.gid) if cfg.initgroups else [cfg.gid]
    return Rights(cfg.uid, cfg.gid, tuple(groups))
