"""Loaded by each Python that a supervised program starts: has it tell what it loads, then gives way to the real one.

Any version of Python 3 may come by: nothing here is newer than its first, and nothing of ours fails.
"""

import os
import sys
from importlib import util


def _is_boot(entry: str) -> bool:
    return os.path.abspath(entry or os.curdir) == os.path.dirname(os.path.abspath(__file__))


def _tell() -> None:
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    name = "wsgi_reload_hooks"
    # By its place: the search path of the program stays as it is.
    if name not in sys.modules:
        spec = util.spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
    from wsgi_reload_hooks import supervised

    supervised.tell()


def _give_way() -> None:
    ours = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        sys.modules["sitecustomize"] = ours
        if error.name != "sitecustomize":
            raise


sys.path[:] = [entry for entry in sys.path if not _is_boot(entry)]
if sys.version_info >= (3, 9):  # noqa: UP036
    try:
        _tell()
    except Exception:
        # The program runs all the same, and tells nothing.
        pass
_give_way()
