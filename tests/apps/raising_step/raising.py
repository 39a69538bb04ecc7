"""`wsgi-reload` whose reload loop raises once, in the step after the file `raise` has appeared."""

import os
import sys

from wsgi_reload_hooks.cli.main import main
from wsgi_reload_hooks.reload.loop import ReloadLoop

step = ReloadLoop.step


def raising(self, now):
    if os.path.exists("raise"):
        os.unlink("raise")
        raise RuntimeError("odd")
    return step(self, now)


ReloadLoop.step = raising

if __name__ == "__main__":
    sys.exit(main())
