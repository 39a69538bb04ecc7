"""An error in the hooks themselves ends neither the program nor what watches it."""

from __future__ import annotations

import sys
from pathlib import Path

from harness import Project
from harness.project import APPS
from harness.script import RESTARTED, WATCHING, Script

RAISING = (sys.executable, str(APPS / "raising_step" / "raising.py"))
FAILED = r"reload: an error in the hooks themselves, the server goes on; please report it"
TEXT = "import time\nprint('serving {}', flush=True)\ntime.sleep(1000)\n"


def test_run_goes_on(tmp_path: Path) -> None:
    """Told once, with its traceback; the program is the same, and the next save is served."""
    project = Project(tmp_path / "project")
    project.save("program.py", TEXT.format("one"))
    command = [*RAISING, "run", "--", sys.executable, "program.py"]
    with Script(project.root, command=command) as script:
        script.said(WATCHING)
        (project.root / "raise").touch()
        script.said(FAILED)
        script.said("RuntimeError: odd")
        project.save("program.py", TEXT.format("two"))
        script.said(RESTARTED)
        script.said("serving two")
        assert script.count(FAILED) == 1
