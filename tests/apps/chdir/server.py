"""The configuration of a server whose application is in another folder."""

import wsgi_reload_hooks.gunicorn_conf

workers = 1
