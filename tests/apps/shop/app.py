"""Answers the text that its own package has."""

import os

from shop.tools import TEXT


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{TEXT} {os.getpid()}".encode()]
