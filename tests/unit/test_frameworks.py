"""What a framework leaves to the first request is loaded before it; a Django in miniature."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from wsgi_reload_hooks.trial import frameworks

pytestmark = pytest.mark.unit

Django = dict[str, Any]


class Resolver:
    """It imports the URLs when it is asked for them."""

    @property
    def url_patterns(self) -> list[object]:
        sys.modules["shop.urls"] = ModuleType("shop.urls")
        return []


@pytest.fixture
def django(monkeypatch: pytest.MonkeyPatch) -> Django:
    """One that is ready to serve, and has imported no URLs yet."""
    settings = SimpleNamespace(configured=True, ROOT_URLCONF="shop.urls")
    apps = SimpleNamespace(ready=True)
    modules: dict[str, Any] = {
        "django.conf": SimpleNamespace(settings=settings),
        "django.apps": SimpleNamespace(apps=apps),
        "django.core.handlers.base": SimpleNamespace(),
        "django.urls": SimpleNamespace(get_resolver=Resolver),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    # What a test imports is gone after it.
    monkeypatch.setitem(sys.modules, "shop.urls", ModuleType("shop.urls"))
    del sys.modules["shop.urls"]
    return {"settings": settings, "apps": apps}


def test_the_urls_are_imported_once(django: Django) -> None:
    """They are left out before, and not after."""
    assert frameworks.unfinished()
    frameworks.finish()
    assert "shop.urls" in sys.modules
    assert not frameworks.unfinished()


@pytest.mark.parametrize(
    ("of", "name", "value"),
    [
        ("settings", "configured", False),
        ("settings", "ROOT_URLCONF", None),
        ("apps", "ready", False),
    ],
)
def test_one_that_is_not_ready_is_left_alone(of: str, name: str, value: object, django: Django) -> None:
    """Nothing is imported where Django is there without serving."""
    setattr(django[of], name, value)
    frameworks.finish()
    assert "shop.urls" not in sys.modules
    assert not frameworks.unfinished()


@pytest.mark.usefixtures("django")
@pytest.mark.parametrize("missing", ["django.conf", "django.apps", "django.core.handlers.base"])
def test_a_part_of_it_is_no_django(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library may import a part of Django for its own use."""
    monkeypatch.delitem(sys.modules, missing)
    assert not frameworks.unfinished()


def test_nothing_is_left_where_there_is_no_framework() -> None:
    """Plain applications are whole when they are imported."""
    frameworks.finish()
    assert not frameworks.unfinished()
