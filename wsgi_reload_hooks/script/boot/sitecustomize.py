"""Runs in each Python that a supervised program starts: reports what it loads, then runs the real `sitecustomize`.

Any version of Python 3 may run this: it uses nothing newer than Python 3.0, and raises nothing.
"""

import os
import sys
from importlib import util


def _tell() -> None:
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    name = "wsgi_reload_hooks"
    # By its place: the search path of the program stays as it is.
    if name not in sys.modules:
        spec = util.spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
    from wsgi_reload_hooks.script import reporter

    reporter.tell()


def _tell_in_peace() -> None:
    import _signal  # type: ignore[import-not-found]

    # Python makes a fatal error of a Ctrl-C at this early hour: it had better end it without a word.
    ours = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    if ours:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    try:
        _tell()
    except Exception:
        # The program runs all the same, and tells nothing.
        pass
    finally:
        if ours:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _give_way() -> None:
    del sys.modules["sitecustomize"]
    # Where there is no other one, the error is the same that Python meets without us, and expects.
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401


# Of the working directory nothing is asked: it may be gone.
sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(__file__)]
if sys.version_info >= (3, 10):  # noqa: UP036
    _tell_in_peace()
_give_way()
