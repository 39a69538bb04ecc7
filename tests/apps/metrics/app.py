"""Answers its version; at /up what prometheus counts: one for each living process that has set the gauge."""

import os

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.multiprocess import MultiProcessCollector

VERSION = "v1"
UP = Gauge("shop_up", "Set at import.", multiprocess_mode="livesum")
UP.set(1)


def app(environ, start_response):
    text = VERSION
    if environ["PATH_INFO"] == "/up":
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        text = f"{registry.get_sample_value('shop_up'):g}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
