"""Answers its version and the number that its worker was lent."""

import os
import time

VERSION = "v1"


def app(environ, start_response):
    time.sleep(0.02)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{VERSION} {os.environ.get('WORKER_NUMBER', '0')}".encode()]
