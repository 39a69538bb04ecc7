"""The face for uWSGI: ``--import wsgi_reload_hooks.uwsgi_timer``, or ``import = wsgi_reload_hooks.uwsgi_timer``.

Nothing but that: uWSGI imports it in its master or in each of its workers, and knows nothing more of it.
"""

from wsgi_reload_hooks import uwsgi_attach

uwsgi_attach.start()
