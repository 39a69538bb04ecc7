"""As Django's `asgi.py`: HTTP only, any other scope is an error."""

from answers import text

VERSION = "v1"


async def app(scope, receive, send):
    assert scope["type"] == "http", scope["type"]
    root = scope.get("root_path")
    await text(send, f"{root}-{VERSION}" if root else VERSION)


def build():
    """The application, for a worker class that calls a factory."""
    return app


def app2(scope):
    """The application as ASGI 2 has it."""
    assert scope["type"] == "http", scope["type"]

    async def instance(receive, send):
        await text(send, VERSION)

    return instance


def wsgi(environ, start_response):
    """The application as WSGI has it."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{VERSION} wsgi".encode()]
