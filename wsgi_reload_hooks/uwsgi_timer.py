"""The face for uWSGI: ``--import wsgi_reload_hooks.uwsgi_timer``, or ``import = wsgi_reload_hooks.uwsgi_timer``.

Nothing but that: uWSGI imports it in its master or in each of its workers, and knows nothing more of it.
"""

import importlib

try:
    import uwsgi
except ImportError:
    raise ImportError("this is for uWSGI only: uwsgi --master --import wsgi_reload_hooks.uwsgi_timer ...") from None

if uwsgi.worker_id() and uwsgi.masterpid():
    # uWSGI forks a worker with the master's handlers, and has it ignore HUP after a reload of its own. Until it sets its
    # own ones, when the application is loaded, a signal is to end this process and nothing else. Before all imports: an
    # INT that comes earlier is lost. (The module in C: `signal` itself is one of those imports.)
    _signal = importlib.import_module("_signal")
    for _each in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM):
        _signal.signal(_each, _signal.SIG_DFL)

importlib.import_module("wsgi_reload_hooks.uwsgi.attach").start()
