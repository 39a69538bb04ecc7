"""A Django site. `/state` is answered without Django: whether this worker has imported the URLs and their views."""

import os
import sys
import time

from django.conf import settings
from django.core.wsgi import get_wsgi_application

VERSION = "v1"
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="urls", SECRET_KEY="x")

site = get_wsgi_application()


def app(environ, start_response):
    if environ["PATH_INFO"] == "/state":
        # Long enough for visitors who come together to meet all workers.
        time.sleep(0.02)
        state = "imported" if "urls" in sys.modules else "missing"
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{state} {os.getpid()}".encode()]
    return site(environ, start_response)
