"""What `msgfmt` makes, for tests that have no such tool."""

from __future__ import annotations

import struct
from collections.abc import Mapping


def mo(messages: Mapping[str, str]) -> bytes:
    """Translations in the format of GNU gettext."""
    catalog = {"": "Content-Type: text/plain; charset=UTF-8\n", **messages}
    keys = sorted(catalog)
    table = 7 * 4
    texts = table + 2 * 8 * len(keys)
    tables: tuple[list[int], list[int]] = ([], [])
    data = b""
    for entries, words in zip(tables, (keys, [catalog[key] for key in keys]), strict=False):
        for word in words:
            raw = word.encode()
            entries += [len(raw), texts + len(data)]
            data += raw + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(keys), table, table + 8 * len(keys), 0, texts)
    return head + struct.pack(f"<{4 * len(keys)}I", *tables[0], *tables[1]) + data
