"""Real servers, real edits, real visitors."""

from . import patterns, processes
from .base import ABSENT, PACKAGE, Server
from .classes import UVICORN, each, is_asgi, one_at_a_time, project_for
from .durations import assert_mostly
from .hup import Hup, LittleServer
from .load import Answer, Load
from .project import Project
from .script import Script, Session
from .serve import Serve
from .server import CONFIGURATION, GUNICORN, MODULE, Gunicorn
from .uwsgi import HAVE_UWSGI, IS_PYUWSGI, UWSGI, Uwsgi
from .waiting import holds, wait_until

__all__ = [
    "ABSENT",
    "CONFIGURATION",
    "GUNICORN",
    "HAVE_UWSGI",
    "IS_PYUWSGI",
    "MODULE",
    "PACKAGE",
    "UVICORN",
    "UWSGI",
    "Answer",
    "Gunicorn",
    "Hup",
    "LittleServer",
    "Load",
    "Project",
    "Script",
    "Serve",
    "Server",
    "Session",
    "Uwsgi",
    "assert_mostly",
    "each",
    "holds",
    "is_asgi",
    "one_at_a_time",
    "patterns",
    "processes",
    "project_for",
    "wait_until",
]
