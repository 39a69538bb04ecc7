"""What a framework leaves to the first request. Whether new code is good shows there, so it is loaded before."""

from __future__ import annotations

import sys


def unfinished() -> bool:
    """Whether a part of the application in this process is left to its first request."""
    urls = _django_urls()
    return urls is not None and urls not in sys.modules


def finish() -> None:
    """Load that part. Raises what it raises."""
    if unfinished():
        # Every request asks for them, and all views come with them.
        _ = sys.modules["django.urls"].get_resolver().url_patterns


def _django_urls() -> str | None:
    """The name of the URLs' module, where Django is ready to serve here."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    apps = getattr(sys.modules.get("django.apps"), "apps", None)
    if "django.core.handlers.base" not in sys.modules or settings is None or apps is None:
        return None
    if not settings.configured or not apps.ready:
        return None
    name = getattr(settings, "ROOT_URLCONF", None)
    return name if isinstance(name, str) else None
