# gunicorn in production, in the project's folder: gunicorn -c configs/gunicorn/production.conf.py

import os

# The one line that brings the hooks. All that follows is gunicorn's own.
import wsgi_reload_hooks.gunicorn_conf

# What the hooks are to do differently here; what the environment says wins.
# Code that does not load at the start ends the server: systemd, supervisord or a platform sees that it failed.
os.environ.setdefault("WSGI_RELOAD_BROKEN_START", "exit")
# New code serves when it has answered this, not when it has been imported.
os.environ.setdefault("WSGI_RELOAD_WARMUP", "/healthz")

wsgi_app = "shop.wsgi:application"
# Behind a proxy on the same machine. A socket that systemd hands over wins.
bind = os.environ.get("HOST", "127.0.0.1") + ":" + os.environ.get("PORT", "8000")
# Whose X-Forwarded-For and X-Forwarded-Proto are believed: the proxy's.
forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")

workers = int(os.environ.get("WEB_CONCURRENCY", "4"))
worker_class = "gthread"
threads = 4
# Longer than the proxy keeps a connection, so that it is never the server that closes first.
keepalive = 75
# One import for all workers, and one copy of what it leaves in memory. Saves are served all the same.
preload_app = True

# The arbiter's heartbeat files: a disk that is slow for a moment must not cost a worker.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
timeout = 30
# How long a request may still take when its worker is to leave, at a reload too.
graceful_timeout = 30

# Workers are renewed against slow leaks. While what is on the disk is broken, the hooks hold this back.
max_requests = 1000
max_requests_jitter = 100

# Reloading is the hooks' job; gunicorn's own would make visitors wait.
reload = False

# To whoever started it: journald, supervisord, a platform. Set ACCESS_LOG to - for a line per request.
accesslog = os.environ.get("ACCESS_LOG")
errorlog = "-"
access_log_format = '%({x-forwarded-for}i)s %(h)s "%(r)s" %(s)s %(b)s %(L)s s'


# Hooks of one's own are called as ever, before and after a reload.
def when_ready(server):
    server.log.info("shop: open for visitors")


def post_fork(server, worker):
    # Each worker its own: connections to a database, seeds, clients of a queue.
    server.log.debug("shop: worker %s starts", worker.pid)


def on_reload(server):
    # Once per reload, good saves and HUP alike: tell a chat, clear a cache.
    server.log.info("shop: new code or configuration")


def worker_abort(worker):
    worker.log.error("shop: worker %s did not answer for %s s", worker.pid, timeout)
