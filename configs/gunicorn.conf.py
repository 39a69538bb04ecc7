"""gunicorn on a staging box, with the reload hooks: gunicorn -c configs/gunicorn.conf.py app:app

One line brings the hooks; all that follows is gunicorn's own, hooks of one's own included.
"""

import os

import wsgi_reload_hooks.gunicorn_conf

bind = "127.0.0.1:" + os.environ.get("PORT", "8000")
proc_name = "staging"

workers = int(os.environ.get("WEB_CONCURRENCY", "4"))
worker_class = "gthread"
threads = 4
keepalive = 5

# The arbiter's heartbeat files: a disk that is slow for a moment must not cost a worker.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
timeout = 30
# How long a request may still take when its worker is to leave, at a reload too.
graceful_timeout = 30

# Workers are renewed against slow leaks. While what is on the disk is broken, the hooks hold this back.
max_requests = 1000
max_requests_jitter = 100

# Reloading is the hooks' job; gunicorn's own would make visitors wait. With preload_app = True the workers
# share one import, and saves are served all the same.
reload = False
preload_app = False

accesslog = os.environ.get("ACCESS_LOG", "-")
errorlog = "-"
loglevel = "info"
access_log_format = '%({x-forwarded-for}i)s %(h)s "%(r)s" %(s)s %(b)s %(L)s s'
forwarded_allow_ips = "127.0.0.1"


# Hooks of one's own are called as ever, before and after a reload.
def when_ready(server):
    server.log.info("staging: open for visitors")


def post_fork(server, worker):
    # Each worker its own: connections to a database, seeds, clients of a queue.
    server.log.debug("staging: worker %s starts", worker.pid)


def on_reload(server):
    # Once per reload, good saves and HUP alike: tell a chat, clear a cache.
    server.log.info("staging: new code or configuration")


def worker_abort(worker):
    worker.log.error("staging: worker %s did not answer for %s s", worker.pid, timeout)
