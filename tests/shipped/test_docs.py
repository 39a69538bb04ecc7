"""README and docs/ say what the code does: each command and configuration in them is parsed or run."""

from __future__ import annotations

import argparse
import ast
import configparser
import dataclasses
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import GUNICORN, HAVE_UWSGI, patterns
from harness.uwsgi import PROGRAM as UWSGI_PROGRAM
from tools import settings_page

import wsgi_reload_hooks
from wsgi_reload_hooks.cli.main import COMMANDS
from wsgi_reload_hooks.cli.main import main as wsgi_reload
from wsgi_reload_hooks.core.settings import Settings
from wsgi_reload_hooks.reload.backend import Backend
from wsgi_reload_hooks.reload.machine import Phase
from wsgi_reload_hooks.report.callbacks import Error, Event
from wsgi_reload_hooks.report.history import History
from wsgi_reload_hooks.report.metrics import text as metrics

pytestmark = pytest.mark.unit

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
PAGES = {
    str(path.relative_to(CHECKOUT)): path.read_text() for path in (CHECKOUT / "README.md", *sorted(DOCS.glob("*.md")))
}
PACKAGE = Path(wsgi_reload_hooks.__file__).parent
SOURCES = "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"sh", "python", "ini", "toml", "yaml", ""}
# What a line of a log looks like in a page.
LOGGED = [
    rf"\[(INFO|ERROR)\] (?:{pattern})" for pattern in (patterns.WATCHING, patterns.RELOADED, patterns.REFUSED)
] + [r"  .*"]
# Commands that other tests run, as they stand: test_configs.py, `.ci/run`, and the second command of README.
RUN_ELSEWHERE = {
    "python3 configs/demo/run.py",
    "python3 -m venv .venv",
    ".venv/bin/pip install tox",
    ".venv/bin/tox run",
}


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of each code block in *language*, in all pages."""
    return [
        (page, re.sub(rf"^{indent}", "", block, flags=re.MULTILINE))
        for page, text in PAGES.items()
        for indent, kind, block in BLOCK.findall(text)
        if kind == language
    ]


def each_block(language: str, having: str = "") -> pytest.MarkDecorator:
    """Run a test with each code block in *language* that has the text *having*."""
    found = [(page, block) for page, block in blocks(language) if having in block]
    return pytest.mark.parametrize(
        ("page", "block"), [pytest.param(*each, id=f"{each[0]}-{place}") for place, each in enumerate(found)]
    )


def one_block(page: str, language: str, having: str) -> str:
    """The one code block of *page* in *language* with the text *having*."""
    (found,) = [block for name, block in blocks(language) if name == page and having in block]
    return found


def commands() -> list[str]:
    """Each command line that README or docs show, one by one."""
    lines = [line for _, block in blocks("sh") for line in block.splitlines()]
    lines += re.findall(r"^\| `.* \| `(.*)` \|$", PAGES["docs/production.md"], re.MULTILINE)
    found = (shlex.split(line, comments=True) for line in lines)
    return sorted({shlex.join(part) for words in found for part in split(words)})


def split(words: list[str]) -> Iterator[list[str]]:
    """The commands between `&&`, without the variables and the `sudo` before them."""
    part: list[str] = []
    for word in [*words, "&&"]:
        if word != "&&":
            part.append(word)
        elif part:
            while "=" in part[0]:
                part.pop(0)
            yield part[3:] if part[:2] == ["sudo", "-u"] else part
            part = []


# -- commands --------------------------------------------------------------------------------------------------------


def check_wsgi_reload(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line accepts it, up to the point where the command would begin."""
    begun: list[argparse.Namespace] = []
    module = importlib.import_module(f"wsgi_reload_hooks.cli.{COMMANDS[words[0]]}")

    def begin(options: argparse.Namespace) -> int:
        begun.append(options)
        return 0

    monkeypatch.setattr(module, "main", begin)
    assert wsgi_reload(words) == 0 and begun
    if words[0] == "run":
        assert begun[0].command


def check_gunicorn(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """gunicorn knows the options, and its configuration is there."""
    if not GUNICORN:
        pytest.skip("gunicorn is not installed")
    config = importlib.import_module("gunicorn.config")
    options = config.Config().parser().parse_args(words)
    if options.config is not None:
        name = options.config.replace("../wsgi-reload-hooks/", "")
        assert name in ("python:wsgi_reload_hooks.gunicorn_conf", "conf.py") or (CHECKOUT / name).is_file()


def check_uwsgi(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """uWSGI knows the options, and the file is there."""
    if not HAVE_UWSGI:
        pytest.skip("uWSGI is not installed")
    help_text = subprocess.run([UWSGI_PROGRAM, "--help"], capture_output=True, text=True, check=False).stdout
    known = set(re.findall(r"--[\w-]+", help_text))
    assert {word for word in words if word.startswith("--")} <= known
    assert all((CHECKOUT / word).is_file() for word in words if word.endswith(".ini"))


def check_pip(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed is this project, an extra of it, or a package that an extra names."""
    project = (CHECKOUT / "pyproject.toml").read_text()
    extras = dict(re.findall(r'^(\w+) = \["(\w+)>=.*"\]$', project, re.MULTILINE))
    assert words[0] == "install"
    for word in words[1:]:
        named = re.fullmatch(r"(?:\.|wsgi-reload-hooks)\[(\w+)\]", word)
        assert word == "." or (named[1] in extras if named else word in extras.values())


def check_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark that has these options, or `-m wsgi_reload_hooks`."""
    if words[:2] == ["-m", "wsgi_reload_hooks"]:
        check_wsgi_reload(words[2:], monkeypatch)
        return
    script = CHECKOUT / words[0]
    assert script.is_file() and script.parent.name == "benchmarks"
    answer = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip("what the benchmark needs is not installed")
    assert {word for word in words[1:] if word.startswith("--")} <= set(re.findall(r"--[\w-]+", answer.stdout))


def check_systemctl(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit is one of the examples."""
    unit = words[-1] if "." in words[-1] else f"{words[-1]}.service"
    assert words[0] in ("reload", "enable") and (CHECKOUT / "configs" / "systemd" / unit).is_file()


def check_file_option(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is given a file of the checkout: the file is there. test_configs_deploy.py runs it."""
    files = [word for word in words if word.startswith("configs/")]
    assert all((CHECKOUT / file).is_file() for file in files)
    assert files or words == ["compose", "up", "--watch"]


def check_tox(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment exists."""
    assert words[:2] == ["run", "-e"]
    assert f"[testenv:{words[2]}]" in (CHECKOUT / "tox.ini").read_text()


def check_words(*expected: str) -> Callable[[list[str], pytest.MonkeyPatch], None]:
    """Exactly these words after the program's name."""

    def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        assert words == list(expected)

    return check


CHECKS: dict[str, Callable[[list[str], pytest.MonkeyPatch], None]] = {
    "wsgi-reload": check_wsgi_reload,
    "gunicorn": check_gunicorn,
    "uwsgi": check_uwsgi,
    "pip": check_pip,
    "python": check_python,
    "systemctl": check_systemctl,
    "docker": check_file_option,
    "honcho": check_file_option,
    "supervisord": check_file_option,
    "tox": check_tox,
    "git": check_words("pull"),
    "eval": check_words("$(register-python-argcomplete wsgi-reload)"),
}


@pytest.mark.parametrize("command", [each for each in commands() if each not in RUN_ELSEWHERE])
def test_shown_command_is_accepted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line of README or docs is known to the program that it names."""
    program, *words = shlex.split(command)
    CHECKS[program](words, monkeypatch)


def test_each_command_that_is_run_elsewhere_is_shown() -> None:
    """The list of commands that other tests run names no other ones."""
    assert set(commands()) >= RUN_ELSEWHERE


# -- configurations and code -----------------------------------------------------------------------------------------


def test_each_block_has_a_language_that_is_checked() -> None:
    """No code block of a kind that no test reads."""
    assert {kind for text in PAGES.values() for _, kind, _ in BLOCK.findall(text)} == LANGUAGES
    # The pattern has found all of them.
    assert sum(text.count("```") for text in PAGES.values()) == 2 * sum(len(BLOCK.findall(t)) for t in PAGES.values())


@each_block("python")
def test_shown_code_compiles_and_its_imports_work(page: str, block: str) -> None:
    """Python in README and docs has no syntax error, and what it imports of ours and of gunicorn exists."""
    for node in ast.walk(ast.parse(block, page)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            line = ast.unparse(node)
            if "gunicorn.app" in line and not GUNICORN:
                pytest.skip("gunicorn is not installed")
            if line != "from app import app":
                exec(line, {})


@each_block("ini")
def test_shown_ini_is_in_the_examples(page: str, block: str) -> None:
    """Lines of an ini file or a unit are lines of those in configs/, which are run as they stand."""
    configparser.ConfigParser(strict=False, interpolation=None).read_string(
        block if block.startswith("[") else f"[uwsgi]\n{block}"
    )
    folder = "systemd" if "[Service]" in block else "uwsgi"
    known = "\n".join(path.read_text() for path in (CHECKOUT / "configs" / folder).iterdir()).splitlines()
    assert [line for line in block.splitlines() if line not in known] == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no TOML reader")
@each_block("toml")
def test_shown_settings_are_valid(page: str, block: str, tmp_path: Path) -> None:
    """A `pyproject.toml` is accepted as it stands."""
    (tmp_path / "pyproject.toml").write_text(block)
    assert Settings.load(str(tmp_path), {}).sources


@each_block("yaml")
def test_shown_yaml_names_commands_that_exist(page: str, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook of pre-commit and the service of compose start what is accepted."""
    document = pytest.importorskip("yaml").safe_load(block)
    if isinstance(document, list):
        program, *words = shlex.split(document[0]["hooks"][0]["entry"])
    else:
        service = document["services"]["shop"]
        assert [each["action"] for each in service["develop"]["watch"]] == ["sync", "rebuild"]
        program, *words = service["command"]
    CHECKS[program](words, monkeypatch)


@each_block("", having="] reload: ")
def test_shown_log_has_the_form_of_the_log(page: str, block: str) -> None:
    """Log lines in README and docs are such as the servers write."""
    assert [line for line in block.splitlines() if not any(re.fullmatch(each, line) for each in LOGGED)] == []


@pytest.mark.parametrize("way", ["inside", "ready"])
def test_shown_gunicorn_from_code_is_the_program_that_is_run(way: str) -> None:
    """Both ways for `BaseApplication` are the programs in tests/apps/from_code, but for the port."""
    having = (
        "gunicorn_conf.when_ready" if way == "ready" else "def load_config(self):\n        import wsgi_reload_hooks"
    )
    shown = one_block("docs/gunicorn.md", "python", having).replace("127.0.0.1:8000", "127.0.0.1:0")
    assert shown in (CHECKOUT / "tests" / "apps" / "from_code" / f"{way}.py").read_text()


@pytest.mark.parametrize("trial", [False, True])
def test_shown_guard_of_a_trial_works(trial: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that is not to run in a trial runs elsewhere."""
    monkeypatch.delenv("WSGI_TRIAL", raising=False)
    if trial:
        monkeypatch.setenv("WSGI_TRIAL", "1")
    called: list[bool] = []
    exec(
        one_block("docs/uwsgi.md", "python", "WSGI_TRIAL"),
        {"os": importlib.import_module("os"), "register": lambda: called.append(True)},
    )
    assert called == ([] if trial else [True])


def test_shown_callback_works() -> None:
    """The function gets along with an event; the fields and counters that are named are those of the code."""
    posted: list[object] = []
    names: dict[str, Any] = {"HOOK": "", "requests": SimpleNamespace(post=lambda *words, json: posted.append(json))}
    exec(one_block("docs/commands.md", "python", "on_refused"), names)
    names["refused"](Event("refused", "gunicorn", 1, "/srv/shop", error=Error("NameError: x", "/srv/shop/app.py", 3)))
    assert posted == [{"text": "NameError: x in /srv/shop/app.py, line 3"}]
    page = PAGES["docs/commands.md"]
    fields = [field.name for kind in (Event, Error) for field in dataclasses.fields(kind)]
    assert [name for name in fields if f"`{name}`" not in page] == []
    counters = set(re.findall(r"wsgi_reload_\w+", page)) - {"wsgi_reload_hooks"}
    assert counters and counters <= set(re.findall(r"^wsgi_reload_\w+", metrics(History()), re.MULTILINE))


# -- pages -----------------------------------------------------------------------------------------------------------


def test_settings_page_agrees_with_the_table() -> None:
    """tests/tools/settings_page.py would change nothing."""
    assert settings_page.page(PAGES["docs/settings.md"]) == PAGES["docs/settings.md"]


def test_log_lines_of_troubleshooting_are_in_the_code() -> None:
    """Each log line that the troubleshooting page explains is written somewhere."""
    page = PAGES["docs/troubleshooting.md"]
    lines = re.findall(r"^\| `(?:\.\.\. |reload: )(?:\.\.\.:? )?([^`]*)", page, re.MULTILINE)
    assert len(lines) == len(re.findall(r"^\| `(?!app:app)", page, re.MULTILINE)) >= 50
    for line in [*lines, "app:app does not load now: served as WSGI"]:
        # What differs from time to time is not in the code.
        parts = re.split(r"app:app |\d+(?:\.\d+)?(?: files| s)?|'.*?'|\(\w+\)?|:? ?\.\.\.|: ", line)
        words = max((part.strip(" :,") for part in parts), key=len).removesuffix(" within")
        assert words[:40] in SOURCES or f'verb = "{words.removesuffix(" in")}"' in SOURCES, line


def test_map_names_each_folder_with_its_level() -> None:
    """The table in "how it works" has the folders of the package, with the levels that they name themselves."""
    shown = re.findall(r"^\| (\d) \| `(\w+)` \|", PAGES["docs/how-it-works.md"], re.MULTILINE)
    real = {
        (level[1], path.parent.name)
        for path in PACKAGE.glob("*/__init__.py")
        if (level := re.match(r'"""Level (\d)', path.read_text())) is not None
    }
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == {folder for _, folder in real}
    assert sorted(shown) == sorted(real)
    assert [int(level) for level, _ in shown] == sorted((int(level) for level, _ in shown), reverse=True)


def test_how_it_works_names_the_machine_as_it_is() -> None:
    """The phases are those of the machine, the methods those of a backend, the files those of the package."""
    page = PAGES["docs/how-it-works.md"]
    assert re.findall(r"^\| ([A-Z]+) \|", page, re.MULTILINE) == [phase.name for phase in Phase]
    assert all(hasattr(Backend, name) for name in re.findall(r"`((?:start|poll)_\w+)`", page))
    files = re.findall(r"`(\w+/\w+\.py)`", page)
    assert files and all((PACKAGE / name).is_file() for name in files)


def test_benchmark_figures_have_versions_and_a_date() -> None:
    """Above each table of the comparison stand a version and a day."""
    for section in PAGES["docs/comparison.md"].split("\n## ")[1:]:
        before = section.partition("\n| ")[0]
        assert re.search(r"\b20\d\d-\d\d-\d\d\b", before) and re.search(r"\d+\.\d+\.\d+", before), section[:40]


def anchors(text: str) -> set[str]:
    """The anchors of the titles in *text*."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Each link to a file or a title has that."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]) if not link.startswith("https://")]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (CHECKOUT / page).parent / path if path else CHECKOUT / page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_each_page_is_reached_from_the_readme() -> None:
    """README links to every page."""
    assert {f"docs/{path.name}" for path in DOCS.glob("*.md")} <= set(re.findall(r"\]\(([^)#]+)", PAGES["README.md"]))
