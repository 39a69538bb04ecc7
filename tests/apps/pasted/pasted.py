"""Answers the text that it is configured with."""

import os
import time


def make(global_conf, text):
    """The application, as PasteDeploy asks for it."""

    def app(environ, start_response):
        # So visitors who come together meet every worker.
        time.sleep(0.02)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{text} {os.getpid()}".encode()]

    return app
