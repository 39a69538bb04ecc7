"""``python -m wsgi_reload_hooks`` is ``wsgi-reload``."""

from __future__ import annotations

import signal
import sys

# Until there is something to clean up, Ctrl-C ends it without a word; from then on the supervisor takes care of it.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Otherwise SIGINT is ignored: a shell sets that for background jobs.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
