"""As prometheus' documents want it."""

from prometheus_client import multiprocess

import wsgi_reload_hooks.gunicorn_conf

workers = 2


def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
