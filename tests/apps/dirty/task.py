"""What a dirty worker does."""

import os

from gunicorn.dirty import DirtyApp

VERSION = "v1"


class Task(DirtyApp):
    def answer(self):
        return f"{VERSION} {os.getpid()}"
