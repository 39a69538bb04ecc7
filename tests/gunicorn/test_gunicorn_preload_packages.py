"""`preload_app` with what people import: each kind of module is saved three times, and all workers serve the new code.

A case is skipped where its package is not installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import Gunicorn, Project, patterns, wait_until

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.load,
    pytest.mark.skipif(sys.platform != "linux", reason="needs what only Linux does with orphans"),
]

SAVES = 3
ANSWER = """
def answer(start_response, *values):
    import os
    body = ("-".join(map(str, values)) + " " + str(os.getpid())).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


class Case(NamedTuple):
    """*files*: those with `~` are saved anew, with another value in its place; the answer is all of their values.

    *peer*: a program that the application calls, its argument is `PEER` of the environment.
    """

    package: str
    files: Mapping[str, str]
    worker_class: str = "gthread"
    environment: Mapping[str, str] = {}
    configuration: str = ""
    peer: str = ""


PLAIN = {"part.py": "VALUE = '~'\n", "deep/__init__.py": "INIT = '~'\n", "deep/inside.py": "VALUE = '~'\n"}
VALUES = "import part, deep, deep.inside\n"
LAST = "answer(start_response, deep.INIT, deep.inside.VALUE, part.VALUE)"

DJANGO = {
    "app.py": """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
from django.core.wsgi import get_wsgi_application
app = get_wsgi_application()
""",
    "locale/de/LC_MESSAGES/django.mo": "~",
    "shop/__init__.py": "",
    "shop/models.py": """
from django.db import models
class Thing(models.Model):
    name = models.CharField(max_length=10)
    kind = '~'
""",
    "shop/settings.py": """
import os
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "shop"]
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [os.path.join(HERE, "templates")]}]
LOCALE_PATHS = [os.path.join(HERE, "locale")]
LANGUAGE_CODE = "de"
USE_I18N = True
KIND = '~'
""",
    "shop/urls.py": """
from django.urls import path
from shop.views import page
urlpatterns = [path("", page, {"kind": '~'})]
""",
    "shop/views.py": """
import os
from django.conf import settings
from django.http import HttpResponse
from django.template.loader import render_to_string
from django.utils.translation import gettext
from shop.models import Thing

def page(request, kind):
    values = (gettext("kind"), Thing.kind, settings.KIND, kind, '~', render_to_string("page.html").strip())
    text = "-".join(values) + " " + str(os.getpid())
    return HttpResponse(text, headers={"Content-Length": str(len(text))})
""",
    "templates/page.html": "~",
}

CASES = {
    "django": Case("django", DJANGO, environment={"WSGI_RELOAD_EXTRA_FILES": "templates/**/*.html,locale/**/*.mo"}),
    "flask": Case(
        "flask",
        {
            **PLAIN,
            "app.py": "import os, flask\n"
            + VALUES
            + "app = flask.Flask('app')\n@app.route('/')\ndef index():\n"
            + "    return f'{deep.INIT}-{deep.inside.VALUE}-{part.VALUE} {os.getpid()}'\n",
        },
    ),
    "prometheus": Case(
        "prometheus_client",
        {
            **PLAIN,
            "part.py": "import prometheus_client\nseen = prometheus_client.Counter('seen', 'All')\nVALUE = '~'\n",
            "app.py": VALUES + ANSWER + f"def app(environ, start_response):\n    part.seen.inc()\n    return {LAST}\n",
        },
    ),
    "prometheus-multiprocess": Case(
        "prometheus_client",
        {
            **PLAIN,
            "part.py": "import prometheus_client\nseen = prometheus_client.Counter('seen', 'All')\nVALUE = '~'\n",
            "app.py": VALUES
            + ANSWER
            + "import os\nfrom pathlib import Path\n"
            + "def app(environ, start_response):\n    part.seen.inc()\n"
            + "    own = Path(os.environ['PROMETHEUS_MULTIPROC_DIR'], f'counter_{os.getpid()}.db')\n"
            + f"    assert own.exists()\n    return {LAST}\n",
        },
        environment={"PROMETHEUS_MULTIPROC_DIR": "{folder}"},
        configuration="from prometheus_client import multiprocess\n"
        "def child_exit(server, worker):\n    multiprocess.mark_process_dead(worker.pid)\n",
    ),
    "sqlalchemy": Case(
        "sqlalchemy",
        {
            **PLAIN,
            "part.py": "import sqlalchemy as sa\nfrom sqlalchemy.pool import QueuePool\n"
            "engine = sa.create_engine('sqlite:///shop.db', poolclass=QueuePool)\n"
            "with engine.connect() as connection:\n    connection.execute(sa.text('select 1'))\nVALUE = '~'\n",
            "app.py": VALUES
            + ANSWER
            + "def app(environ, start_response):\n    with part.engine.connect() as connection:\n"
            + f"        assert connection.execute(part.sa.text('select 2')).scalar() == 2\n    return {LAST}\n",
        },
        configuration="def post_fork(server, worker):\n    import part\n    part.engine.dispose(close=False)\n",
    ),
    "gevent": Case(
        "gevent",
        {
            **PLAIN,
            "app.py": "import gevent, threading, queue\n"
            + VALUES
            + ANSWER
            + "gevent.spawn(gevent.sleep, 0.01)\n"
            + f"def app(environ, start_response):\n    gevent.sleep(0.001)\n    return {LAST}\n",
        },
        worker_class="gevent",
    ),
    "numpy": Case(
        "numpy",
        {
            **PLAIN,
            "part.py": "import numpy\nmatrix = numpy.random.rand(64, 64)\nproduct = matrix @ matrix\nVALUE = '~'\n",
            "app.py": VALUES
            + ANSWER
            + f"def app(environ, start_response):\n    assert (part.matrix @ part.matrix).any()\n    return {LAST}\n",
        },
    ),
    "pandas": Case(
        "pandas",
        {
            **PLAIN,
            "part.py": "import pandas\nframe = pandas.DataFrame({'a': [1, 2]})\nVALUE = '~'\n",
            "app.py": VALUES
            + ANSWER
            + f"def app(environ, start_response):\n    assert part.frame.a.sum() == 3\n    return {LAST}\n",
        },
    ),
    "logging": Case(
        "logging",
        {
            **PLAIN,
            "part.py": "import logging, logging.handlers, queue\nthings = queue.Queue()\n"
            "listener = logging.handlers.QueueListener(things, logging.NullHandler())\nlistener.start()\n"
            "log = logging.getLogger('shop')\nlog.addHandler(logging.handlers.QueueHandler(things))\nVALUE = '~'\n",
            "app.py": VALUES
            + ANSWER
            + f"def app(environ, start_response):\n    part.log.warning('seen')\n    return {LAST}\n",
        },
    ),
    "grpc": Case(
        "grpc",
        {
            **PLAIN,
            "part.py": "import os, grpc\nchannel = grpc.insecure_channel('unix:' + os.environ['PEER'])\n"
            "call = channel.unary_unary('/any/thing')\n"
            # The same channel before the fork and after it.
            "assert call(b'hello', timeout=20, wait_for_ready=True) == b'hello'\nVALUE = '~'\n",
            "app.py": VALUES
            + ANSWER
            + "def app(environ, start_response):\n"
            + "    assert part.call(b'hello', timeout=20) == b'hello'\n"
            + f"    return {LAST}\n",
        },
        environment={"PEER": "{folder}/peer"},
        peer="""
import sys, grpc
from concurrent import futures
class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)
server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Echo()])
server.add_insecure_port("unix:" + sys.argv[1])
server.start()
server.wait_for_termination()
""",
    ),
}


def mo_file(text: str) -> bytes:
    """A compiled catalogue that translates `kind`."""
    pairs = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", "kind": text}.items())
    start, texts, tables = 28 + 16 * len(pairs), b"", []
    for column in (0, 1):
        for pair in pairs:
            data = pair[column].encode()
            tables.append((len(data), start + len(texts)))
            texts += data + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, start)
    return head + b"".join(struct.pack("<2I", *entry) for entry in tables) + texts


class Shop:
    """The files of one case."""

    def __init__(self, project: Project, case: Case) -> None:
        self._project = project
        self._case = case
        self._values = {name: "0" for name, text in sorted(case.files.items()) if "~" in text}
        for name in case.files:
            self.save(name)

    @property
    def kinds(self) -> list[str]:
        return list(self._values)

    @property
    def version(self) -> str:
        return "-".join(self._values.values())

    def save(self, name: str) -> None:
        """Save it with its value of now."""
        value = self._values.get(name, "")
        if name.endswith(".mo"):
            path = self._project.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            sibling = path.with_name("next.tmp")
            sibling.write_bytes(mo_file(value))
            sibling.replace(path)
        else:
            self._project.save(name, self._case.files[name].replace("~", value))

    def next(self, name: str, value: str) -> None:
        """Save it with another value."""
        self._values[name] = value
        self.save(name)


@contextlib.contextmanager
def surroundings(case: Case, folder: Path) -> Iterator[dict[str, str]]:
    """What is there while the case is tried: its folder, its peer; the environment that tells of them."""
    folder.mkdir()
    environment = {key: value.format(folder=folder) for key, value in case.environment.items()}
    if not case.peer:
        yield environment
        return
    peer = subprocess.Popen([sys.executable, "-c", case.peer, environment["PEER"]])
    try:
        yield environment
    finally:
        peer.kill()
        peer.wait()


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_module_is_saved_three_times(name: str, tmp_path: Path) -> None:
    """Under load: no request fails, and after each save all workers answer with the new value."""
    case = CASES[name]
    if importlib.util.find_spec(case.package) is None:
        pytest.skip(f"{case.package} is not installed")
    project = Project(tmp_path / "project")
    shop = Shop(project, case)
    project.save("conf.py", "import wsgi_reload_hooks.gunicorn_conf\npreload_app = True\n" + case.configuration)
    file = project.root / "conf.py"
    with (
        surroundings(case, tmp_path / "notes") as environment,
        Gunicorn(
            project, configuration=file, worker_class=case.worker_class, workers=3, environment=environment
        ) as server,
    ):
        server.wait_for_workers(3)
        reloads = 0
        with server.load(clients=4) as load:
            for kind in shop.kinds:
                for number in range(1, SAVES + 1):
                    shop.next(kind, f"{number}")
                    reloads += 1
                    load.wait_for_only(shop.version)
                    server.wait_for_log(patterns.RELOADED, reloads)
        assert load.failed == []
        server.wait_for_workers(3)
        answered: set[str] = set()

        def all_have_answered() -> bool:
            version, pid = server.get()[1].split()
            assert version == shop.version
            answered.add(pid)
            return len(answered) == 3

        wait_until(all_have_answered, "each worker has answered")
        assert server.count(patterns.RELOADED) == reloads
        assert server.count(patterns.REFUSED) == 0
