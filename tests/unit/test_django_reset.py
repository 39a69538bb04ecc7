"""Django in a worker forgets translations and templates. Each test has a fresh interpreter, with a real Django."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django_site import HAVE_DJANGO
from edits import PACKAGE_ROOT, python

pytestmark = pytest.mark.unit

needs_django = pytest.mark.skipif(not HAVE_DJANGO, reason="Django is not installed")

# `assets` takes part in each `request()`, `raised(kind)` is what the watching process does.
PREAMBLE = """
import os, sys, threading, time
from pathlib import Path
from msgfmt import mo
from wsgi_reload_hooks.django.reset import DjangoAssets
from wsgi_reload_hooks.process.counters import Generation, TEMPLATES, TRANSLATIONS

def save(name, content):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("new").write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(path.with_name("new"), path)

def translate(language, hello):
    save(f"locale/{language}/LC_MESSAGES/django.mo", mo({"hello": hello}))

import wsgi_reload_hooks.django.reset as module
class Clock:
    time, monotonic = staticmethod(time.time), staticmethod(lambda: now)
now, module.time = 100.0, Clock

generation, reports, told = Generation(), [], []
raised = generation.advance
assets = DjangoAssets(generation, lambda path: "site-packages" not in path, reports.append, lambda *each: told.append(each))
"""
CONFIGURED = """
translate("de", "hallo1")
translate("fr", "salut1")
save("templates/page.html", "page1")
save("forms/widget.html", "widget1")
save("jinja/page.html", "jinja1")
import django
from django.conf import settings
settings.configure(
    LANGUAGE_CODE="de", LOCALE_PATHS=[Path("locale").absolute()],
    INSTALLED_APPS=["django.forms"],
    DEBUG="debug" in sys.argv,
    FORM_RENDERER="django.forms.renderers.DjangoTemplates",
    TEMPLATES=[
        {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": ["templates"], "APP_DIRS": True},
        {"BACKEND": "django.template.backends.jinja2.Jinja2", "DIRS": ["jinja"], "APP_DIRS": False, "NAME": "j"},
    ] if "jinja" in sys.argv else [
        {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": ["templates"], "APP_DIRS": True},
    ],
)
django.setup()
from django.core.signals import request_finished, request_started
from django.utils import translation
assets.connect()

def render(name="page.html", using=None):
    from django.template.loader import render_to_string
    return render_to_string(name, using=using)

def request(serve=lambda: None):
    request_started.send(sender=None)
    try:
        return serve()
    finally:
        request_finished.send(sender=None)

def hello():
    return translation.gettext("hello")
"""


def run(folder: Path, code: str, *arguments: str, configured: bool = True) -> list[str]:
    """What *code* printed, word by word."""
    preamble = PREAMBLE + (CONFIGURED if configured else "")
    path = os.pathsep.join([str(PACKAGE_ROOT), str(Path(__file__).parents[1])])
    # Django imports `cgi`, which warns, in its older versions.
    options = ("-W", "ignore::DeprecationWarning")
    argv = f"import sys\nsys.argv += {list(arguments)}\n"
    return python(code, folder, *options, preamble=argv + preamble, PYTHONPATH=path).split()


# -- translations ----------------------------------------------------------------------------------------------------


@needs_django
@pytest.mark.parametrize("arguments", [(), ("debug",)], ids=["", "debug"])
def test_translations_of_the_default_language(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Without an active language the default is new at the next request, and not before."""
    code = """
    print(request(hello))
    translate("de", "hallo2")
    print(request(hello))
    raised(TRANSLATIONS)
    print(hello(), request(hello), request(hello))
    """
    assert run(tmp_path, code, *arguments) == ["hallo1", "hallo1", "hallo1", "hallo2", "hallo2"]


@needs_django
def test_translations_of_other_languages(tmp_path: Path) -> None:
    """So is each other language, those with the default as their fallback, and one that was not there."""
    code = """
    def french():
        with translation.override("fr"): return hello()
    def italian():
        with translation.override("it"): return hello() + str(translation.check_for_language("it"))
    print(request(french), request(italian))
    translate("fr", "salut2"); translate("de", "hallo2")
    raised(TRANSLATIONS)
    print(request(french), request(italian))
    translate("it", "ciao")
    raised(TRANSLATIONS)
    print(request(italian))
    """
    shown = ["salut1", "hallo1True", "salut2", "hallo2True", "ciaoTrue"]
    assert run(tmp_path, code) == shown


@needs_django
def test_a_language_left_active(tmp_path: Path) -> None:
    """What a request has left active in a thread is new in the thread's next one; nothing else becomes active."""
    code = """
    request(lambda: translation.activate("fr"))
    translate("fr", "salut2")
    raised(TRANSLATIONS)
    thread = threading.Thread(target=lambda: print(request(hello), translation.get_language()))
    thread.start(); thread.join()
    print(request(hello), translation.get_language())
    request(translation.deactivate_all)
    raised(TRANSLATIONS)
    print(request(hello), translation.get_language())
    request(translation.deactivate)
    raised(TRANSLATIONS)
    print(request(hello), translation.get_language())
    """
    assert run(tmp_path, code) == ["hallo1", "de", "salut2", "fr", "hello", "None", "hallo1", "de"]


@needs_django
def test_a_request_in_the_middle_keeps_its_language(tmp_path: Path) -> None:
    """A request that goes on while another thread resets all ends as it began."""
    code = """
    def other():
        thread = threading.Thread(target=request, args=(hello,)); thread.start(); thread.join()
    def long():
        with translation.override("fr"):
            before = hello()
            translate("fr", "salut2"); raised(TRANSLATIONS); other()
            return before, hello(), translation.get_language()
    print(*request(long))
    """
    assert run(tmp_path, code) == ["salut1", "salut1", "fr"]


@needs_django
def test_translations_that_cannot_be_loaded(tmp_path: Path) -> None:
    """Half a file when it is read: the previous translations stay, which is told once, and the repair is taken."""
    code = """
    def french():
        with translation.override("fr"): return hello()
    print(request(french), request(hello))
    save("locale/fr/LC_MESSAGES/django.mo", mo({"hello": "never"})[:-8]); translate("de", "hallo2")
    raised(TRANSLATIONS)
    print(request(french), request(french), request(hello), len(told))
    translate("fr", "salut2")
    raised(TRANSLATIONS)
    print(request(french), len(told))
    """
    assert run(tmp_path, code) == ["salut1", "hallo1", "salut1", "salut1", "hallo2", "1", "salut2", "1"]


@needs_django
def test_once_more_a_second_later(tmp_path: Path) -> None:
    """What was being loaded while all was reset, and kept after it, is forgotten a moment later, once."""
    code = """
    print(request(hello), request(render))
    raised(TRANSLATIONS); raised(TEMPLATES)
    print(request(hello), request(render))
    translate("de", "hallo2"); save("templates/page.html", "page2")
    print(request(hello), request(render))
    now += 1.1
    print(request(hello), request(render))
    translate("de", "hallo3"); save("templates/page.html", "page3")
    now += 1.1
    print(request(hello), request(render))
    """
    assert run(tmp_path, code) == ["hallo1", "page1"] * 3 + ["hallo2", "page2"] * 2


@needs_django
def test_many_threads_at_once(tmp_path: Path) -> None:
    """The first requests after a change come together: one of them resets, none fails or answers an old text."""
    code = """
    from django.utils.translation import trans_real
    sys.setswitchinterval(1e-6)
    resets, reset = [], assets._reset
    assets._reset = lambda kind: (resets.append(kind), reset(kind))
    failures, threads = [], 8
    for number in range(2, 22):
        barrier = threading.Barrier(threads)
        def work(language):
            def serve():
                with translation.override(language):
                    first = hello()
                translation.deactivate()
                return first, hello(), render()
            try:
                request(serve)
                barrier.wait(30)
                barrier.wait(30)
                told_now = request(serve)
                expected = (f"{language}{number}", f"de{number}", f"page{number}")
                if told_now != expected: failures.append((told_now, expected))
            except BaseException as error:
                failures.append(error)
        all_threads = [threading.Thread(target=work, args=(("de", "fr")[each % 2],)) for each in range(threads - 1)]
        [each.start() for each in all_threads]
        barrier.wait(30)
        translate("de", f"de{number}"); translate("fr", f"fr{number}"); save("templates/page.html", f"page{number}")
        resets.clear()
        raised(TRANSLATIONS); raised(TEMPLATES)
        barrier.wait(30)
        [each.join() for each in all_threads]
        assert sorted(resets) == ["templates", "translations"], resets
    assert not failures, failures[:3]
    print("ok", len(told))
    """
    assert run(tmp_path, code) == ["ok", "0"]


@pytest.mark.matrix
@needs_django
def test_requests_that_go_on_meanwhile(tmp_path: Path) -> None:
    """Translations that are reset all the time under requests of other threads never raise anything there."""
    code = """
    sys.setswitchinterval(1e-6)
    failures, done = [], threading.Event()
    def work(language):
        try:
            while not done.is_set():
                with translation.override(language):
                    assert hello() in ("hallo1", "salut1"), hello()
                translation.deactivate()
                assert hello() == "hallo1", hello()
                assert translation.get_language() == "de"
                assert render() == "page1"
        except BaseException as error:
            failures.append(error)
    request(hello)
    threads = [threading.Thread(target=work, args=(each,)) for each in ("de", "fr", "de", "fr")]
    [each.start() for each in threads]
    for _ in range(150):
        raised(TRANSLATIONS); raised(TEMPLATES)
        request(hello)
    done.set()
    [each.join() for each in threads]
    assert not failures, failures
    print("ok", len(told))
    """
    assert run(tmp_path, code) == ["ok", "0"]


# -- templates -------------------------------------------------------------------------------------------------------


@needs_django
def test_templates(tmp_path: Path) -> None:
    """A cached template, and one that was missed, are looked for anew at the next request."""
    code = """
    from django.template import TemplateDoesNotExist
    def missing():
        try: return render("other.html")
        except TemplateDoesNotExist: return "missing"
    print(request(render), request(missing))
    save("templates/page.html", "page2"); save("templates/other.html", "other")
    print(request(render), request(missing))
    raised(TEMPLATES)
    print(request(render), request(missing))
    """
    assert run(tmp_path, code) == ["page1", "missing", "page1", "missing", "page2", "other"]


@needs_django
def test_templates_of_forms(tmp_path: Path) -> None:
    """The engine that forms are rendered with forgets, too; its folders are told where they are ours."""
    code = """
    from django.forms.renderers import get_default_renderer
    renderer = get_default_renderer()
    renderer.engine.engine.dirs.insert(0, "forms")
    def widget(): return renderer.render("widget.html", {})
    print(request(widget))
    save("forms/widget.html", "widget2")
    raised(TEMPLATES)
    print(request(widget), *[os.path.relpath(each) for each in reports[-1]["templates"]])
    """
    assert run(tmp_path, code) == ["widget1", "widget2", "forms"]


@needs_django
def test_templates_of_jinja(tmp_path: Path) -> None:
    """Django's Jinja2 backend forgets, too, also where it does not look at its files by itself."""
    pytest.importorskip("jinja2")
    code = """
    print(request(lambda: render(using="j")))
    save("jinja/page.html", "jinja2")
    print(request(lambda: render(using="j")))
    raised(TEMPLATES)
    print(request(lambda: render(using="j")), *map(os.path.basename, reports[-1]["templates"]))
    """
    assert run(tmp_path, code, "jinja") == ["jinja1", "jinja1", "jinja2", "jinja"]


@needs_django
def test_a_reset_that_fails(tmp_path: Path) -> None:
    """A loader that cannot be reset is told once and harms neither the request nor the other loaders."""
    code = """
    from django.template import engines
    request(render)
    class Bad:
        def reset(self): raise RuntimeError("no")
    engines["django"].engine.template_loaders.insert(0, Bad())
    save("templates/page.html", "page2")
    raised(TEMPLATES)
    engine = engines["django"].engine
    print(*[request(lambda: engine.template_loaders[1].get_template("page.html").source) for _ in range(3)])
    now += 1.1
    request()
    print(*[str(error) for _, error in told])
    """
    assert run(tmp_path, code) == ["page2", "page2", "page2", "no"]


# -- what is told, and what is left alone ----------------------------------------------------------------------------


@needs_django
def test_folders_are_told_when_something_is_woken(tmp_path: Path) -> None:
    """The folders are told after the first request, and again when an engine is woken: only those that are ours."""
    code = """
    def shown():
        return {kind: [os.path.relpath(each) for each in folders] for kind, folders in reports[-1].items()}
    request(); request()
    assert len(reports) == 1 and shown() == {"translations": ["locale"], "templates": []}, reports
    request(render); request(render)
    assert len(reports) == 2 and shown() == {"translations": ["locale"], "templates": ["templates"]}, reports
    """
    assert run(tmp_path, code) == []


@needs_django
def test_nothing_is_woken(tmp_path: Path) -> None:
    """What the application has not used is neither imported nor made: not by a request, not by a reset."""
    code = """
    from django.template import engines
    from django.conf import settings
    settings.USE_I18N = False
    before = set(sys.modules)
    request(); request()
    raised(TRANSLATIONS); raised(TEMPLATES)
    request()
    assert not engines._engines and set(sys.modules) == before, set(sys.modules) - before
    assert reports == [] and told == [], (reports, told)
    """
    assert run(tmp_path, code) == []


def test_without_django(tmp_path: Path) -> None:
    """Without Django there is nothing to connect to, and nothing is imported."""
    code = """
    before = set(sys.modules)
    assets.connect(); assets.look()
    print(sorted(set(sys.modules) - before), reports, told)
    """
    assert run(tmp_path, code, configured=False) == ["[]", "[]", "[]"]


@needs_django
def test_signals_that_cannot_be_connected_to(tmp_path: Path) -> None:
    """Whatever they raise is told, and not to the application's import."""
    code = """
    from django.conf import settings
    from django.core import signals
    signals.request_started.connect = None
    assets.connect(); assets.connect()
    print(len(told))
    """
    assert run(tmp_path, code, configured=False) == ["1"]


@needs_django
def test_django_that_is_not_configured(tmp_path: Path) -> None:
    """Settings that nobody has configured stay so."""
    code = """
    from django.conf import settings
    from django.core.signals import request_started, request_finished
    assets.connect(); assets.connect()
    request_started.send(sender=None); request_finished.send(sender=None)
    raised(TEMPLATES)
    request_started.send(sender=None)
    print(settings.configured, reports, told)
    """
    assert run(tmp_path, code, configured=False) == ["False", "[]", "[]"]


@needs_django
def test_in_a_fork(tmp_path: Path) -> None:
    """Connected before a fork: each process resets for itself, what was raised before the fork as well."""
    code = """
    request(hello)
    translate("de", "hallo2")
    raised(TRANSLATIONS)
    assets._lock.acquire()
    pid = os.fork()
    if pid == 0:
        print(request(hello), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    assets._lock.release()
    print(hello(), request(hello))
    """
    assert run(tmp_path, code) == ["hallo2", "hallo1", "hallo2"]
