"""What workers and zygotes may say, and that nothing else gets through."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import pytest
from harness.fuzz import mutations

from wsgi_reload_hooks.core.message import Malformed, Schema, decode
from wsgi_reload_hooks.core.refusal import Refusal
from wsgi_reload_hooks.gunicorn.worker_reports import WORKER_KINDS, ZYGOTE_KINDS
from wsgi_reload_hooks.watching.signature import Signature

pytestmark = pytest.mark.unit

REFUSAL = Refusal("NameError: x", "/srv/app.py", 3, "Traceback ...", ("/srv/app.py",))
WORKER: list[dict[str, Any]] = [
    {"kind": "loaded", "path": "/srv/app.py", "signature": [-1, 2, 2**64 - 1]},
    {"kind": "loaded", "path": os.fsdecode(b"/srv/\xff.py"), "signature": None},
    {"kind": "ready", "duck": True},
    {"kind": "refused", **dataclasses.asdict(REFUSAL)},
    {"kind": "unavailable", "reason": "no memory"},
    {"kind": "recycle"},
    {"kind": "assets", "since": 1.5, "folders": {"translations": ["/srv/locale"], "templates": []}},
]
ZYGOTE: list[dict[str, Any]] = [
    *WORKER,
    {"kind": "forked", "age": 3, "worker": 4711},
    {"kind": "delivered", "ages": [1, 2, 3]},
]


@pytest.mark.parametrize("message", ZYGOTE, ids=[str(each["kind"]) for each in ZYGOTE])
def test_what_is_said_is_understood(message: dict[str, Any]) -> None:
    """Each message comes through, a list as a tuple."""
    found = decode(json.dumps(message).encode(), ZYGOTE_KINDS)
    assert json.dumps(found, sort_keys=True) == json.dumps(message, sort_keys=True)


@pytest.mark.parametrize("kind", ["forked", "delivered"])
def test_a_worker_forks_nobody(kind: str) -> None:
    """What only a zygote may say is refused of a worker."""
    (message,) = (each for each in ZYGOTE if each["kind"] == kind)
    with pytest.raises(Malformed, match="of no known kind"):
        decode(json.dumps(message).encode(), WORKER_KINDS)


@pytest.mark.parametrize("pid", [-1, 0, 1, 2**31, 1.0, True, "7", None])
def test_a_pid_is_one_of_a_process(pid: object) -> None:
    """Neither everyone, nor a group, nor init."""
    with pytest.raises(Malformed, match="worker"):
        decode(json.dumps({"kind": "forked", "age": 1, "worker": pid}).encode(), ZYGOTE_KINDS)


def well_formed(message: dict[str, Any]) -> bool:
    """Whether what came through is what the arbiter's code may rely on."""
    match message["kind"]:
        case "loaded":
            path, signature = message["path"], message["signature"]
            sure = signature is None or all(type(each) is int for each in Signature(*signature))
            return os.path.isabs(path) and "\0" not in path and sure
        case "refused":
            why = Refusal(**{name: value for name, value in message.items() if name != "kind"})
            return all(isinstance(each, str) for each in (message["reason"], *why.files))
        case "assets":
            return all(os.path.isabs(path) for each in message["folders"].values() for path in each)
        case "forked":
            return type(message["age"]) is int and type(message["worker"]) is int and message["worker"] > 1
        case "delivered":
            return all(type(age) is int for age in message["ages"])
    return message["kind"] in ("ready", "recycle", "unavailable")


@pytest.mark.parametrize(
    ("samples", "kinds"), [(WORKER, WORKER_KINDS), (ZYGOTE, ZYGOTE_KINDS)], ids=["worker", "zygote"]
)
def test_broken_messages(samples: list[dict[str, Any]], kinds: dict[str, Schema]) -> None:
    """Ten thousand broken messages: each is refused, or is well-formed by chance."""
    refused = 0
    for data in mutations([json.dumps(each).encode() for each in samples]):
        try:
            message = decode(data, kinds)
        except Malformed:
            refused += 1
            continue
        assert well_formed(message), message
    assert refused > 1000
