"""The recipe for numbers of workers: each worker has one of 1 to N, which the next worker takes over."""

import os

import wsgi_reload_hooks.gunicorn_conf

workers = 2


def on_starting(server):
    server.lent = set()


def on_reload(server):
    # New and old workers overlap: the new ones take the same numbers.
    server.lent = set(range(1, server.cfg.workers + 1))


def pre_fork(server, worker):
    if server.lent:
        worker.number = server.lent.pop()
    else:
        taken = {each.number for each in server.WORKERS.values()}
        # Raises ValueError where none is free.
        worker.number = min(set(range(1, server.cfg.workers + 1)) - taken)


def post_fork(server, worker):
    os.environ["WORKER_NUMBER"] = str(worker.number)
