"""Checks messages that come from outside, each against the schema of its kind: one decoder for all channels.

A schema is a dict: the name of each field, and a check that returns the field's value or raises `Malformed`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[object], Any]
"""Takes a decoded JSON value, and returns it if it is as wanted, else raises `Malformed`."""
Schema = Mapping[str, Check]

TEXT_AT_MOST = 65_536
_PATH_AT_MOST = 4096


class Malformed(ValueError):
    """Reports a message that is not as its schema says; the text says where."""


def decode(data: bytes | bytearray, kinds: Mapping[str, Schema], key: str = "kind") -> dict[str, Any]:
    """Return the message in *data*, one JSON object, checked against the schema that *kinds* has for its field *key*.

    Fields that may be None may be missing, and are None then. Raises `Malformed`. The caller limits the length of *data*.
    """
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON: {type(error).__name__}") from None
    if not isinstance(message, dict):
        raise Malformed("no JSON object")
    return checked(message, kinds, key)


def checked(message: Mapping[str, Any], kinds: Mapping[str, Schema], key: str = "kind") -> dict[str, Any]:
    """Return *message*, a decoded JSON object, checked as `decode` does. Raises `Malformed`."""
    kind = message.get(key)
    if not isinstance(kind, str) or kind not in kinds:
        raise Malformed(f"of no known {key}")
    return {key: kind, **fields(kinds[kind])({name: value for name, value in message.items() if name != key})}


def fields(schema: Schema) -> Check:
    """Check that a value is an object with the fields of *schema* and no other."""

    def check(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Malformed("no object")
        if not value.keys() <= schema.keys():
            raise Malformed("unknown fields")
        found = {}
        for name, each in schema.items():
            try:
                found[name] = each(value.get(name))
            except Malformed as error:
                raise Malformed(f"{name}: {error}") from None
        return found

    return check


def boolean(value: object) -> bool:
    """Check that *value* is true or false."""
    if not isinstance(value, bool):
        raise Malformed("neither true nor false")
    return value


def integer(least: int = 0, most: int = 2**63 - 1) -> Check:
    """Check that a value is a whole number from *least* to *most*."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Malformed(f"no whole number from {least} to {most}")
        return value

    return check


pid = integer(2, 2**31 - 1)
"""Checks a process id: neither a process group, nor "everyone", nor init."""


def number(value: object) -> float:
    """Check that *value* is a finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise Malformed("no number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise Malformed("no finite number")
    return found


def text(at_most: int = TEXT_AT_MOST) -> Check:
    """Check that a value is text of *at_most* characters."""

    def check(value: object) -> str:
        if not isinstance(value, str) or len(value) > at_most:
            raise Malformed(f"no text of at most {at_most} characters")
        return value

    return check


def path(value: object) -> str:
    """Check that *value* is a normal absolute path that the system can take."""
    if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
        raise Malformed("no absolute path")
    try:
        length = len(os.fsencode(value))
    except UnicodeEncodeError:
        raise Malformed("no path of this system") from None
    if length > _PATH_AT_MOST:
        raise Malformed("too long a path")
    return value


def optional(check: Check) -> Check:
    """Check that a value is None, or as *check* wants it."""
    return lambda value: None if value is None else check(value)


def listed(check: Check, at_most: int) -> Check:
    """Check that a value is a list of *at_most* values that are each as *check* wants them; returns a tuple."""

    def whole(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > at_most:
            raise Malformed(f"no list of at most {at_most} values")
        return tuple(check(each) for each in value)

    return whole


def mapping(key: Check, check: Check, at_most: int) -> Check:
    """Check that a value is an object of *at_most* entries, each name as *key* and each value as *check* wants it."""

    def whole(value: object) -> dict[Any, Any]:
        if not isinstance(value, dict) or len(value) > at_most:
            raise Malformed(f"no object of at most {at_most} entries")
        return {key(name): check(each) for name, each in value.items()}

    return whole


def row(*checks: Check) -> Check:
    """Check that a value is a list of as many values as there are *checks*, each as its check wants it; returns a tuple."""

    def whole(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(checks):
            raise Malformed(f"no list of {len(checks)} values")
        return tuple(check(each) for check, each in zip(checks, value, strict=True))

    return whole
