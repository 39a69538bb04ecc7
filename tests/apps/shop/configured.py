"""A configuration that takes a value from the application's package."""

from shop.tools import WORKERS

import wsgi_reload_hooks.gunicorn_conf

workers = WORKERS
