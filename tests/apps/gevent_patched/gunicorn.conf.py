"""gevent patches everything before gunicorn forks anything, and the application is loaded once."""

from gevent import monkey

monkey.patch_all()

import wsgi_reload_hooks.gunicorn_conf

workers = 2
worker_class = "gevent"
preload_app = True
