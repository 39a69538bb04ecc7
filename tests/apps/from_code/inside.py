"""gunicorn run from code, with the hooks imported while it is configured."""

from gunicorn.app.base import BaseApplication


class Server(BaseApplication):
    def load_config(self):
        import wsgi_reload_hooks.gunicorn_conf

        self.cfg.set("bind", "127.0.0.1:0")
        self.cfg.set("workers", 2)

    def load(self):
        from app import app

        return app


if __name__ == "__main__":
    Server().run()
