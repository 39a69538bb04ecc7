"""What of a program can be imported beside it: chosen without starting anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from edits import save

from wsgi_reload_hooks.script.candidates import Candidates
from wsgi_reload_hooks.trial.plan import Plan, Target

pytestmark = pytest.mark.unit

PYTHON = "/usr/bin/python3"
VERSION = (3, 12)
ASKS = "def main(): pass\nif __name__ == '__main__':\n    main()\n"


def trials(folder: Path, script: str | None = "app.py", *named: Target, runs: str | None = None) -> Candidates:
    """Of a program in *folder*, which has said hello."""
    path = None if script is None else str(folder / script)
    found = Candidates(named, path, ("app.py", "-v"), str(folder), str(folder), {"A": "b"})
    found.hello(PYTHON, ["/lib"], runs or path or "", VERSION)
    return found


def targets(plan: Plan | None) -> list[str]:
    """What is imported, by name."""
    return [] if plan is None else [target.name for target in plan.targets]


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    """Before anything was tried, nothing tells good code from bad."""
    found = Candidates((), str(tmp_path / "app.py"), ("app.py",), str(tmp_path), str(tmp_path), {})
    assert found.plan() is None and found.next() is None


def test_a_script_that_asks(tmp_path: Path) -> None:
    """A script that asks whether it is ``__main__`` is loaded as multiprocessing does, and after it what it has loaded."""
    app, part = save(tmp_path / "app.py", ASKS), save(tmp_path / "part.py", "")
    found = trials(tmp_path)
    found.runs([str(part), str(app)])
    plan = found.next()
    assert plan is not None
    assert plan.targets == (Target("file", str(app), alias="__mp_main__"), Target("module", "part"))
    assert plan.command == (PYTHON,) and plan.argv == ("app.py", "-v") and plan.environ == {"A": "b"}
    assert plan.path == (str(tmp_path), "/lib") and plan.folder == plan.root == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        (ASKS, True),
        ("if '__main__' == __name__: pass", True),
        ("x = 1\nif x and __name__ == '__main__': pass", True),
        ("def f():\n    if __name__ == '__main__': pass", False),
        ("print(__name__)", False),
        ("", False),
        ("def f(:", False),
        ("\0", False),
        ("if __name__ ==" + "(" * 500, False),
    ],
)
def test_does_it_ask(tmp_path: Path, text: str, asks: bool) -> None:
    """Only what asks at its top level takes part itself; what cannot be read does not."""
    app = save(tmp_path / "app.py", text)
    found = trials(tmp_path)
    found.runs([str(app)])
    assert (found.next() is not None) == asks


def test_a_script_that_is_gone(tmp_path: Path) -> None:
    """A script that cannot be read takes no part."""
    found = trials(tmp_path)
    found.runs([])
    assert found.next() is None


def test_names_of_modules(tmp_path: Path) -> None:
    """Files are imported by the names that the search path gives them; what has none is left out."""
    names = [
        "part.py", "shop/__init__.py", "shop/views.py", "shop/__main__.py", "a-b.py", "deep/er/x.py", "page.html", "so.so",
    ]  # fmt: skip
    found = trials(tmp_path, None)
    found.runs([*(str(tmp_path / name) for name in names), "/lib/inside.py", "/elsewhere/other.py"])
    assert targets(found.next()) == ["part", "shop", "shop.views", "deep.er.x", "inside"]


def test_the_longest_entry_of_the_search_path(tmp_path: Path) -> None:
    """Of two folders that hold a file, the inner one names it."""
    found = Candidates((), None, ("",), str(tmp_path), str(tmp_path), {})
    found.hello(PYTHON, [str(tmp_path / "src")], "", VERSION)
    found.runs([str(tmp_path / "src" / "x.py")])
    assert targets(found.next()) == ["x"]


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("by", ["name", "path"])
def test_what_was_started_as_a_program(tmp_path: Path, asks: bool, by: str) -> None:
    """What some Python was started with, by ``-m`` or as a script, is a program: it is imported only where it asks whether it
    is ``__main__``."""
    worker = save(tmp_path / "shop" / "worker.py", ASKS if asks else "work()\n")
    found = trials(tmp_path, None, runs="manager")
    found.hello("/other/python", ["/other"], "shop.worker" if by == "name" else str(worker), VERSION)
    found.runs([str(tmp_path / "shop" / "__init__.py"), str(worker), str(tmp_path / "part.py")])
    plan = found.next()
    assert targets(plan) == ["shop", *(["shop.worker"] if asks else []), "part"]
    # The first that said hello is the program itself.
    assert plan is not None and plan.command == (PYTHON,)


def test_a_package_that_was_started_as_a_program(tmp_path: Path) -> None:
    """``-m shop`` runs ``shop.__main__``: the package itself is imported like any other."""
    found = trials(tmp_path, None, runs="shop")
    found.runs([str(tmp_path / "shop" / "__init__.py"), str(tmp_path / "shop" / "__main__.py")])
    assert targets(found.next()) == ["shop"]


def test_one_after_the_other(tmp_path: Path) -> None:
    """All together are tried first, then less; the first that is good is the plan. In the next life of the program what did
    not go may go, and what is good is not tried again."""
    app, part = save(tmp_path / "app.py", ASKS), save(tmp_path / "part.py", "")
    found = trials(tmp_path)
    found.runs([str(app), str(part)])
    assert targets(found.next()) == [str(app), "part"]
    found.tried(False)
    assert targets(found.next()) == ["part"] and found.plan() is None
    found.tried(True)
    assert found.next() is None and targets(found.plan()) == ["part"]
    found.runs([str(app), str(part)])
    assert targets(found.next()) == [str(app), "part"]
    found.tried(True)
    found.runs([str(app), str(part)])
    assert found.next() is None and targets(found.plan()) == [str(app), "part"]


def test_a_module_that_was_renamed(tmp_path: Path) -> None:
    """A module whose file is gone is not asked for by its old name."""
    a, b = save(tmp_path / "a.py", ""), save(tmp_path / "b.py", "")
    found = trials(tmp_path, None)
    found.runs([str(a), str(b)])
    found.tried(True)
    a.rename(tmp_path / "c.py")
    assert targets(found.plan()) == ["b"]


def test_nothing_can_be_tried(tmp_path: Path) -> None:
    """Where all trials fail, nothing tells good code from bad, until the program is started again."""
    found = trials(tmp_path, None)
    found.runs([str(tmp_path / "part.py")])
    found.tried(False)
    assert found.next() is None and found.plan() is None
    found.runs([str(tmp_path / "part.py")])
    assert targets(found.next()) == ["part"]


def test_more_was_loaded(tmp_path: Path) -> None:
    """What is loaded later takes part from then on, if it can be imported."""
    found = trials(tmp_path, None)
    for name in ("a.py", "b.py"):
        save(tmp_path / name, "")
    found.runs([str(tmp_path / "a.py")])
    found.tried(True)
    found.runs([str(tmp_path / "a.py"), str(tmp_path / "b.py")])
    assert targets(found.plan()) == ["a"] and targets(found.next()) == ["a", "b"]
    found.tried(True)
    assert targets(found.plan()) == ["a", "b"]


def test_what_the_user_names(tmp_path: Path) -> None:
    """What the user names is the plan from the beginning; nothing else is tried."""
    found = trials(tmp_path, "app.py", Target("module", "shop", "app"))
    assert targets(found.plan()) == ["shop"]
    found.runs([str(tmp_path / "part.py")])
    assert found.next() is None
    plan = found.plan()
    assert plan is not None and plan.path == (str(tmp_path), "/lib")


@pytest.mark.parametrize("executable", ["", "python"])
def test_an_interpreter_that_is_unknown(tmp_path: Path, executable: str) -> None:
    """Where the interpreter is not known, nothing can be tried."""
    found = Candidates((Target("module", "shop"),), None, ("",), str(tmp_path), str(tmp_path), {})
    assert found.plan() is None
    found.hello(executable, [], "", VERSION)
    assert found.plan() is None
