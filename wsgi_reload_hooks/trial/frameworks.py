"""Loads what a framework would load only for the first request, so that a trial sees its errors too."""

from __future__ import annotations

import sys


def unfinished() -> bool:
    """Tell whether the application in this process would load a part of itself only for its first request."""
    urls = _django_urls()
    return urls is not None and urls not in sys.modules


def finish() -> None:
    """Load that part. Raises what loading it raises."""
    if unfinished():
        # Every request uses the URL patterns, and loading them imports all views.
        _ = sys.modules["django.urls"].get_resolver().url_patterns


def _django_urls() -> str | None:
    """Return the name of the module with the URL patterns, or None if no Django is ready in this process."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    apps = getattr(sys.modules.get("django.apps"), "apps", None)
    if "django.core.handlers.base" not in sys.modules or settings is None or apps is None:
        return None
    if not settings.configured or not apps.ready:
        return None
    name = getattr(settings, "ROOT_URLCONF", None)
    return name if isinstance(name, str) else None
