"""Binds an address while it is imported, in the processes that `binds` chooses."""

import os
import socket

import uwsgi

VERSION = "v1"


def binds(number):
    return True


if binds(uwsgi.worker_id()):
    # A name in the abstract namespace of Unix sockets: nobody else on this machine has it.
    backdoor = socket.socket(socket.AF_UNIX)
    backdoor.bind(f"\0{__file__} {uwsgi.worker_id()}")


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{VERSION} {os.getpid()}".encode()]
