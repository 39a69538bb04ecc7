"""Write the table of settings into docs/settings.md: ``PYTHONPATH=. python tests/tools/settings_page.py``."""

from __future__ import annotations

from pathlib import Path

from wsgi_reload_hooks.core.settings import ENV_PREFIX, FIELDS, Rule

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
BEGIN, END = "<!-- settings -->\n\n", "\n<!-- /settings -->"


def table() -> str:
    """The Markdown table of all settings, from the settings themselves."""
    rows = ["| setting | environment | default | what it does | allowed |", "|---|---|---|---|---|"]
    for name, field in FIELDS.items():
        rule: Rule = field.metadata["rule"]
        default = "none" if field.default in ((), "") else str(field.default).lower()
        rows.append(f"| `{name}` | `{ENV_PREFIX}{name.upper()}` | {default} | {rule.help} | {rule.allowed} |")
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """The page *text* with the table of today between its two marks. Raises ValueError where a mark is missing."""
    start = text.index(BEGIN) + len(BEGIN)
    return text[:start] + table() + text[text.index(END) :]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
