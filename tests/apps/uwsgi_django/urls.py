"""The URLs of the site, with their views."""

import os

import app
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(f"{app.VERSION} {os.getpid()}"))]
