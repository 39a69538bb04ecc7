"""For gunicorn: ``-c wsgi_reload_hooks/gunicorn_conf.py``, or ``-c python:wsgi_reload_hooks.gunicorn_conf``.

In your own configuration, one line does the same: ``import wsgi_reload_hooks.gunicorn_conf``. This module keeps
no state, because gunicorn runs a configuration again at each HUP.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

try:
    from wsgi_reload_hooks.gunicorn import attach
except ImportError:
    # Run as a file of a checkout that is not installed.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from wsgi_reload_hooks.gunicorn import attach

# What a star import would put in the place of the user's own hooks: nothing, gunicorn's application is told instead.
__all__: list[str] = []
_MACHINERY = ("importlib", "_frozen_importlib", "_frozen_importlib_external")


def when_ready(server: Any) -> None:
    """Start watching (gunicorn's hook, before the first worker is forked).

    For an application of one's own whose configuration gunicorn does not load from a file; else it is not needed.
    """
    attach.start(server)


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """Who runs or imports this file, and who that, without the machinery of importing."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _MACHINERY:
            yield frame
        frame = frame.f_back


def _is_gunicorns(frame: FrameType) -> bool:
    return bool(frame.f_globals.get("__name__") == "gunicorn.app.base")


def _load_default() -> None:
    """The ``./gunicorn.conf.py`` that gunicorn would have loaded without our ``-c``."""
    path = os.path.join(os.getcwd(), "gunicorn.conf.py")
    if not os.path.exists(path):
        return
    spec = importlib.util.spec_from_file_location("__config__", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["__config__"] = module
    spec.loader.exec_module(module)
    globals().update({name: value for name, value in vars(module).items() if not name.startswith("_")})


def _take_part() -> None:
    callers = list(_callers(sys._getframe(1).f_back))
    app = next((frame.f_locals["self"] for frame in callers if _is_gunicorns(frame)), None)
    if app is not None:
        attach.enlist(app)
    # Run by gunicorn itself, not imported by a configuration: then we stand where the default one would.
    if callers and _is_gunicorns(callers[0]):
        _load_default()


_take_part()
