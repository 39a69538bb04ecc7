"""Answers its version; at /task what a dirty worker answers."""

import os

from gunicorn.dirty import get_dirty_client

VERSION = "v1"


def app(environ, start_response):
    text = f"{VERSION} {os.getpid()}"
    if environ["PATH_INFO"] == "/task":
        text = get_dirty_client().execute("task:Task", "answer")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
