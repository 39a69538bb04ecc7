"""The kinds of files that uWSGI takes its options from: each as pairs of a name and a value, in their order."""

from __future__ import annotations

import importlib
import json
import os
import xml.etree.ElementTree
from typing import Any, Callable, Optional

from .console import Failure

_Pairs = Optional[list[tuple[str, str]]]


def kind_of(path: str) -> str:
    """The kind of configuration file by its *path*: one of `READERS`, or nothing."""
    ending = os.path.splitext(path)[1][1:]
    kind = {"yml": "yaml", "js": "json"}.get(ending, ending)
    return kind if kind in READERS else ""


def _ini(text: str, section: str) -> _Pairs:
    here, found, pairs = "", False, []
    for line in map(str.strip, text.split("\n")):
        if line.startswith("["):
            here = line[1:-1]
        elif line and line[0] not in ";#" and here == section:
            found = True
            name, _, value = line.partition("=")
            pairs.append((name.strip(), value.strip()))
    return pairs if found else None


def _json(text: str, section: str) -> _Pairs:
    document = json.loads(text)
    table = document.get(section) if isinstance(document, dict) else None
    if not isinstance(table, dict):
        return None
    lists = ((name, value if isinstance(value, list) else [value]) for name, value in table.items())
    return [(name, each if isinstance(each, str) else json.dumps(each)) for name, values in lists for each in values]


def _yaml(text: str, section: str) -> _Pairs:
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        raise Failure("YAML is not read without PyYAML: pip install PyYAML beside wsgi-reload-hooks") from None
    try:
        # Not loaded as values: a name may come more than once, and each value is a text.
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    table = next((value for name, value in _nodes(document) if name == section), None)
    if not isinstance(table, yaml.MappingNode):
        return None
    lists = ((name, node.value if isinstance(node.value, list) else [node]) for name, node in _nodes(table))
    return [(name, each.value) for name, nodes in lists for each in nodes if isinstance(each.value, str)]


def _nodes(node: Any) -> list[tuple[str, Any]]:
    pairs = node.value if node is not None and node.id == "mapping" else []
    return [(name.value, value) for name, value in pairs if isinstance(name.value, str)]


def _xml(text: str, section: str) -> _Pairs:
    try:
        root = xml.etree.ElementTree.fromstring(text)
    except xml.etree.ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    found = root if root.tag == section else root.find(section)
    return None if found is None else [(each.tag, (each.text or "").strip()) for each in found]


READERS: dict[str, Callable[[str, str], _Pairs]] = {"ini": _ini, "json": _json, "yaml": _yaml, "xml": _xml}
"""By kind: takes the text of a file and the name of a section; None where that is not there. Raises ValueError for a text
that is not valid, `Failure` where nothing can read it."""
