"""Answers its version; each import of it begins its log anew."""

from __future__ import annotations

import logging
from typing import Any

VERSION = "v1"
logging.basicConfig(filename="app.log", filemode="w")


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [VERSION.encode()]
