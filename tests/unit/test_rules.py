"""Which files count: loaded modules, listed files, and what is never ours."""

from __future__ import annotations

import inspect
import os
import re
import sys
import sysconfig
import tempfile
import types
from pathlib import Path
from typing import NoReturn

import pytest
from edits import python, save, without_rights

from wsgi_reload_hooks import Settings, SettingsError
from wsgi_reload_hooks.core.text import printable, under
from wsgi_reload_hooks.process.counters import TEMPLATES, TRANSLATIONS
from wsgi_reload_hooks.watching.globs import IGNORED_NAMES
from wsgi_reload_hooks.watching.modules import loaded_files, module_file, module_value, source_of
from wsgi_reload_hooks.watching.rules import Files

pytestmark = pytest.mark.unit


def files(
    root: Path, *, third_party: bool = False, exclude: tuple[str, ...] = (), extra: tuple[str, ...] = ()
) -> Files:
    return Files(Settings(exclude=exclude, extra_files=extra, third_party=third_party), str(root))


def listed(root: Path, *patterns: str, exclude: tuple[str, ...] = ()) -> set[str]:
    return {os.path.relpath(path, root) for path in files(root, extra=patterns, exclude=exclude).extra()}


def tree(root: Path, *names: str) -> None:
    for name in names:
        save(root / name, "")


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "folder", "answer"),
    [
        ("/srv/app/x.py", "/srv/app", True),
        ("/srv/app", "/srv/app", True),
        ("/srv/app2/x.py", "/srv/app", False),
        ("/srv/app2", "/srv/app", False),
        ("/srv/app/x.py", "/srv/app/", True),
        ("/etc/x", "/", True),
    ],
)
def test_under_minds_the_separator(path: str, folder: str, answer: bool) -> None:
    """A folder is not the prefix of its neighbour's name."""
    assert under(path, folder) is answer


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\x1b[2Jb", os.fsdecode(b"a\xff"), "a\u2028b", "a\u202eb", "a\x00b", "a\x85b"]
)
def test_printable_is_one_line_without_control(text: str) -> None:
    """Control characters, line separators and undecodable bytes are escaped."""
    shown = printable(text)
    assert shown.isprintable() and shown.startswith("a") and "\\" in shown
    shown.encode()


def test_printable_leaves_other_text_alone() -> None:
    """What can be printed is printed as it is."""
    assert printable("naïve 日本.py") == "naïve 日本.py"


@pytest.mark.parametrize(
    "name",
    [
        "app.py~", ".app.py.swp", ".app.py.swo", ".#app.py", "#app.py#", "4913", "app.py.tmp", "app.py.bak", "a.orig",
        "a.rej", "a.pyc", "a.pyo", "a$py.class", "app.py___jb_tmp___", ".goutputstream-X1", "sedAb12Cd", "a\nb.tmp",
    ],
)  # fmt: skip
def test_what_editors_leave_is_ignored(name: str) -> None:
    """Temporary files, backups and byte code are no sources."""
    assert IGNORED_NAMES.match(name)


@pytest.mark.parametrize(
    "name", ["app.py", "tmp.py", "bak.py", ".env", "sediment.py", "49130", "a.swim", "swp", "a.tmpl"]
)
def test_sources_are_not_ignored(name: str) -> None:
    """A source whose name resembles a temporary file is a source."""
    assert not IGNORED_NAMES.match(name)


# -- ours ------------------------------------------------------------------------------------------------------------


def test_project_and_editable_installs_are_ours(tmp_path: Path) -> None:
    """Files of the project count, and files elsewhere that are not in a library folder (editable installs)."""
    rules = files(tmp_path)
    assert rules.ours(str(tmp_path / "app.py"))
    assert rules.ours("/srv/checkout/src/lib/mod.py")
    assert not rules.ours(os.path.join(sysconfig.get_paths()["purelib"], "flask", "app.py"))
    assert not rules.ours(os.__file__)
    assert not rules.ours(str(tmp_path / "lib" / "python3" / "dist-packages" / "x.py"))
    assert not rules.ours(str(tmp_path / "node_modules" / "gyp" / "x.py"))


def test_neighbour_of_a_library_folder_is_ours(tmp_path: Path) -> None:
    """A folder whose name continues that of the standard library is not the standard library."""
    assert files(tmp_path).ours(sysconfig.get_paths()["stdlib"] + "-mine/x.py")


def test_project_below_an_ignored_name(tmp_path: Path) -> None:
    """What lies above the project does not count against it."""
    root = tmp_path / "node_modules" / "site-packages" / "project"
    assert files(root).ours(str(root / "app.py"))


def test_project_inside_a_library_folder() -> None:
    """A project that lies in a library folder is the project all the same."""
    library = sysconfig.get_paths()["purelib"]
    rules = files(Path(library, "project"))
    assert rules.ours(os.path.join(library, "project", "app.py"))
    assert not rules.ours(os.path.join(library, "site-packages", "x.py"))


def test_file_with_the_name_of_an_ignored_folder(tmp_path: Path) -> None:
    """The names of ignored folders mean folders."""
    assert files(tmp_path).ours(str(tmp_path / "CVS"))
    assert not files(tmp_path).ours(str(tmp_path / "CVS" / "x.py"))


def test_third_party_makes_libraries_ours(tmp_path: Path) -> None:
    """With `third_party` the libraries count, too, but never these hooks themselves."""
    rules = files(tmp_path, third_party=True)
    assert rules.ours(os.__file__)
    assert not rules.ours(inspect.getfile(Files))


def test_root_slash_makes_no_library_ours() -> None:
    """A server started in `/` does not take the standard library for the project."""
    rules = files(Path("/"))
    assert not rules.ours(os.__file__)
    assert rules.ours("/app/main.py")
    assert rules.relative("/app/main.py") == "app/main.py"


def test_excluded_files_are_not_ours(tmp_path: Path) -> None:
    """`exclude` names files at any depth, folders with all in them, and paths with a slash from the project."""
    rules = files(tmp_path, exclude=("generated.py", "vendor", "conf/*.py", "/srv/other/**/x.py"))
    assert not rules.ours(str(tmp_path / "a" / "generated.py"))
    assert not rules.ours(str(tmp_path / "a" / "vendor" / "b" / "c.py"))
    assert not rules.ours(str(tmp_path / "conf" / "x.py"))
    assert not rules.ours("/srv/other/x.py") and not rules.ours("/srv/other/a/b/x.py")
    assert rules.ours(str(tmp_path / "a" / "generated.pyx"))
    assert rules.ours(str(tmp_path / "a" / "vendor2" / "c.py"))
    assert rules.ours(str(tmp_path / "conf" / "sub" / "x.py"))
    assert rules.ours(str(tmp_path / "a" / "conf" / "x.py"))


def test_exclude_takes_back(tmp_path: Path) -> None:
    """The last entry of `exclude` that matches wins; with `!` it takes back what earlier ones matched."""
    rules = files(tmp_path, exclude=("generated/**", "!keep.py", "!generated/sub", "generated/sub/x.py"))
    assert not rules.ours(str(tmp_path / "generated" / "a.py"))
    assert rules.ours(str(tmp_path / "generated" / "keep.py"))
    assert rules.ours(str(tmp_path / "generated" / "sub" / "a.py"))
    assert not rules.ours(str(tmp_path / "generated" / "sub" / "x.py"))
    assert not files(tmp_path, exclude=("!keep.py", "keep.py")).ours(str(tmp_path / "keep.py"))


def test_names_that_begin_with_an_exclamation_mark(tmp_path: Path) -> None:
    """A backslash makes the mark a part of the name; a lone mark takes nothing back."""
    rules = files(tmp_path, exclude=("\\!a.py", "!", "b.py", "\\!c.py", "!\\!c.py"))
    assert [rules.ours(str(tmp_path / name)) for name in ("!a.py", "a.py", "b.py", "!c.py")] == [
        False, True, False, True,
    ]  # fmt: skip
    tree(tmp_path, "!a.html", "a.html", "!b.html")
    assert listed(tmp_path, "\\!*.html") == {"!a.html", "!b.html"}
    assert listed(tmp_path, "\\!a.html", "!") == {"!a.html"}


def test_names_for_the_log(tmp_path: Path) -> None:
    """Log lines have paths relative to the project, others in full, always on one line."""
    rules = files(tmp_path)
    assert rules.relative(str(tmp_path / "a" / "b.py")) == "a/b.py"
    assert rules.relative(str(tmp_path) + "2/b.py") == str(tmp_path) + "2/b.py"
    assert rules.relative(str(tmp_path / "a\nERROR b.py")) == "a\\nERROR b.py"


# -- listed files and globs ------------------------------------------------------------------------------------------


def test_globs(tmp_path: Path) -> None:
    """A name without a slash is found at any depth, `*` stays in its folder, `**` goes down."""
    tree(tmp_path, "a.html", "t/b.html", "t/u/c.html", "t/u/d.txt", "s/e.html")
    assert listed(tmp_path, "*.html") == {"a.html", "t/b.html", "t/u/c.html", "s/e.html"}
    assert listed(tmp_path, "t/*.html") == {"t/b.html"}
    assert listed(tmp_path, "t/**/*.html") == {"t/b.html", "t/u/c.html"}
    assert listed(tmp_path, "**/u/*") == {"t/u/c.html", "t/u/d.txt"}
    assert listed(tmp_path, "t/**") == {"t/b.html", "t/u/c.html", "t/u/d.txt"}
    assert listed(tmp_path, "?.html") == {"a.html", "t/b.html", "t/u/c.html", "s/e.html"}
    assert listed(tmp_path, "[ab].html", "./s//e.html") == {"a.html", "t/b.html", "s/e.html"}
    assert listed(tmp_path, "[!ab].html") == {"t/u/c.html", "s/e.html"}


def test_folder_stands_for_all_in_it(tmp_path: Path) -> None:
    """A listed folder, and one that a glob finds, mean the files in it."""
    tree(tmp_path, "t/b.html", "t/u/c.html", "t2/d.html")
    assert listed(tmp_path, "t") == listed(tmp_path, "t/") == {"t/b.html", "t/u/c.html"}
    assert listed(tmp_path, "t*") == {"t/b.html", "t/u/c.html", "t2/d.html"}


def test_name_without_glob_need_not_exist(tmp_path: Path) -> None:
    """A file that is listed by its name is watched before it is there."""
    assert listed(tmp_path, "config.yaml", "*.toml") == {"config.yaml"}


def test_globs_are_expanded_anew(tmp_path: Path) -> None:
    """A glob finds what was born after it was given."""
    rules = files(tmp_path, extra=("*.html",))
    assert rules.extra() == set()
    tree(tmp_path, "a.html")
    assert rules.extra() == {str(tmp_path / "a.html")}


def test_paths_outside_of_the_project(tmp_path: Path) -> None:
    """Listed files may lie beside the project or anywhere."""
    root = tmp_path / "project"
    tree(tmp_path, "project/x", "shared/a.html", "shared/b.txt")
    assert listed(root, "../shared/*.html") == {"../shared/a.html"}
    assert listed(root, str(tmp_path / "shared" / "*.txt")) == {"../shared/b.txt"}


@pytest.mark.parametrize("name", ["my[1]app", "a*b", "what?", "back\\slash", "plus+(x)"])
def test_project_with_glob_characters_in_its_path(tmp_path: Path, name: str) -> None:
    """The project's own path is no glob, whatever it is called."""
    root = tmp_path / name
    tree(root, "a.html", "t/b.html", "gone/c.html")
    tree(tmp_path, "myapp/no.html", "my1app/no.html", "axb/no.html", "whatx/no.html")
    assert listed(root, "*.html", exclude=("gone",)) == {"a.html", "t/b.html"}
    assert listed(root, "t/*.html") == {"t/b.html"}


@pytest.mark.parametrize("pattern", ["[!].py", "[.py", "a{2}.py", "(.py"])
def test_odd_globs_raise_nothing(tmp_path: Path, pattern: str) -> None:
    """A set that does not end, and what other globs have, is no error and no warning."""
    save(tmp_path / "q.py", "")
    assert "q.py" not in listed(tmp_path, pattern)


@pytest.mark.parametrize(
    "pattern", ["[z-a].py", "[[a]].py", "[a&&b].py", "[a--c].py", "a\\", "*a*a*a*b", "**/a/**/b/**/c"]
)
def test_pattern_that_cannot_be_used_is_one_line(tmp_path: Path, pattern: str) -> None:
    """A set with a meaning of its own in regular expressions, a lone backslash, and what would take hours to match."""
    for make in (
        lambda: files(tmp_path, extra=(pattern,)),
        lambda: Settings.load(str(tmp_path), {}, exclude=[pattern]),
    ):
        with pytest.raises(SettingsError, match=re.escape(repr(pattern)) + ".*: (not a pattern|too many asterisks)"):
            make()


def test_patterns_need_pathspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a pattern is one line that says what to install; without a pattern nothing is missed."""
    monkeypatch.setitem(sys.modules, "pathspec", None)
    assert files(tmp_path).extra() == set()
    why = r"setting exclude = 'x' \(from keyword\): pathspec is not installed; pip install pathspec"
    with pytest.raises(SettingsError, match=why):
        Settings.load(str(tmp_path), {}, exclude=["x"])
    with pytest.raises(SettingsError, match=r"pattern 't/\*\*': pathspec is not installed; pip install pathspec"):
        files(tmp_path, extra=("t/**",))


def test_pathspec_is_imported_for_patterns_only(tmp_path: Path) -> None:
    """Without a pattern the rules of the project do not import it."""
    code = """
    from wsgi_reload_hooks.watching.rules import Files
    Files(Settings.load()).extra()
    print("pathspec" in sys.modules)
    """
    assert python(code, tmp_path) == "False"


def test_what_globs_never_find(tmp_path: Path) -> None:
    """Version control, virtual environments, caches and editors' files are never found by a glob."""
    tree(
        tmp_path,
        "a.x", "b.x~", ".c.x.swp", "d.tmp", ".git/a.x", ".hg/a.x", ".svn/a.x", "node_modules/m/a.x",
        "__pycache__/a.x", ".tox/a.x", "env/pyvenv.cfg", "env/a.x", "lib/site-packages/a.x",
    )  # fmt: skip
    assert listed(tmp_path, "*") == {"a.x"}
    assert listed(tmp_path, "**/*.x") == {"a.x"}


def test_hidden_files_are_found(tmp_path: Path) -> None:
    """A glob finds hidden files, for `.env` is configuration."""
    tree(tmp_path, ".env", "conf/.secrets.env")
    assert listed(tmp_path, "*.env") == {".env", "conf/.secrets.env"}


def test_excluded_files_are_not_listed(tmp_path: Path) -> None:
    """`exclude` wins over `extra_files`, also for a plain name."""
    tree(tmp_path, "a.html", "b.html")
    assert listed(tmp_path, "*.html", "c.html", exclude=("b.html", "c.html")) == {"a.html"}


def test_extra_files_takes_back(tmp_path: Path) -> None:
    """The last entry of `extra_files` that matches wins; an entry does not take back what later ones list."""
    tree(tmp_path, "t/a.html", "t/tmp/b.html", "t/tmp/keep.html", "s/tmp/c.html")
    assert listed(tmp_path, "t/**", "!t/tmp/**") == {"t/a.html"}
    assert listed(tmp_path, "t/**", "!t/tmp", "t/tmp/keep.html") == {"t/a.html", "t/tmp/keep.html"}
    assert listed(tmp_path, "!t/a.html", "t/*") == {"t/a.html", "t/tmp/b.html", "t/tmp/keep.html"}
    assert listed(tmp_path, "*.html", "!tmp") == {"t/a.html"}
    assert listed(tmp_path, "gone.yaml", "there.yaml", "!gone.yaml") == {"there.yaml"}
    assert listed(tmp_path, "t/**", "!t/tmp/**", exclude=("*.html", "!b.html")) == set()


# -- what git ignores ------------------------------------------------------------------------------------------------


def test_globs_leave_out_what_git_ignores(tmp_path: Path) -> None:
    """Globs and folders do not list ignored files, wherever they start; a name without a glob lists its file."""
    tree(tmp_path, ".env", "a.env", "t/a.html", "t/out/b.html", "t/c.log.html")
    save(tmp_path / ".gitignore", ".env\n/t/out/\n")
    save(tmp_path / "t" / ".gitignore", "*.log.*\n")
    assert listed(tmp_path, "*.env", "t/**", "!.gitignore") == {"a.env", "t/a.html"}
    assert listed(tmp_path, "t", "!.gitignore") == {"t/a.html"}
    assert listed(tmp_path, "t/out") == listed(tmp_path, "t/out/*") == listed(tmp_path, "t/ou?/*") == set()
    assert listed(tmp_path, ".env", "t/out/b.html", "t/out/new.html") == {".env", "t/out/b.html", "t/out/new.html"}
    assert listed(tmp_path, ".env", "*.env", "!a.env") == {".env"}


def test_loaded_modules_do_not_ask_git(tmp_path: Path) -> None:
    """A loaded module counts though its file is ignored."""
    tree(tmp_path, "local.py")
    save(tmp_path / ".gitignore", "local.py\n")
    assert files(tmp_path, extra=("*.py",)).ours(str(tmp_path / "local.py"))


def test_changed_rules_of_git_count_at_the_next_look(tmp_path: Path) -> None:
    """The expansion follows the `.gitignore` files as they are written, changed and removed."""
    tree(tmp_path, "a.html", "d/b.html")
    rules = files(tmp_path, extra=("*.html",))
    both = {str(tmp_path / "a.html"), str(tmp_path / "d" / "b.html")}
    assert rules.extra() == both
    save(tmp_path / ".gitignore", "*.html\n")
    assert rules.extra() == set()
    save(tmp_path / "d" / ".gitignore", "!*.html\n")
    assert rules.extra() == {str(tmp_path / "d" / "b.html")}
    (tmp_path / ".gitignore").unlink()
    assert rules.extra() == both


def test_ignored_folders_are_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is in an ignored folder, it costs nothing."""
    tree(tmp_path, "a.html", "out/b.html", "out/deep/c.html", "d/out/e.html", "d/f.html")
    save(tmp_path / ".gitignore", "out/\n")
    entered, scandir = [], os.scandir

    def seen(path: str) -> object:
        entered.append(os.path.relpath(path, tmp_path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", seen)
    assert listed(tmp_path, "**/*.html") == {"a.html", "d/f.html"}
    assert entered == [".", "d"]
    assert listed(tmp_path, "out") == set() and entered == [".", "d"]


# -- explained -------------------------------------------------------------------------------------------------------

EXPLAINED = [
    ("app.py", "watched when it is loaded: it lies in the project"),
    ("/srv/checkout/lib.py", "watched when it is loaded: it lies in no library"),
    ("t/a.html", "watched: listed by extra_files = 't/**'"),
    ("t/new.html", "watched once it is there: listed by extra_files = 't/**'"),
    ("t/script.py", "watched: listed by extra_files = 't/**'"),
    ("t/tmp/b.html", "not watched: extra_files = '!t/tmp'"),
    ("t/tmp/c.py", "watched when it is loaded: it lies in the project"),
    (".env", "watched: listed by extra_files = '.env'"),
    ("sub/.env", "not watched: no module, and extra_files does not list it"),
    ("gone.yaml", "watched: listed by extra_files = 'gone.yaml'"),
    ("generated/x.py", "not watched: exclude = 'generated/**'"),
    ("generated/keep.py", "watched when it is loaded: it lies in the project"),
    ("t/secret.html", "not watched: exclude = 'secret.html'"),
    ("t/out/d.html", "not watched: line 2 'out/' of .gitignore, so not listed by extra_files = 't/**'"),
    ("t/out/e.py", "watched when it is loaded: it lies in the project"),
    ("t/a.html~", "not watched: an editor's temporary file, so not listed by extra_files = 't/**'"),
    (".app.py.swp", "not watched: an editor's temporary file"),
    ("t/.git/x", "not watched: in a folder .git, so not listed by extra_files = 't/**'"),
    ("t/link/a.html", "not watched: no file that can be reached, so not listed by extra_files = 't/**'"),
    ("t", "not watched: a folder; only the files in it can be"),
    ("node_modules/x.py", "not watched: third-party (in a folder node_modules); third_party = true would"),
    (os.__file__, f"not watched: third-party (in {os.path.dirname(os.__file__)}); third_party = true would"),
    (inspect.getfile(Files), "not watched: part of these hooks"),
    ("lib.egg/pkg/mod.py", "watched when it is loaded: it lies in the project"),
    ("new\nline.py", "watched when it is loaded: it lies in the project"),
    ("new\nline.css", "not watched: no module, and extra_files does not list it"),
]


@pytest.mark.parametrize(("path", "said"), EXPLAINED)
def test_explained(tmp_path: Path, path: str, said: str) -> None:
    """Each path has one line: whether it is watched, and the rule that decides."""
    tree(
        tmp_path, ".env", "sub/.env", "t/a.html", "t/script.py", "t/tmp/b.html", "t/secret.html", "t/out/d.html",
        "t/a.html~", "t/.git/x", "lib.egg",
    )  # fmt: skip
    (tmp_path / "t" / "link").symlink_to(tmp_path / "t")
    save(tmp_path / ".gitignore", ".env\nout/\n")
    rules = files(
        tmp_path,
        extra=("t/**", "!t/tmp", ".env", "gone.yaml"),
        exclude=("generated/**", "!generated/keep.py", "secret.html"),
    )
    assert rules.explain(path) == rules.explain(str(tmp_path / path)) == said
    full = str(tmp_path / path)
    assert said.startswith("watched: ") == (full in rules.extra())
    if said.startswith("watched when it is loaded"):
        assert rules.ours(full)


def test_explained_with_third_party(tmp_path: Path) -> None:
    """With `third_party` a library's file is watched like others, on one line whatever is in its name."""
    assert files(tmp_path, third_party=True).explain(os.__file__).startswith("watched when it is loaded: ")
    assert files(tmp_path, exclude=("a\nb",)).explain("a\nb") == "not watched: exclude = 'a\\nb'"


def test_odd_names_are_found(tmp_path: Path) -> None:
    """Undecodable names and names with a newline are files like others."""
    odd = os.fsdecode(b"\xff.html")
    try:
        tree(tmp_path, odd)
    except OSError:
        pytest.skip("this file system takes no undecodable names")
    tree(tmp_path, "new\nline.html", "fold\ner/x.html")
    assert listed(tmp_path, "*.html") == {odd, "new\nline.html", "fold\ner/x.html"}


def test_unreadable_folders_are_passed_over() -> None:
    """A folder that may not be read is no error; the rest is found."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        tree(root, "a.html", "closed/b.html", "closed/deep/c.html")
        (root / "closed").chmod(0)
        try:
            assert without_rights(lambda: listed(root, "*.html") == {"a.html"})
            assert without_rights(lambda: files(root).importable(str(root / "closed")) == frozenset())
            assert without_rights(lambda: files(root).ours(str(root / "closed" / "x.py")))
        finally:
            (root / "closed").chmod(0o755)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """A link to a folder above is not followed for ever."""
    tree(tmp_path, "t/a.html")
    (tmp_path / "t" / "up").symlink_to(tmp_path)
    assert listed(tmp_path, "**/*.html") == {"t/a.html"}


# -- folders that matter ---------------------------------------------------------------------------------------------


def test_importable_names(tmp_path: Path) -> None:
    """A new source, extension or package may repair an import; a README or an editor's file may not."""
    tree(
        tmp_path,
        "a.py",
        "b.so",
        "pkg/__init__.py",
        "README.md",
        ".a.py.swp",
        "c.pyc",
        "__pycache__/x",
        ".git/x",
        "d.py~",
    )
    assert files(tmp_path).importable(str(tmp_path)) == {"a.py", "b.so", "pkg"}
    assert files(tmp_path).importable(str(tmp_path / "nowhere")) == frozenset()


def test_installed_names(tmp_path: Path) -> None:
    """The metadata of a distribution is the witness of its installation."""
    tree(tmp_path, "flask/x.py", "flask-1.dist-info/METADATA", "old.egg-info/x", "mine.pth", "mod.py")
    assert files(tmp_path).installed(str(tmp_path)) == {"flask-1.dist-info", "old.egg-info", "mine.pth"}


def test_folders_of_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing module may appear in the project, beside a loaded one, or on `sys.path` outside of the libraries."""
    root, loaded, path = tmp_path / "root", tmp_path / "elsewhere", tmp_path / "path"
    site = tmp_path / "venv" / "site-packages"
    for folder in (root, loaded, path, site):
        folder.mkdir(parents=True)
    monkeypatch.chdir(root)
    monkeypatch.setattr(
        sys, "path", ["", str(path), str(site), str(tmp_path / "not there"), os.path.dirname(os.__file__)]
    )
    rules = files(root)
    assert rules.import_folders([str(loaded / "x.py")]) == {str(root), str(loaded), str(path)}
    assert rules.install_folders() == {str(site)}


# -- modules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.pyc", "m.pyo", "m$py.class", f"__pycache__/m.{sys.implementation.cache_tag}.pyc"])
def test_byte_code_stands_for_its_source(tmp_path: Path, name: str) -> None:
    """The source is watched where there is one, else the byte code itself."""
    tree(tmp_path, name)
    assert source_of(str(tmp_path / name)) == str(tmp_path / name)
    tree(tmp_path, "m.py")
    assert source_of(str(tmp_path / name)) == str(tmp_path / "m.py")


def test_archive_stands_for_what_is_in_it(tmp_path: Path) -> None:
    """A module in a zip file or an egg is watched by its archive."""
    tree(tmp_path, "lib.egg")
    assert source_of(str(tmp_path / "lib.egg" / "pkg" / "mod.pyc")) == str(tmp_path / "lib.egg")
    assert source_of(str(tmp_path / "nowhere" / "mod.py")) == str(tmp_path / "nowhere" / "mod.py")


def asked(module: object, name: str = "something") -> NoReturn:
    """Any look at a module through the usual ways is an error."""
    raise AssertionError(f"{name} was asked for")


OVERRIDES = {"__getattribute__": asked, "__dict__": property(asked), "__class__": property(asked)}
Touchy = type("Touchy", (types.ModuleType,), OVERRIDES)
NoModule = type("NoModule", (), {"__getattribute__": asked})


def test_modules_are_not_asked(tmp_path: Path) -> None:
    """To learn a module's file runs none of its code, whatever it overrides."""
    touchy = Touchy("touchy")
    vars(types.ModuleType)["__dict__"].__get__(touchy)["__file__"] = str(tmp_path / "touchy.py")
    assert module_file(touchy) == str(tmp_path / "touchy.py")
    clever = NoModule()
    object.__setattr__(clever, "__file__", str(tmp_path / "clever.py"))
    assert module_file(clever) == str(tmp_path / "clever.py")
    assert module_value(touchy, "nothing") is None


@pytest.mark.parametrize("value", [None, 5, b"/x.py", Path("/x.py"), "", ["x.py"]])
def test_files_that_are_no_strings(value: object) -> None:
    """A `__file__` that is no path as text is no file."""
    module = types.ModuleType("odd")
    module.__dict__["__file__"] = value
    assert module_file(module) is None


@pytest.mark.parametrize("module", [None, 5, "text", object(), types.ModuleType("bare"), types.SimpleNamespace(), int])
def test_modules_without_file(module: object) -> None:
    """What has no file has none, be it a module or not."""
    assert module_file(module) is None


def test_loaded_files_of_this_process() -> None:
    """The files of all modules are found, as absolute paths."""
    found = loaded_files()
    assert os.path.abspath(__file__) in found and os.path.abspath(inspect.getfile(Files)) in found
    assert all(os.path.isabs(path) for path in found)


# -- assets ----------------------------------------------------------------------------------------------------------


def with_assets(root: Path, *, exclude: tuple[str, ...] = (), extra: tuple[str, ...] = ()) -> Files:
    rules = files(root, exclude=exclude, extra=extra)
    assert rules.add_assets(TRANSLATIONS, [str(root / "locale")])
    assert rules.add_assets(TEMPLATES, [str(root / "templates"), str(root / "templates")])
    return rules


def test_assets_are_the_files_of_their_folders(tmp_path: Path) -> None:
    """Translations are `.mo` files; of a template folder all counts that is no module and nobody's temporary file."""
    german = "locale/de/LC_MESSAGES/django.mo"
    others = ("locale/de/LC_MESSAGES/django.po", "templates/page.html~", "templates/.git/x", "templates/tags.py")
    tree(tmp_path, german, "templates/page.html", "templates/shop/mail.txt", "templates/x", "app.mo", "x.html", *others)
    rules = with_assets(tmp_path)
    found = {os.path.relpath(path, tmp_path): rules.asset_kind(path) for path in rules.assets()}
    templates = dict.fromkeys(("templates/page.html", "templates/shop/mail.txt", "templates/x"), TEMPLATES)
    assert found == {german: TRANSLATIONS, **templates}
    assert [rules.asset_kind(str(tmp_path / name)) for name in (*others, "app.mo", "x.html")] == [None] * 6
    assert not rules.add_assets(TEMPLATES, [str(tmp_path / "templates")])


def test_assets_are_live(tmp_path: Path) -> None:
    """Folders may be added, appear and vanish at any time; what is gone is an asset by its name."""
    rules = files(tmp_path)
    assert rules.assets() == set()
    page = str(tmp_path / "templates" / "page.html")
    rules = with_assets(tmp_path)
    assert (rules.assets(), rules.asset_kind(page)) == (set(), TEMPLATES)
    assert str(tmp_path / "templates") in rules.walked()
    tree(tmp_path, "templates/page.html")
    assert rules.assets() == {page}
    os.remove(page)
    assert (rules.assets(), rules.asset_kind(page)) == (set(), TEMPLATES)


def test_excluded_assets(tmp_path: Path) -> None:
    """What `exclude` names is no asset."""
    tree(tmp_path, "templates/page.html", "templates/big/page.html")
    rules = with_assets(tmp_path, exclude=("templates/big",))
    assert rules.assets() == {str(tmp_path / "templates" / "page.html")}


def test_assets_are_explained(tmp_path: Path) -> None:
    """An asset says what is done with it; where it is listed or excluded, that rules."""
    tree(tmp_path, "templates/page.html", "templates/other.html", "templates/no.html", "locale/de/django.mo")
    rules = with_assets(tmp_path, exclude=("no.html",), extra=("templates/other.html",))
    assert rules.explain("templates/page.html") == "watched: templates of Django are reset, no reload"
    assert rules.explain("locale/de/django.mo") == "watched: translations of Django are reset, no reload"
    assert rules.explain("templates/other.html") == "watched: listed by extra_files = 'templates/other.html'"
    assert rules.explain("templates/no.html").startswith("not watched: ")
