"""Worker classes as sites have them: uvicorn's, with keywords of their own."""

from uvicorn_worker import UvicornH11Worker, UvicornWorker


class LifespanOff(UvicornWorker):
    CONFIG_KWARGS = {"lifespan": "off"}


class LifespanOffH11(UvicornH11Worker):
    CONFIG_KWARGS = {**UvicornH11Worker.CONFIG_KWARGS, "lifespan": "off"}


class LifespanOffInherited(LifespanOff):
    pass


class LifespanOn(UvicornWorker):
    CONFIG_KWARGS = {"lifespan": "on"}


class RootPath(UvicornWorker):
    CONFIG_KWARGS = {"root_path": "/here"}


class Factory(UvicornWorker):
    CONFIG_KWARGS = {"factory": True}


class FactoryLifespanOff(UvicornWorker):
    CONFIG_KWARGS = {"factory": True, "lifespan": "off"}


class Asgi2(UvicornWorker):
    CONFIG_KWARGS = {"interface": "asgi2"}


class Asgi2LifespanOff(UvicornWorker):
    CONFIG_KWARGS = {"interface": "asgi2", "lifespan": "off"}


class Wsgi(UvicornWorker):
    CONFIG_KWARGS = {"interface": "wsgi"}
