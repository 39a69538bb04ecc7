"""A small site made with Django, its translations and templates, and edits of them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import Project, Server, holds, patterns, wait_until
from harness.steering import let_it_hear
from msgfmt import mo

HAVE_DJANGO = importlib.util.find_spec("django") is not None
GERMAN = "locale/de/LC_MESSAGES/django.mo"
FRENCH = "shop/locale/fr/LC_MESSAGES/django.mo"
PAGE = "templates/page.html"
TRANSLATIONS_RESET = patterns.OURS + r"translations reset: (?P<what>.*)"
TEMPLATES_RESET = patterns.OURS + r"templates reset: (?P<what>.*)"
TRANSLATIONS_REFUSED = patterns.OURS + r"translations refused, the previous ones stay: (?P<why>.*)"

APP = """\
import os
from pathlib import Path

import django
from django.conf import settings

VERSION = {version!r}
{top}
ROOT = Path(__file__).parent
settings.configure(
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["shop"],
    LANGUAGE_CODE="de",
    LOCALE_PATHS=[ROOT / "locale"],
    ROOT_URLCONF="shop.urls",
    SECRET_KEY="x",
    TEMPLATES=[{{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [ROOT / "templates"], "APP_DIRS": True}}],
)
from django.core.{kind} import get_{kind}_application

app = get_{kind}_application()
{bottom}
"""
URLS = """\
import os
import time

from django.http import HttpResponse
from django.template.loader import render_to_string
from django.urls import path
from django.utils import translation
import app


def answer(text):
    time.sleep(0.02)
    return HttpResponse("{} {}".format(text.strip(), os.getpid()))


def french(request):
    translation.activate("fr")
    return answer(translation.gettext("hello"))


def german(request):
    translation.deactivate()
    return answer(translation.gettext("hello"))


def page(request):
    try:
        return answer(render_to_string(request.path_info[1:]))
    except Exception as error:
        return answer(type(error).__name__)


urlpatterns = [
    path("", lambda request: answer(app.VERSION)),
    path("german", german),
    path("french", french),
    path("page.html", page),
    path("other.html", page),
]
"""


def save_bytes(path: Path, content: bytes) -> None:
    """Write a sibling and rename it over *path*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sibling = path.with_name(f".{path.name}.tmp")
    sibling.write_bytes(content)
    os.replace(sibling, path)


class Site(Project):
    """`release` saves the next version of `app.py`, `translate` and `write` what is reset without a restart."""

    def __init__(self, root: Path, *, asgi: bool = False) -> None:
        super().__init__(root, asgi=asgi)
        self._kind = "asgi" if asgi else "wsgi"
        self.save("shop/__init__.py", "")
        self.save("shop/urls.py", URLS)
        self.save(PAGE, "page1")
        self.translate(GERMAN, "hallo1")
        self.translate(FRENCH, "salut1")
        self.release()

    def source(self, version: str, *, top: str = "", bottom: str = "") -> str:
        return APP.format(version=version, kind=self._kind, top=top, bottom=bottom)

    def translate(self, name: str, hello: str) -> None:
        """Save translations in which "hello" is that."""
        save_bytes(self.root / name, mo({"hello": hello}))


def answers(server: Server, path: str) -> dict[int, set[str]]:
    """What each worker answers to a dozen visitors who come together, by pid."""
    found: dict[int, set[str]] = {}
    with ThreadPoolExecutor(6) as pool:
        for status, text in pool.map(lambda _: server.ask(path), range(12)):
            assert status == 200, (status, text)
            word, pid = text.split()
            found.setdefault(int(pid), set()).add(word)
    return found


def wait_for_all(server: Server, path: str, text: str, workers: Callable[[], list[int]] | None = None) -> None:
    """Until each worker (default: of the server) has answered *text*, and none of them anything else."""
    last: dict[int, set[str]] = {}
    workers = workers or server.workers

    def all_do() -> bool:
        last.clear()
        last.update(answers(server, path))
        return sorted(last) == sorted(workers()) and all(each == {text} for each in last.values())

    wait_until(all_do, lambda: f"{path} is {text} everywhere: {last}, workers {workers()}")


def check_translations_and_templates(server: Server, site: Site) -> None:
    """Edited, born or gone, translations and templates are served anew, by the workers that there were."""
    for path, text in (("/german", "hallo1"), ("/french", "salut1"), ("/page.html", "page1")):
        wait_for_all(server, path, text)
    wait_for_all(server, "/other.html", "TemplateDoesNotExist")
    before = sorted(server.workers())
    # Who hears of a file only after its save has workers forget it without a word.
    let_it_hear(server)
    site.translate(GERMAN, "hallo2")
    assert server.wait_for_log(TRANSLATIONS_RESET)["what"].strip() == GERMAN
    wait_for_all(server, "/german", "hallo2")
    site.translate(FRENCH, "salut2")
    assert server.wait_for_log(TRANSLATIONS_RESET, 2)["what"].strip() == FRENCH
    wait_for_all(server, "/french", "salut2")
    site.save(PAGE, "page2")
    assert server.wait_for_log(TEMPLATES_RESET)["what"].strip() == PAGE
    wait_for_all(server, "/page.html", "page2")
    site.save("templates/other.html", "other1")
    assert server.wait_for_log(TEMPLATES_RESET, 2)["what"].strip() == "templates/other.html"
    wait_for_all(server, "/other.html", "other1")
    (site.root / "templates/other.html").unlink()
    server.wait_for_log(TEMPLATES_RESET, 3)
    wait_for_all(server, "/other.html", "TemplateDoesNotExist")
    assert sorted(server.workers()) == before
    assert server.count(patterns.RELOADED) == 0
    assert server.count(TEMPLATES_RESET) == 3
    assert server.count(TRANSLATIONS_RESET) == 2


def check_broken_translations(server: Server, site: Site) -> None:
    """Half a file is refused, in one entry, and nobody sees it; its repair goes in by itself."""
    wait_for_all(server, "/german", "hallo1")
    wait_for_all(server, "/page.html", "page1")
    before = sorted(server.workers())
    let_it_hear(server)
    save_bytes(site.root / GERMAN, mo({"hello": "never"})[:-8])
    assert server.wait_for_log(TRANSLATIONS_REFUSED)["why"].startswith(GERMAN + ": ")
    # Whoever is reset because of something else is not to load it either.
    site.save(PAGE, "page2")
    server.wait_for_log(TEMPLATES_RESET)
    holds(lambda: all(each == {"hallo1"} for each in answers(server, "/german").values()), "the previous ones")
    assert server.count(TRANSLATIONS_REFUSED) == 1
    site.translate(GERMAN, "hallo2")
    wait_for_all(server, "/german", "hallo2")
    # The line comes after the reset.
    server.wait_for_log(TRANSLATIONS_RESET)
    assert server.count(TRANSLATIONS_RESET) == 1
    assert server.count(TRANSLATIONS_REFUSED) == 1
    assert sorted(server.workers()) == before


def check_beside_code(server: Server, site: Site) -> None:
    """While code is refused, and after a reload: translations and templates are reset all the same."""
    wait_for_all(server, "/page.html", "page1")
    site.broken(bottom="undefined_name")
    server.wait_for_log(patterns.REFUSED)
    site.save(PAGE, "page2")
    wait_for_all(server, "/page.html", "page2")
    assert server.count(patterns.RELOADED) == 0
    site.release()
    server.wait_for_log(patterns.RELOADED)
    wait_for_all(server, "/", site.version)
    wait_for_all(server, "/page.html", "page2")
    wait_for_all(server, "/german", "hallo1")
    site.save(PAGE, "page3")
    site.translate(GERMAN, "hallo3")
    wait_for_all(server, "/page.html", "page3")
    wait_for_all(server, "/german", "hallo3")
    assert server.count(patterns.RELOADED) == 1
