"""README says what the product does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import GUNICORN, Gunicorn, Project, patterns

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text()
LINES_AT_MOST = 200
APPLICATION = """\
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{}"]
"""


def blocks(language: str) -> list[str]:
    """The code blocks of the README in *language*; the empty one: logs."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [block for kind, block in found if kind == language]


@pytest.mark.unit
def test_readme_is_short() -> None:
    """A newcomer reads all of it."""
    assert len(README.splitlines()) <= LINES_AT_MOST


@pytest.mark.unit
def test_first_two_commands_are_the_demo_and_the_tests() -> None:
    """After the installation, the first command is the demo and the second runs the tests."""
    install, first, second = (block.strip() for block in blocks("sh")[:3])
    assert install == "pip install ."
    assert first == "python3 configs/demo/run.py"
    assert second == "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox run"


def written(log: str, root: Path) -> list[str]:
    """The lines of the hooks in *log*, without times and pids; numbers that differ from run to run are N."""
    found = re.findall(r"^(?:\[.*\] )?(\[\w+\] reload: .*|  +.*|  \w+Error: .*)$", log, re.MULTILINE)
    text = "\n".join(found).replace(str(root), "/srv/shop")
    text = re.sub(r"(every [\d.]+ s|by events) \(\w+ engine\)", "(ENGINE)", text)
    text = re.sub(r"watching \d+ files", "watching N files", text)
    return re.sub(r"reloaded in [\d.]+ s", "reloaded in N s", text).splitlines()


@pytest.mark.adapters
@pytest.mark.skipif(not GUNICORN, reason="gunicorn is not installed")
def test_log_of_a_save_a_refusal_and_its_repair_is_real(tmp_path: Path) -> None:
    """The log at the head of the README is what gunicorn with the hooks writes."""
    project = Project(tmp_path / "shop")
    project.save("app.py", APPLICATION.format("one"))
    with Gunicorn(project, workers=2) as server:
        server.wait_for_log(patterns.WATCHING)
        project.save("app.py", APPLICATION.format("two"))
        server.wait_for_log(patterns.reloaded(r"app\.py"))
        project.save("app.py", APPLICATION.format("two") + "retrun\n")
        server.wait_for_log("  NameError: ")
        assert server.get()[1] == "two"
        project.save("app.py", APPLICATION.format("three"))
        server.wait_for_log(patterns.reloaded(r"app\.py"), 2)
        log = server.log
    (shown,) = [block for block in blocks("") if "reload: " in block]
    assert written(log, project.root) == written(shown, Path("/srv/shop"))
