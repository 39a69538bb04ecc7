"""An application that its worker class starts."""

import os

VERSION = "v1"
FAILURE = ""


def start_up():
    if FAILURE:
        raise RuntimeError(FAILURE)


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{VERSION} {os.getpid()}".encode()]
