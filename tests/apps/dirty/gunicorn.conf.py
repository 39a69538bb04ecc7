"""One dirty worker beside two workers."""

import wsgi_reload_hooks.gunicorn_conf

workers = 2
dirty_apps = ["task:Task"]
dirty_workers = 1
