"""The same, with an application that is loaded once for all workers."""

from shop.tools import WORKERS

import wsgi_reload_hooks.gunicorn_conf

workers = WORKERS
preload_app = True
