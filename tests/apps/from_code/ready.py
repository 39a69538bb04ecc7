"""gunicorn run from code, with the hook given as a setting."""

from gunicorn.app.base import BaseApplication

from wsgi_reload_hooks import gunicorn_conf


class Server(BaseApplication):
    def load_config(self):
        self.cfg.set("bind", "127.0.0.1:0")
        self.cfg.set("workers", 2)
        self.cfg.set("when_ready", gunicorn_conf.when_ready)

    def load(self):
        from app import app

        return app


if __name__ == "__main__":
    Server().run()
