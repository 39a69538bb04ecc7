"""`code_changed()`: call it now and then; false, or what changed. Each test has a fresh interpreter."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from edits import PACKAGE_ROOT, python, save, save_atomically
from harness.waiting import holds, wait_until

pytestmark = pytest.mark.unit

# In each: `ask()` is code_changed(), as text.
ASK = """
def ask():
    return {0: "no", FILE_MODIFIED: "file", I18N_MODIFIED: "i18n"}[code_changed()]
"""


def answers(folder: Path, code: str, *options: str, **environment: str) -> list[str]:
    """What *code* printed, word by word."""
    return python(ASK + textwrap.dedent(code), folder, *options, **environment).split()


# -- edits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        'save("app.py", "longer = 1")',
        'save("app.new", "x = 2"); os.replace("app.new", "app.py")',
        'save("app.py", "x = 2"); date("app.py", 1_500_000_000_000_000_000)',
        'save("app.py", "x = 2"); date("app.py", stamp + 1)',
        'save("app.new", "x = 2"); date("app.new", stamp); os.replace("app.new", "app.py")',
        'os.utime("app.py")',
    ],
    ids=["in place", "atomic", "back-dated", "same second", "same time", "touched"],
)
def test_edits_are_told_once(tmp_path: Path, edit: str) -> None:
    """However a loaded file is saved it is told, once, and the next edit is told again."""
    code = f"""
    save("app.py", "x = 1")
    stamp = 1_600_000_000_000_000_000
    date("app.py", stamp)
    import app
    print(ask(), ask())
    {edit}
    print(ask(), ask(), ask())
    save("app.py", "even_longer = 3")
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "no", "file", "no", "no", "file", "no"]


def test_nothing_but_an_edit(tmp_path: Path) -> None:
    """Rights, byte code and files that nobody loaded are no change."""
    code = """
    save("app.py", "x = 1")
    import app
    print(ask())
    os.chmod("app.py", 0o600)
    save("test_app.py", "x = 1"); save("README", "x"); save("__pycache__/app.pyc", "x")
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "no", "no"]


def test_gone_for_a_moment(tmp_path: Path) -> None:
    """A file that is gone at one call only, and then as before, is no change, also the second time."""
    code = """
    save("app.py", "x = 1")
    import app
    print(ask())
    for _ in range(2):
        os.rename("app.py", "app.bak")
        print(ask())
        os.rename("app.bak", "app.py")
        print(ask())
    """
    assert answers(tmp_path, code) == ["no"] * 5


def test_gone_for_good(tmp_path: Path) -> None:
    """A file that is gone for good is a change, told at the second call, and its return is another."""
    code = """
    save("app.py", "x = 1")
    import app
    print(ask())
    os.remove("app.py")
    print(ask(), ask(), ask())
    save("app.py", "x = 1")
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "no", "file", "no", "file", "no"]


# -- imports ---------------------------------------------------------------------------------------------------------


def test_imported_between_two_calls(tmp_path: Path) -> None:
    """A module imported after the first call is watched from its import on, though nobody asked in between."""
    code = """
    save("lazy.py", "x = 1")
    print(ask())
    import lazy
    save("lazy.py", "longer = 1")
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "file", "no"]


def test_saved_while_it_was_imported(tmp_path: Path) -> None:
    """A file that is saved while it runs is a change, after the first call and before it."""
    code = """
    save("late.py", "open('late.py', 'w').write('longer = 1')")
    date("late.py")
    print(ask())
    import late
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "file", "no"]
    code = """
    save("early.py", "open('early.py', 'w').write('longer = 1')")
    date("early.py")
    import early
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["file", "no"]


def test_saved_before_the_first_call(tmp_path: Path) -> None:
    """A file that is saved after its import and before the first call is told at that call."""
    code = """
    save("app.py", "x = 1")
    import app
    save("app.py", "longer = 1")
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["file", "no"]


@pytest.mark.parametrize("options", [(), ("-B",)], ids=["writes byte code", "-B"])
def test_old_byte_code_is_no_change(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Byte code that was not brought up to date does not make each new process reload again."""
    code = """
    save("app.py", "x = 1")
    date("app.py")
    import app
    """
    python(code, tmp_path)
    assert list((tmp_path / "__pycache__").glob("app.*"))
    (tmp_path / "app.py").write_text("longer = 1")
    for _ in range(2):
        assert answers(tmp_path, "import app\nprint(ask(), ask())", *options) == ["no", "no"]


def test_old_byte_code_of_a_lazy_module(tmp_path: Path) -> None:
    """A module that has not loaded yet is not judged by the byte code of last time."""
    code = """
    save("sleepy.py", "x = 1")
    date("sleepy.py")
    import sleepy
    """
    python(code, tmp_path)
    (tmp_path / "sleepy.py").write_text("longer = 1")
    code = """
    spec = importlib.util.find_spec("sleepy")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules["sleepy"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    print(ask(), ask(), module.longer, ask())
    """
    assert answers(tmp_path, code) == ["no", "no", "1", "no"]


def test_new_process_loads_the_new_text(tmp_path: Path) -> None:
    """After a change of the same second and size was told, a new process does not load the old byte code."""
    code = """
    save("app.py", "x = 1")
    date("app.py")
    import app
    print(ask())
    save("app.py", "x = 2")
    date("app.py", 1_600_000_000_000_000_001)
    print(ask())
    """
    assert answers(tmp_path, code) == ["no", "file"]
    assert answers(tmp_path, "import app\nprint(app.x)") == ["2"]


def test_error_file_is_watched_until_it_is_repaired(tmp_path: Path) -> None:
    """A file that failed to import is in no `sys.modules`, and its repair is told."""
    code = """
    save("broken.py", "def f(:")
    save("fails.py", "import nosuchmodule")
    print(ask())
    for name in ("broken", "fails"):
        try:
            importlib.import_module(name)
        except (SyntaxError, ImportError):
            print(name not in sys.modules)
    print(ask(), ask())
    save("broken.py", "def f(): pass")
    print(ask(), ask())
    save("fails.py", "x = 1")
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "True", "True", "no", "no", "file", "no", "file", "no"]


def test_two_baselines(tmp_path: Path) -> None:
    """Two questioners in one process are told each for itself, and imports work as before."""
    code = """
    other = CodeChanged()
    save("app.py", "x = 1")
    print(ask(), other())
    import app
    save("app.py", "longer = 1")
    print(ask(), ask(), other(), other())
    """
    assert answers(tmp_path, code) == ["no", "0", "file", "no", "1", "0"]


# -- odd modules -----------------------------------------------------------------------------------------------------


def test_odd_modules(tmp_path: Path) -> None:
    """Modules without `__file__`, with one that is no string, and things that are no modules do no harm."""
    code = """
    for name, value in [("a", None), ("b", 5), ("c", b"x.py"), ("d", Path("x.py")), ("e", ""), ("f", "a" * 300)]:
        sys.modules["odd_" + name] = module = types.ModuleType(name)
        module.__file__ = value
    for name, thing in [("g", None), ("h", 5), ("i", object()), ("j", types.SimpleNamespace()), ("k", types.ModuleType("k"))]:
        sys.modules["odd_" + name] = thing
    print(ask())
    sys.modules["odd_l"] = types.SimpleNamespace(__file__=os.path.abspath("x.py"))
    save("x.py", "x = 1")
    print(ask(), ask())
    save("x.py", "longer = 1")
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "no", "no", "file", "no"]


def test_lazy_modules_are_not_woken(tmp_path: Path) -> None:
    """A module whose attribute access runs code is watched without that code being run."""
    code = """
    save("sleepy.py", "print('AWAKE')")
    spec = importlib.util.find_spec("sleepy")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules["sleepy"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Touchy(types.ModuleType):
        def __getattribute__(self, name):
            print("AWAKE")
            return super().__getattribute__(name)
        __dict__ = property(lambda self: print("AWAKE"))
        __class__ = property(lambda self: print("AWAKE"))
    sys.modules["touchy"] = Touchy("touchy")
    print(ask())
    save("sleepy.py", "print('AWAKE too')")
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "file", "no"]


@pytest.mark.parametrize("name", ["old.pyc", "old.pyo", "old$py.class"])
def test_byte_code_names_stand_for_the_source(tmp_path: Path, name: str) -> None:
    """A module whose file is byte code is watched by its source (CherryPy's rule)."""
    code = f"""
    save("old.py", "x = 1")
    sys.modules["old"] = module = types.ModuleType("old")
    module.__file__ = os.path.abspath({name!r})
    print(ask())
    save("old.py", "longer = 1")
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "file", "no"]


def test_byte_code_without_source(tmp_path: Path) -> None:
    """A module that is there as byte code only is watched by that."""
    code = """
    import py_compile
    save("bare.py", "x = 1")
    py_compile.compile("bare.py", "bare.pyc")
    os.remove("bare.py")
    import bare
    print(ask())
    save("other.py", "longer = 1")
    py_compile.compile("other.py", "bare.pyc")
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "file", "no"]


@pytest.mark.parametrize("archive", ["lib.zip", "lib-1.0-py3.egg"])
def test_archives(tmp_path: Path, archive: str) -> None:
    """A module in a zip file or an egg is watched by its archive, imported before the first call or after it."""
    code = f"""
    def pack(text):
        with zipfile.ZipFile({archive!r}, "w") as file:
            file.writestr("inside.py", text)
            file.writestr("pkg/__init__.py", text)
    pack("x = 1")
    sys.path.insert(0, os.path.abspath({archive!r}))
    import inside
    print(ask())
    import pkg
    print(ask())
    pack("longer = 1")
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "no", "file", "no"]


def test_extension_modules_and_packages(tmp_path: Path) -> None:
    """Packages are watched by their `__init__`, whatever else is loaded by its own file."""
    code = """
    save("pkg/__init__.py", ""); save("pkg/part.py", ""); save("space/inner.py", ""); save("ext.so", "")
    import pkg.part, space.inner
    sys.modules["ext"] = module = types.ModuleType("ext")
    module.__file__ = os.path.abspath("ext.so")
    print(ask())
    for name in ("pkg/__init__.py", "pkg/part.py", "space/inner.py", "ext.so"):
        save(name, "longer = 1")
        print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no"] + ["file", "no"] * 4


# -- what is watched besides -----------------------------------------------------------------------------------------


def test_listed_files_are_born_and_die(tmp_path: Path) -> None:
    """Listed files are told when they change, appear or vanish; what was there at the first call is no news."""
    code = """
    save("t/a.html", "x")
    print(ask(), ask())
    save("t/a.html", "longer")
    print(ask(), ask())
    save("t/b.html", "x")
    print(ask(), ask())
    os.remove("t/a.html")
    print(ask(), ask(), ask())
    save("conf.yaml", "x")
    print(ask(), ask())
    save("t/.b.html.swp", "x"); save("t/c.txt", "x")
    print(ask())
    """
    expected = ["no", "no", "file", "no", "file", "no", "no", "file", "no", "file", "no", "no"]
    assert answers(tmp_path, code, WSGI_RELOAD_EXTRA_FILES="t/*.html, conf.yaml") == expected


def test_excluded_files(tmp_path: Path) -> None:
    """Excluded files are told neither when they are loaded nor when they fail to load."""
    code = """
    save("generated.py", "x = 1"); save("bad.py", "def f(:"); save("app.py", "")
    import generated
    print(ask())
    try:
        import bad
    except SyntaxError:
        pass
    save("generated.py", "longer = 1"); save("bad.py", "longer = 1")
    print(ask(), ask())
    """
    assert answers(tmp_path, code, WSGI_RELOAD_EXCLUDE="generated.py,bad.py") == ["no", "no", "no"]


LIBRARY = """
save("env/site-packages/lib.py", "x = 1")
date("env/site-packages")
sys.path.insert(0, os.path.abspath("env/site-packages"))
import lib
print(ask(), ask())
save("env/site-packages/lib.py", "longer = 1")
print(ask(), ask())
"""


def test_installed_distributions(tmp_path: Path) -> None:
    """Of installed packages one witness is watched: their metadata appearing or vanishing."""
    code = """
    os.makedirs("env/site-packages/new-1.dist-info")
    print(ask(), ask())
    os.rename("env/site-packages/new-1.dist-info", "env/site-packages/new-2.dist-info")
    print(ask(), ask())
    """
    assert answers(tmp_path, LIBRARY + textwrap.dedent(code)) == ["no", "no", "no", "no", "file", "no", "file", "no"]


def test_third_party(tmp_path: Path) -> None:
    """With `third_party` installed modules are watched like one's own."""
    assert answers(tmp_path, LIBRARY, WSGI_RELOAD_THIRD_PARTY="yes") == ["no", "no", "file", "no"]


DJANGO = """
class App:
    def __init__(self, path): self.path = os.path.abspath(path)
conf = types.ModuleType("django.conf")
conf.settings = types.SimpleNamespace(configured=True, USE_I18N=True, LOCALE_PATHS=[Path("locale").absolute()])
registry = types.ModuleType("django.apps")
apps = [App("shop"), App("site-packages/contrib")]
registry.apps = types.SimpleNamespace(ready=True, get_app_configs=lambda: apps)
sys.modules["django.conf"], sys.modules["django.apps"] = conf, registry
for place in ("locale", "shop/locale", "site-packages/contrib/locale"):
    save(place + "/de/LC_MESSAGES/django.mo", "x")
save("app.py", "x = 1")
import app
print(ask(), ask())
"""


def test_translations(tmp_path: Path) -> None:
    """Only `.mo` files changed, born or gone is `I18N_MODIFIED`; with a source among them it is `FILE_MODIFIED`."""
    code = """
    save("locale/de/LC_MESSAGES/django.mo", "longer")
    print(ask(), ask())
    save("shop/locale/de/LC_MESSAGES/django.mo", "longer")
    print(ask(), ask())
    save("shop/locale/fr/LC_MESSAGES/django.mo", "born"); save("locale/de/LC_MESSAGES/django.po", "born")
    print(ask(), ask())
    os.remove("locale/de/LC_MESSAGES/django.mo")
    print(ask(), ask(), ask())
    save("shop/locale/fr/LC_MESSAGES/django.mo", "longer"); save("app.py", "longer = 1")
    print(ask(), ask())
    save("site-packages/contrib/locale/de/LC_MESSAGES/django.mo", "somebody else's")
    print(ask())
    """
    expected = ["no", "no"] + ["i18n", "no"] * 3 + ["no", "i18n", "no"] + ["file", "no"] + ["no"]
    assert answers(tmp_path, DJANGO + textwrap.dedent(code)) == expected


@pytest.mark.parametrize(
    "state",
    ["conf.settings.configured = False", "conf.settings.USE_I18N = False", "del conf.settings", "conf = None"],
)
def test_translations_that_are_not_used(tmp_path: Path, state: str) -> None:
    """Without a configured Django that translates, `.mo` files are not looked for."""
    code = f"""
    {state}
    sys.modules["django.conf"] = conf
    save("shop/locale/it/LC_MESSAGES/django.mo", "born")
    print(ask(), ask())
    """
    assert answers(tmp_path, DJANGO + textwrap.dedent(code)) == ["no"] * 4


# -- settings, threads, cost -----------------------------------------------------------------------------------------


def test_wrong_settings_are_told_at_each_call(tmp_path: Path) -> None:
    """A wrong setting is an error at the first call and at the next one."""
    code = """
    for _ in range(2):
        try:
            code_changed()
        except SettingsError as error:
            print(str(error).split()[1])
    """
    assert answers(tmp_path, code, WSGI_RELOAD_INTERVAL="never") == ["interval", "interval"]


def test_told_to_one_thread(tmp_path: Path) -> None:
    """Of many threads that ask at once, one is told of a change."""
    code = """
    save("app.py", "x = 1")
    import app
    print(ask())
    sys.setswitchinterval(1e-6)
    for number in range(20):
        save("app.py", "x" * number + "longer = 1")
        found, barrier = [], threading.Barrier(8)
        def work():
            barrier.wait()
            found.append(code_changed())
        threads = [threading.Thread(target=work) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert sorted(found) == [0] * 7 + [FILE_MODIFIED], found
    print("ok")
    """
    assert answers(tmp_path, code) == ["no", "ok"]


def test_threads_that_import(tmp_path: Path) -> None:
    """While threads import and drop modules, asking neither fails nor sees changes."""
    code = """
    for number in range(60):
        save(f"module_{number}.py", "x = 1")
        date(f"module_{number}.py")
    ask()
    sys.setswitchinterval(1e-6)
    failures, done = [], threading.Event()
    def work(first):
        try:
            while not done.is_set():
                for number in range(first, first + 20):
                    importlib.import_module(f"module_{number}")
                    sys.modules.pop(f"module_{number}")
                    sys.modules[f"made_{number}"] = types.ModuleType("made")
                    del sys.modules[f"made_{number}"]
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 20, 40)]
    [thread.start() for thread in threads]
    try:
        told = {ask() for _ in range(300)}
    finally:
        done.set()
        [thread.join() for thread in threads]
    assert not failures, failures
    print(*told)
    """
    assert answers(tmp_path, code) == ["no"]


def test_quiet_call_costs_one_stat_a_file(tmp_path: Path) -> None:
    """A call with nothing new opens no file, each folder once at most, and lists none."""
    code = """
    for number in range(50):
        save(f"module_{number}.py", "x = 1")
        importlib.import_module(f"module_{number}")
    ask(), ask(), ask()
    stat, asked, events = os.stat, [], []
    os.stat = lambda *arguments, **options: asked.append(arguments[0]) or stat(*arguments, **options)
    sys.addaudithook(lambda event, arguments: events.append((event, *arguments)))
    answer = ask()
    seen = [event[0] for event in events if event[0] in ("os.listdir", "os.scandir", "import")]
    opened = [event[1] for event in events if event[0] == "open"]
    files = [path for path in opened if not os.path.isdir(path)]
    print(answer, len([path for path in asked if "module_" in path]), len(asked) < 60, *seen)
    print(files, len(opened) == len(set(opened)))
    """
    assert answers(tmp_path, code) == ["no", "50", "True", "[]", "True"]


def test_in_a_fork(tmp_path: Path) -> None:
    """A forked child goes on from its parent's baseline, each for itself."""
    code = """
    save("app.py", "x = 1")
    import app
    print(ask(), flush=True)
    pid = os.fork()
    if pid == 0:
        save("app.py", "longer = 1")
        print(ask(), ask(), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    print(ask(), ask())
    """
    assert answers(tmp_path, code) == ["no", "file", "no", "file", "no"]


# -- loops as people wrote them --------------------------------------------------------------------------------------

IN_A_THREAD = """
import os, sys, threading, time
sys.path.insert(0, os.getcwd())
from wsgi_reload_hooks import code_changed

def loop():
    while True:
        if code_changed():
            os._exit(3)
        time.sleep(0.05)

threading.Thread(target=loop, daemon=True).start()
import app
print("ready", flush=True)
threading.Event().wait()
"""
IN_THE_MAIN_THREAD = """
import os, sys, threading, time
sys.path.insert(0, os.getcwd())
from wsgi_reload_hooks import code_changed
import app

threading.Thread(target=threading.Event().wait, daemon=True).start()
print("ready", flush=True)
while True:
    if code_changed():
        sys.exit(3)
    time.sleep(0.05)
"""


@pytest.mark.parametrize("script", [IN_A_THREAD, IN_THE_MAIN_THREAD], ids=["in a thread", "in the main thread"])
def test_hand_written_loops(tmp_path: Path, script: str) -> None:
    """A loop around `code_changed()` ends its process with 3 after a save, and not before."""
    app = save(tmp_path / "app.py", "number = 0")
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            holds(lambda: process.poll() is None, "it runs", seconds=0.3)
            numbers = itertools.count(10)

            def ended() -> bool:
                # More than once: the first call may not have been made yet.
                save_atomically(app, f"number = {next(numbers)}")
                return process.poll() is not None

            wait_until(ended, "the loop ends its process")
            assert process.returncode == 3
        finally:
            process.kill()
