# gunicorn while you write code, in the project's folder: gunicorn -c configs/gunicorn/development.conf.py

import os

# The one line that brings the hooks. All that follows is gunicorn's own.
import wsgi_reload_hooks.gunicorn_conf

wsgi_app = "shop.wsgi:application"
# In a container HOST is 0.0.0.0: what listens on 127.0.0.1 there, nobody outside can reach.
bind = os.environ.get("HOST", "127.0.0.1") + ":" + os.environ.get("PORT", "8000")

# Two: who keeps state in a module's variable finds out here, not in production.
workers = 2
worker_class = "gthread"
threads = 4

# A worker that stands at a breakpoint is not to be killed for it.
timeout = 0
# Nor is it to be waited for when the next save is there.
graceful_timeout = 3

# Reloading is the hooks' job. Both at once would reload twice.
reload = False

accesslog = "-"
