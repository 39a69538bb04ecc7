"""Tiny projects of the frameworks, laid out as their users do it, and what each of them must survive."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from . import patterns
from .base import Server, installed
from .project import Project

MARK = "@version@"
# What is added to a file -> what is told.
BREAKAGES = (("undefined_name", "NameError: name 'undefined_name' is not defined"), ("def", "SyntaxError: "))

# A page takes its time: so visitors who come together meet every worker.
PAGE = """\
import os
import time

VERSION = "@version@"


def page(version):
    time.sleep(0.02)
    return f"{version} {os.getpid()}"
"""


@dataclasses.dataclass(frozen=True)
class Framework:
    """*files*: path -> text. *pages*: a file that is saved -> where its version is answered; the views first."""

    name: str
    distribution: str
    application: str
    files: Mapping[str, str]
    pages: Mapping[str, str]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def views(self) -> str:
        return next(iter(self.pages))


PLAIN = Framework(
    name="plain",
    distribution="",
    application="app:app",
    files={
        "app.py": """\
from pages import PAGES


def app(environ, start_response):
    body = PAGES[environ["PATH_INFO"]]().encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
""",
        # Whatever lies in the folder is a page, as with plugins.
        "pages/__init__.py": """\
import importlib
import pkgutil

PAGES = {}
for found in pkgutil.iter_modules(__path__):
    PAGES.update(importlib.import_module(f"{__name__}.{found.name}").PAGES)
""",
        "pages/home.py": PAGE + '\n\nPAGES = {"/": lambda: page(VERSION)}\n',
        "pages/more.py": 'PAGES = {"/more": lambda: "more"}\n',
    },
    pages={"pages/home.py": "/"},
)

FLASK = Framework(
    name="flask",
    distribution="flask",
    application="wsgi:app",
    files={
        "wsgi.py": "from shop import create_app\n\napp = create_app()\n",
        "shop/__init__.py": """\
from flask import Flask


def create_app():
    app = Flask(__name__)

    from . import catalog

    app.register_blueprint(catalog.blueprint)
    return app
""",
        "shop/catalog/__init__.py": """\
from flask import Blueprint

blueprint = Blueprint("catalog", __name__, template_folder="templates")

from . import views
""",
        "shop/catalog/views.py": PAGE
        + """

from flask import render_template

from . import blueprint


@blueprint.route("/")
def home():
    return render_template("home.txt", text=page(VERSION))
""",
        "shop/catalog/templates/home.txt": "{{ text }}\n",
    },
    pages={"shop/catalog/views.py": "/"},
)

BOTTLE = Framework(
    name="bottle",
    distribution="bottle",
    application="app:app",
    files={
        "app.py": "import bottle\nimport routes\n\napp = bottle.default_app()\n",
        "routes.py": PAGE
        + """

from bottle import route, template


@route("/")
def home():
    return template("home", text=page(VERSION))
""",
        "views/home.tpl": "{{text}}\n",
    },
    pages={"routes.py": "/"},
)

# Its own reloader is on unless it is switched off. It belongs to the engine, which is not started here.
CHERRYPY = Framework(
    name="cherrypy",
    distribution="cherrypy",
    application="app:app",
    files={
        "app.py": """\
import os

import cherrypy
from controllers.root import Root

if "AUTORELOAD" in os.environ:
    cherrypy.config.update({"engine.autoreload.on": os.environ["AUTORELOAD"] == "on"})
cherrypy.config.update({"log.screen": False})
app = cherrypy.tree.mount(Root(), "/")
""",
        "controllers/__init__.py": "",
        "controllers/root.py": PAGE
        + """

import cherrypy


class Root:
    @cherrypy.expose
    def index(self):
        return page(VERSION)
""",
    },
    pages={"controllers/root.py": "/"},
    environment={"AUTORELOAD": "on"},
)

PYRAMID = Framework(
    name="pyramid",
    distribution="pyramid",
    application="wsgi:app",
    files={
        "wsgi.py": "from shop import main\n\napp = main({})\n",
        "shop/__init__.py": """\
from pyramid.config import Configurator


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include(".routes")
        config.scan()
    return config.make_wsgi_app()
""",
        "shop/routes.py": 'def includeme(config):\n    config.add_route("home", "/")\n',
        "shop/views/__init__.py": "",
        "shop/views/home.py": PAGE
        + """

from pyramid.view import view_config


@view_config(route_name="home", renderer="string")
def home(request):
    return page(VERSION)
""",
    },
    pages={"shop/views/home.py": "/"},
)

FALCON = Framework(
    name="falcon",
    distribution="falcon",
    application="app:app",
    files={
        "app.py": """\
import falcon
from resources.product import ProductResource

app = falcon.App(media_type=falcon.MEDIA_TEXT)
app.add_route("/", ProductResource())
""",
        "resources/__init__.py": "",
        "resources/product.py": PAGE
        + """

class ProductResource:
    def on_get(self, request, response):
        response.text = page(VERSION)
""",
    },
    pages={"resources/product.py": "/"},
)

# It imports the URLs and the views at the first request, by names that are text.
DJANGO = Framework(
    name="django",
    distribution="django",
    application="shop.wsgi:application",
    files={
        "manage.py": """\
import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
""",
        "shop/__init__.py": "",
        "shop/settings.py": """\
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "not a secret"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "catalog.apps.CatalogConfig",
]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "shop.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
WSGI_APPLICATION = "shop.wsgi.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True
""",
        "shop/urls.py": """\
from catalog.views import say
from django.urls import include, path

VERSION = "@version@"
urlpatterns = [
    path("", include("catalog.urls")),
    path("urls", say, {"version": VERSION}),
]
""",
        "shop/wsgi.py": """\
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
""",
        "catalog/__init__.py": "",
        "catalog/apps.py": """\
from django.apps import AppConfig


class CatalogConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "catalog"

    def ready(self):
        from . import signals
""",
        "catalog/signals.py": """\
from django.db.models.signals import post_save
from django.dispatch import receiver


@receiver(post_save, sender="catalog.Product")
def tell(sender, **named):
    pass
""",
        "catalog/models.py": """\
from django.db import models

VERSION = "@version@"


class Product(models.Model):
    name = models.CharField(max_length=80, default=VERSION)
    seller = models.ForeignKey("auth.User", null=True, on_delete=models.CASCADE)
""",
        "catalog/urls.py": """\
from django.urls import path

from . import views

urlpatterns = [path("", views.home), path("models", views.product), path("tags", views.tags)]
""",
        "catalog/views.py": PAGE
        + """

from django.http import HttpResponse
from django.shortcuts import render

from .models import Product


def home(request):
    return say(request, VERSION)


def product(request):
    return say(request, Product().name)


def tags(request):
    return render(request, "catalog/tags.txt", {"pid": page("")})


def say(request, version):
    return HttpResponse(page(version), content_type="text/plain")
""",
        "catalog/templates/catalog/tags.txt": "{% load catalog_tags %}{% version %} {{ pid }}\n",
        "catalog/templatetags/__init__.py": "",
        "catalog/templatetags/catalog_tags.py": """\
from django import template

VERSION = "@version@"
register = template.Library()


@register.simple_tag
def version():
    return VERSION
""",
    },
    pages={
        "catalog/views.py": "/",
        "shop/urls.py": "/urls",
        "catalog/models.py": "/models",
        "catalog/templatetags/catalog_tags.py": "/tags",
    },
)

FRAMEWORKS = (PLAIN, FLASK, BOTTLE, CHERRYPY, PYRAMID, FALCON, DJANGO)
# With the debug mode of the one, and without the reloader of the other.
VARIANTS = (
    dataclasses.replace(FLASK, name="flask, debug", environment={"FLASK_DEBUG": "1"}),
    dataclasses.replace(CHERRYPY, name="cherrypy, no autoreload", environment={"AUTORELOAD": "off"}),
)


def needs(framework: Framework) -> pytest.MarkDecorator:
    """Skip where it is not installed."""
    missing = bool(framework.distribution) and not installed(framework.distribution)
    return pytest.mark.skipif(missing, reason=f"{framework.distribution} is not installed")


def each_framework(frameworks: Iterable[Framework]) -> pytest.MarkDecorator:
    """Run a test once per framework; Django is repeated with an older gunicorn by default."""
    cases = []
    for framework in frameworks:
        marks = [needs(framework), *([pytest.mark.versions] if framework is DJANGO else [])]
        cases.append(pytest.param(framework, marks=marks, id=framework.name))
    return pytest.mark.parametrize("framework", cases)


class Site(Project):
    """A project of that framework, every file in its first version."""

    def __init__(self, root: Path, framework: Framework) -> None:
        super().__init__(root)
        self.framework = framework
        for name in framework.files:
            self.publish(name)

    def publish(self, name: str) -> str:
        """Save the next good version of that file; the version."""
        version = self.next_version()
        self.save(name, self.framework.files[name].replace(MARK, version))
        return version

    def spoil(self, name: str, line: str) -> int:
        """Save a version of that file that must never be answered, with that line at the end; its number."""
        text = self.framework.files[name].replace(MARK, "broken")
        self.save(name, f"{text}{line}\n")
        return text.count("\n") + 1


def assert_survives(server: Server, site: Site) -> None:
    """The first save of the views is served by all; broken ones are refused and told; the repair is served."""
    views, page = site.framework.views, site.framework.pages[site.framework.views]
    server.wait_for_log(patterns.WATCHING)
    version = site.publish(views)
    server.wait_ready()
    server.wait_for_everyone(version, page)
    for number, (line, reason) in enumerate(BREAKAGES, 1):
        place = site.spoil(views, line)
        report = server.wait_for_log(patterns.REFUSED, number)
        assert report["why"].startswith(f"{views}, line {place}: {reason}")
        assert set(server.answers(page).values()) == {version}
    reloads = server.count(patterns.RELOADED)
    version = site.publish(views)
    server.wait_for_everyone(version, page)
    server.wait_for_log(patterns.RELOADED, reloads + 1)
    assert server.count(patterns.REFUSED) == len(BREAKAGES)


def assert_each_save_is_served(server: Server, site: Site) -> None:
    """A save of each of its files is served by all, at the first time."""
    server.wait_for_log(patterns.WATCHING)
    server.wait_ready()
    for name, page in reversed(list(site.framework.pages.items())):
        server.wait_for_everyone(site.publish(name), page)
    assert server.count(patterns.REFUSED) == 0
