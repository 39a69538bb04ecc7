"""Every hook of a reload: it notes that it was called, and raises while there is a file `raise-HOOK`."""

import os

import wsgi_reload_hooks.gunicorn_conf

workers = 2


def _called(hook):
    with open("called", "a") as file:
        file.write(hook + "\n")
    if os.path.exists(f"raise-{hook}"):
        raise RuntimeError("no room")


def on_reload(server):
    _called("on_reload")


def pre_fork(server, worker):
    _called("pre_fork")


def post_fork(server, worker):
    _called("post_fork")


def post_worker_init(worker):
    _called("post_worker_init")


def worker_int(worker):
    _called("worker_int")


def worker_exit(server, worker):
    _called("worker_exit")


def child_exit(server, worker):
    _called("child_exit")
