"""A user's gunicorn configuration: each hook notes the thread that calls it; a thread of its own asks for a reload.

One line a call in the file `notes`: name, process, thread. The file `ask` is the signal for the thread.
"""

import os
import threading
import time
from typing import Any

# gunicorn >= 25.1 answers `gunicornc` in a thread of the arbiter.
control_socket_disable = True


def note(name: str) -> None:
    """Add a line; one write, so lines of several processes do not mix."""
    with open("notes", "a") as notes:
        notes.write(f"{name} {os.getpid()} {threading.get_native_id()}\n")


def when_ready(server: Any) -> None:
    """Start the thread."""
    note("when_ready")
    threading.Thread(target=ask, args=(server,), daemon=True).start()


def ask(server: Any) -> None:
    """Call `server.reload()` once, in this thread."""
    while not os.path.exists("ask"):
        time.sleep(0.02)
    note("asked")
    server.reload()


def pre_fork(server: Any, worker: Any) -> None:
    """Runs before each fork of a worker."""
    note("pre_fork")


def on_reload(server: Any) -> None:
    """Runs once for each reload."""
    note("on_reload")
