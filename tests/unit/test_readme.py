"""README says what the code says."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import wsgi_reload_hooks
from wsgi_reload_hooks.core.settings import Settings, table
from wsgi_reload_hooks.report.callbacks import Error, Event
from wsgi_reload_hooks.report.history import History
from wsgi_reload_hooks.report.metrics import text

pytestmark = pytest.mark.unit

README = Path(__file__).resolve().parents[2] / "README.md"
SOURCES = "\n".join(path.read_text() for path in sorted(Path(wsgi_reload_hooks.__file__).parent.rglob("*.py")))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_table_of_settings_is_the_one_in_the_code() -> None:
    """The settings are listed as `wsgi_reload_hooks.core.settings.table()` makes them."""
    found = re.search(r"<!-- settings -->\n\n(.*)\n<!-- /settings -->", README.read_text(), re.DOTALL)
    assert found is not None
    assert found[1] == table()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no TOML reader")
def test_the_example_of_settings_is_valid(tmp_path: Path) -> None:
    """The `pyproject.toml` in the README is accepted as it stands."""
    (example,) = blocks("toml")
    (tmp_path / "pyproject.toml").write_text(example)
    settings = Settings.load(str(tmp_path), {})
    assert settings.broken_start == "exit"
    assert settings.extra_files == ("templates/**/*.html", ".env")


def test_the_names_of_the_python_example_exist() -> None:
    """The import line of the README works."""
    example = next(block for block in blocks("python") if "code_changed" in block)
    namespace: dict[str, object] = {}
    exec(example, namespace)
    assert callable(namespace["code_changed"]) and callable(namespace["watch"])


def test_the_example_of_a_callback_works() -> None:
    """The function of the README gets along with an event, and its fields and the counters are those of the code."""
    posted: list[object] = []
    example = next(block for block in blocks("python") if "on_refused" in block)
    names: dict[str, Any] = {"HOOK": "", "requests": SimpleNamespace(post=lambda *words, json: posted.append(json))}
    exec(example, names)
    names["told"](Event("refused", "gunicorn", 1, "/srv/shop", error=Error("NameError: x", "/srv/shop/app.py", 3)))
    assert posted == [{"text": "NameError: x in /srv/shop/app.py, line 3"}]
    section = README.read_text().partition("## Callbacks")[2].partition("\n## ")[0]
    fields = [field.name for kind in (Event, Error) for field in dataclasses.fields(kind)]
    assert [name for name in fields if f"`{name}`" not in section] == []
    assert set(re.findall(r"wsgi_reload_\w+", section)) <= set(
        re.findall(r"^wsgi_reload_\w+", text(History()), re.MULTILINE)
    )


def test_the_log_lines_are_those_of_the_code() -> None:
    """Each log line that the troubleshooting table promises is in the code."""
    lines = re.findall(r"^\| `(?:\.\.\. |reload hooks: )(?:\.\.\.:? )?([^`]*)", README.read_text(), re.MULTILINE)
    assert len(lines) >= 27
    for line in lines:
        words = re.split(r"\d+(?: files| s)?|'.*?'|:? ?\.\.\.", line)[0].strip(" :").removesuffix(" within")
        assert words[:40] in SOURCES, line


def test_links_inside_lead_somewhere() -> None:
    """Each link to a section of the README has that section."""
    text = README.read_text()
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert len(links) > 10
    assert links - anchors == set()


def test_the_first_two_commands() -> None:
    """Who tries the first two commands of the README sees it work, and the tests pass."""
    first, second = (block.strip() for block in blocks("sh")[:2])
    assert first == "python3 configs/demo/run.py"
    assert second == "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox run"
