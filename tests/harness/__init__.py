"""Real servers, real edits, real visitors."""

from . import patterns, processes
from .classes import UVICORN, each, is_asgi, one_at_a_time, project_for
from .load import Answer, Load
from .project import Project
from .server import ABSENT, CONFIGURATION, GUNICORN, MODULE, PACKAGE, Gunicorn
from .waiting import holds, wait_until

__all__ = [
    "ABSENT",
    "CONFIGURATION",
    "GUNICORN",
    "MODULE",
    "PACKAGE",
    "UVICORN",
    "Answer",
    "Gunicorn",
    "Load",
    "Project",
    "each",
    "holds",
    "is_asgi",
    "one_at_a_time",
    "patterns",
    "processes",
    "project_for",
    "wait_until",
]
