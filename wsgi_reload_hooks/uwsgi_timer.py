"""For uWSGI: ``--import wsgi_reload_hooks.uwsgi_timer``, or ``import = wsgi_reload_hooks.uwsgi_timer``.

uWSGI imports it before the application: with lazy-apps in each worker, else in the master, whose workers inherit it.
A save becomes a reload like this: the timer below keeps the reload loop going -> the loop notices the save and tries it
-> worker after worker is replaced, or ``uwsgi.reload()`` is called if that is not enough.
"""

import importlib

try:
    import uwsgi
except ImportError:
    raise ImportError("this is for uWSGI only: uwsgi --master --import wsgi_reload_hooks.uwsgi_timer ...") from None

_NAME = "wsgi_reload_hooks.uwsgi_timer"

if uwsgi.worker_id() and uwsgi.masterpid():
    # uWSGI forks a worker with the master's handlers, and has it ignore HUP after a reload of its own. Until it sets its
    # own ones, when the application is loaded, a signal is to end this process and nothing else. Before all imports: an
    # INT that comes earlier is lost. (The module in C: `signal` itself is one of those imports.)
    _signal = importlib.import_module("_signal")
    for _each in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM):
        _signal.signal(_each, _signal.SIG_DFL)

_attach = importlib.import_module("wsgi_reload_hooks.uwsgi.attach")
_Progress = importlib.import_module("wsgi_reload_hooks.uwsgi.rolling").Progress


def on_timer(signal_number: int) -> None:
    """Keep the reload loop going: in a thread, or by this call where uWSGI runs no Python threads.

    Under a `uwsgidecorators` timer: uWSGI calls this once a second, in any worker that is idle.
    """
    if _hooks is not None:
        _hooks.keep_going()


def on_progress(progress: object) -> bool:
    """Return whether new code is in service everywhere; the loop calls this after each step of bringing it there.

    With lazy-apps a step replaces a worker. Where a new worker would have old code, or where there are mules and
    spoolers, no worker is replaced, and uWSGI executes itself anew as soon as no long request is in the way.
    """
    if progress is _Progress.RELOAD_ALL:
        uwsgi.reload()
    return progress is _Progress.DONE


if __name__ == _NAME:
    _hooks = _attach.start(on_timer, on_progress)
else:
    # Imported by its path: a module that has a name of uWSGI's.
    importlib.import_module(_NAME)
