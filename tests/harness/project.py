"""A project of a user: an application that answers its version, and edits as an editor makes them."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path

# The programs under test, a folder each.
APPS = Path(__file__).parent.parent / "apps"

WSGI = """\
import os
import time
{imports}
{top}
VERSION = {version!r}
time.sleep({import_seconds})


def app(environ, start_response):
    path = environ["PATH_INFO"]
    time.sleep({handler_seconds})
    text = VERSION
    if path == "/lazy":
        import lazy_part

        text = lazy_part.VERSION
    if path == "/helper":
        import helper

        text = helper.VERSION
    body = "{{}} {{}}".format(text, os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


{bottom}
"""

ASGI = """\
import asyncio
import os
import time
{imports}
{top}
VERSION = {version!r}
FAIL_AT_STARTUP = ""
time.sleep({import_seconds})


async def lifespan(receive, send):
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup" and FAIL_AT_STARTUP:
            await send({{"type": "lifespan.startup.failed", "message": FAIL_AT_STARTUP}})
            return
        await send({{"type": message["type"] + ".complete"}})
        if message["type"] == "lifespan.shutdown":
            return


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await asyncio.sleep({handler_seconds})
    text = VERSION
    if scope["path"] == "/lazy":
        import lazy_part

        text = lazy_part.VERSION
    if scope["path"] == "/helper":
        import helper

        text = helper.VERSION
    body = "{{}} {{}}".format(text, os.getpid()).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})


{bottom}
"""

TORNADO = """\
import asyncio
import os
import time
{imports}
import tornado.web
{top}
VERSION = {version!r}
time.sleep({import_seconds})


class Main(tornado.web.RequestHandler):
    async def get(self):
        await asyncio.sleep({handler_seconds})
        text = VERSION
        if self.request.path == "/lazy":
            import lazy_part

            text = lazy_part.VERSION
        if self.request.path == "/helper":
            import helper

            text = helper.VERSION
        self.write("{{}} {{}}".format(text, os.getpid()))


app = tornado.web.Application([(".*", Main)])
{bottom}
"""


class Project:
    """A folder with `app.py`; `release()` saves the next version of it."""

    def __init__(
        self,
        root: Path,
        *,
        asgi: bool = False,
        tornado: bool = False,
        import_seconds: float = 0.2,
        handler_seconds: float = 0.02,
        imports: str = "",
    ) -> None:
        self.root = root
        self.imports = imports
        self.version = ""
        self._template = ASGI if asgi else TORNADO if tornado else WSGI
        self._import_seconds = import_seconds
        self._handler_seconds = handler_seconds
        self._versions = (f"v{number}" for number in itertools.count(1))
        self._siblings = itertools.count()
        root.mkdir(parents=True, exist_ok=True)

    def source(self, version: str, *, top: str = "", bottom: str = "") -> str:
        """The text of `app.py` that answers `version`."""
        return self._template.format(
            version=version,
            imports=self.imports,
            top=top,
            bottom=bottom,
            import_seconds=self._import_seconds,
            handler_seconds=self._handler_seconds,
        )

    def next_version(self) -> str:
        return next(self._versions)

    def release(self, *, top: str = "", bottom: str = "") -> float:
        """Save the next good version as `app.py`; the time just before it was there."""
        self.version = self.next_version()
        return self.save("app.py", self.source(self.version, top=top, bottom=bottom))

    def broken(self, *, top: str = "", bottom: str = "") -> float:
        """Save a version of `app.py` that must never be answered."""
        return self.save("app.py", self.source("broken", top=top, bottom=bottom))

    def save(self, name: str, text: str) -> float:
        """As an editor does: write a sibling, rename it over; the time just before the rename."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sibling = path.with_name(f".{path.name}.{next(self._siblings)}.tmp")
        sibling.write_text(text)
        began = time.monotonic()
        os.replace(sibling, path)
        return began

    def copy(self, app: str) -> None:
        """Copy the program `tests/apps/<app>` into the project's folder."""
        shutil.copytree(APPS / app, self.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))

    def edit(self, name: str, old: str, new: str) -> float:
        """Save the file *name* with *new* in the place of *old*, which must occur in it; the time just before."""
        text = (self.root / name).read_text()
        assert old in text, f"{name} has no {old!r}"
        return self.save(name, text.replace(old, new))
