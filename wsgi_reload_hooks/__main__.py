"""``python -m wsgi_reload_hooks`` is ``wsgi-reload``."""

from __future__ import annotations

import signal
import sys

# Until there is something to clean up, Ctrl-C ends it without a word; from then on `cli` takes care of it.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from .cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
