"""Notes that it was executed."""

from pathlib import Path

Path(__file__).with_name("executed.log").touch()
