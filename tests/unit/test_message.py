"""The decoder of messages from outside: each kind against its schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness.fuzz import mutations

from wsgi_reload_hooks.core import message
from wsgi_reload_hooks.core.message import Malformed

pytestmark = pytest.mark.unit

KINDS: dict[str, message.Schema] = {
    "loaded": {"path": message.path, "signature": message.optional(message.row(message.integer(), message.number))},
    "forked": {"pid": message.pid, "ages": message.listed(message.integer(), 3)},
    "told": {
        "by": message.mapping(message.text(5), message.boolean, 2),
        "more": message.fields({"why": message.text(10)}),
    },
}
GOOD: list[dict[str, Any]] = [
    {"kind": "loaded", "path": "/a/b.py", "signature": [1, 2.5]},
    {"kind": "loaded", "path": "/a/b.py"},
    {"kind": "forked", "pid": 4711, "ages": [1, 2, 3]},
    {"kind": "told", "by": {"x": True}, "more": {"why": "so"}},
]


@pytest.mark.parametrize("good", GOOD, ids=str)
def test_good_message_is_decoded(good: dict[str, Any]) -> None:
    found = message.decode(json.dumps(good).encode(), KINDS)
    assert json.loads(json.dumps(found)) == {**dict.fromkeys(KINDS[good["kind"]]), **good}


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"kind": []}',
        b'{"kind": "loaded"}',
        b'{"kind": "loaded", "path": "a.py"}',
        b'{"kind": "loaded", "path": "/a\\u0000b"}',
        b'{"kind": "loaded", "path": "/a\\ud800"}',
        b'{"kind": "loaded", "path": "/%s"}' % (b"a" * 5000),
        b'{"kind": "loaded", "path": "/a", "signature": [1]}',
        b'{"kind": "loaded", "path": "/a", "signature": [1, NaN]}',
        b'{"kind": "loaded", "path": "/a", "signature": [1, 1%s]}' % (b"0" * 400),
        b'{"kind": "loaded", "path": "/a", "signature": [true, 1]}',
        b'{"kind": "loaded", "path": "/a", "more": 1}',
        b'{"kind": "forked", "pid": -1, "ages": []}',
        b'{"kind": "forked", "pid": 1, "ages": []}',
        b'{"kind": "forked", "pid": 5, "ages": [1, 2, 3, 4]}',
        b'{"kind": "told", "by": {"x": 1}, "more": {"why": ""}}',
        b'{"kind": "told", "by": {"x": true, "y": true, "z": true}, "more": {"why": ""}}',
        b'{"kind": "told", "by": {}, "more": {"why": "12345678901"}}',
    ],
    ids=lambda bad: bad[:40].decode(errors="replace"),
)
def test_bad_message_is_malformed(bad: bytes) -> None:
    with pytest.raises(Malformed):
        message.decode(bad, KINDS)


def test_mutated_messages_are_malformed_or_as_their_schema_says() -> None:
    decoded = 0
    for data in mutations([json.dumps(good).encode() for good in GOOD]):
        try:
            found = message.decode(data, KINDS)
        except Malformed:
            continue
        decoded += 1
        assert found.keys() == {"kind", *KINDS[found["kind"]]}
    assert 0 < decoded < 10_000
