"""The one page of the site: the version in its settings."""

from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.urls import path


def page(request: Any) -> Any:
    """Answer the version."""
    return HttpResponse(settings.VERSION)


urlpatterns = [path("", page)]
