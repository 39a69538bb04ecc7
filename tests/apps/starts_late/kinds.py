"""A worker class that starts the application where it begins to run."""

import sys

from gunicorn.workers.sync import SyncWorker


class Starting(SyncWorker):
    def run(self):
        sys.modules["plain"].start_up()
        super().run()
