"""Answers its version."""

import os
import time

VERSION = "v1"


def app(environ, start_response):
    # So visitors who come together meet every worker.
    time.sleep(0.02)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{VERSION} {os.getpid()}".encode()]
