"""A worker class of the application's own."""

from gunicorn.workers.sync import SyncWorker

from shop import tools


class Worker(SyncWorker):
    tools = tools
