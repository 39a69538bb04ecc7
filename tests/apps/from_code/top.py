"""gunicorn run from code, with the hooks imported at the top of the script."""

from gunicorn.app.base import BaseApplication

import wsgi_reload_hooks.gunicorn_conf


class Server(BaseApplication):
    def load_config(self):
        self.cfg.set("bind", "127.0.0.1:0")
        self.cfg.set("workers", 2)

    def load(self):
        from app import app

        return app


if __name__ == "__main__":
    Server().run()
