"""Makes broken messages out of good ones, the same ones in every run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

COUNT = 10_000

_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**70), 10**400, 1.5, float("inf"), float("nan"), "", "x", "\0", "\ud800",
    "/", "/proc/kmsg", "../..", "/" + "x" * 5000, [], [[]], {}, {"kind": {}}, [None] * 100, list(range(1000)),
)  # fmt: skip


def mutations(samples: Sequence[bytes], count: int = COUNT, seed: int = 1) -> Iterator[bytes]:
    """Yield *count* messages made of *samples*, which are JSON: other bytes, other values, other fields, other depths."""
    rng = random.Random(seed)
    for _ in range(count):
        sample = rng.choice(samples)
        yield rng.choice((_other_bytes, _other_values, _other_values, _deep, _cut))(sample, rng)


def _other_bytes(sample: bytes, rng: random.Random) -> bytes:
    data = bytearray(sample)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(data) + 1)
        if rng.random() < 0.5 and place < len(data):
            data[place] = rng.randrange(256)
        else:
            data[place:place] = rng.randbytes(rng.randint(1, 4))
    return bytes(data)


def _other_values(sample: bytes, rng: random.Random) -> bytes:
    message = json.loads(sample)
    for _ in range(rng.randint(1, 3)):
        message = _changed(message, rng)
    return json.dumps(message).encode()


def _changed(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.3 or not value or not isinstance(value, (dict, list)):
        return rng.choice(_ODD)
    if isinstance(value, dict):
        found = dict(value)
        key = rng.choice(list(found))
        if rng.random() < 0.2:
            del found[key]
        elif rng.random() < 0.2:
            found[rng.choice(("kind", "pid", "path", "x", ""))] = rng.choice(_ODD)
        else:
            found[key] = _changed(found[key], rng)
        return found
    place = rng.randrange(len(value))
    return [*value[:place], _changed(value[place], rng), *value[place + 1 :]]


def _deep(sample: bytes, rng: random.Random) -> bytes:
    depth = rng.choice((10, 1000, 20_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"kind":', b"}")))
    place = sample.find(b":") + 1
    return sample[:place] + opening * depth + closing * rng.choice((0, depth)) + sample[place:]


def _cut(sample: bytes, rng: random.Random) -> bytes:
    return sample[: rng.randrange(len(sample))] + rng.choice((b"", b"\n", b"\0", sample))
