"""gunicorn's log with `log_format = json`: each line of ours is one object, wherever gunicorn writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import Gunicorn, Project, wait_until

JSON = {"WSGI_RELOAD_LOG_FORMAT": "json"}
NEEDED = {"at", "level", "event", "message"}


def ours(log: str) -> list[dict[str, Any]]:
    """Our lines; a line that has our prefix is none of them."""
    assert "] reload: " not in log
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("place", ["stderr", "file"])
def test_each_line_of_ours_is_an_object(place: str, project: Project, tmp_path: Path) -> None:
    """After a good save, a HUP (gunicorn makes new handlers), a broken save and its undoing; gunicorn's lines are as ever."""
    path = tmp_path / "error.log"
    options = ["--error-logfile", str(path)] if place == "file" else []
    with Gunicorn(project, *options, workers=2, environment=JSON, wait=False) as server:

        def log() -> str:
            return path.read_text() if place == "file" and path.exists() else server.log

        def events() -> list[str]:
            return [line["event"] for line in ours(log())]

        wait_until(lambda: "watching" in events(), "it watches")
        text = (project.root / "app.py").read_text()
        project.release()
        wait_until(lambda: events()[-1] == "reloaded", "the good save")
        server.hup()
        wait_until(lambda: events().count("reloaded") == 2, "the HUP")
        good = (project.root / "app.py").read_text()
        assert good != text
        project.broken(top="undefined_name")
        wait_until(lambda: events()[-1] == "refused", "the broken save")
        project.save("app.py", good)
        wait_until(lambda: ours(log())[-1]["message"].endswith("nothing to reload"), "the undone save")
        lines = ours(log())
        assert all(set(line) >= NEEDED for line in lines)
        first, hup, bad = lines[1:4]
        assert (first["files"], first["workers"], hup["files"]) == ([str(project.root / "app.py")], 2, [])
        assert first["message"].startswith("reloaded in ") and 0 < first["seconds"] < 30
        assert (bad["level"], bad["path"], bad["line"]) == ("error", str(project.root / "app.py"), 4)
        assert bad["reason"].startswith("NameError") and bad["traceback"].endswith(bad["reason"])
        assert "] [INFO] Listening at: " in log()
        if place == "file":
            server.use_port(int(log().partition("127.0.0.1:")[2].split()[0]))
        assert server.version() == project.version
