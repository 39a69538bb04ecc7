"""A logger class of the application's own."""

from gunicorn.glogging import Logger as Base

from shop import tools


class Logger(Base):
    tools = tools
