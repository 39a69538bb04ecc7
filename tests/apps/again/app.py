"""Asks to be started again, by its exit code, as soon as there is a file `again`."""

import sys
import time
from pathlib import Path

from part import VERSION  # type: ignore[import-not-found]

if __name__ == "__main__":
    print("serving", VERSION, flush=True)
    while not Path("again").exists():
        time.sleep(0.05)
    Path("again").unlink()
    sys.exit(3)
