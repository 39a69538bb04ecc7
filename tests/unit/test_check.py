"""`wsgi-reload check`: what is good, what is refused, and what is told of it; no server is needed."""

from __future__ import annotations

import json
import pwd
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from edits import save
from harness import processes, wait_until
from hup.test_hup import needs_root, our_package, python_of
from unit.test_cli import LIMIT, MODULE, cli, complaint, environment

pytestmark = pytest.mark.unit

GOOD = """\
from shop import views

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raises":
        views.fail()
    start_response("500 Oh no" if path == "/fails" else "200 OK", [])
    return [b""]

def make():
    return application

number = 1
"""
VIEWS = """\
def fail():
    return {}["missing"]
"""
ASGI = """\
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if FAIL:
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        scope["state"]["database"] = True
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/raises":
        raise LookupError("nothing there")
    status = 200 if scope["state"]["database"] else 500
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project whose package `shop` has `wsgi` and `views`."""
    save(tmp_path / "shop" / "__init__.py", "")
    save(tmp_path / "shop" / "views.py", VIEWS)
    save(tmp_path / "shop" / "wsgi.py", GOOD)
    return tmp_path


def refusal(folder: Path, *words: str) -> str:
    """What `check` says of code that it refuses."""
    status, output, errors = cli(folder, "check", *words)
    assert (status, output) == (1, ""), errors
    return errors


# -- good ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["shop.wsgi", "shop.wsgi:application", "shop.wsgi:make()", "shop/wsgi.py", "shop/wsgi.py:make()", "./site.wsgi"],
)
def test_what_is_good_is_told_in_one_line(shop: Path, target: str) -> None:
    """Each form of a target: exit code 0, and one line with the time and the files."""
    save(shop / "site.wsgi", GOOD)
    status, output, errors = cli(shop, "check", target)
    assert (status, errors) == (0, "")
    name, _, numbers = output.partition(" loads: ")
    seconds, files = numbers.split(", ")
    assert (name, files) == (target, "3 files\n") and 0 < float(seconds.removesuffix(" s")) < LIMIT


def test_names_that_are_tried(tmp_path: Path) -> None:
    """Without a name it is `application`, else `app`; where both are missing, both are named."""
    save(tmp_path / "one.py", "def app(environ, start_response): ...\n")
    save(tmp_path / "both.py", "application = print\napp = 1\n")
    save(tmp_path / "none.py", "other = print\n")
    assert cli(tmp_path, "check", "one", "both")[0] == 0
    assert refusal(tmp_path, "none") == "none refused: none.py: none.py has no callable 'application' and no 'app'\n"


def test_the_interpreter_of_the_application(shop: Path) -> None:
    """`--python`, `--chdir`: what only that interpreter finds, from where the application runs."""
    save(shop / "libraries" / "only_there.py", "")
    save(shop / "site" / "web.py", "import only_there\napp = print\n")
    python = save(shop / "python", f'#!/bin/sh\nPYTHONPATH={shop}/libraries:$PYTHONPATH exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    assert "No module named 'only_there'" in refusal(shop, "web", "--chdir", "site")
    assert cli(shop, "check", "web", "web.py", "--chdir", "site", "--python", "./python")[0] == 0


def test_it_can_be_told_from_the_outside_world(tmp_path: Path) -> None:
    """The application sees WSGI_TRIAL, and none of what it prints gets in the way."""
    save(tmp_path / "app.py", "import os\nprint('loud')\nassert os.environ['WSGI_TRIAL'] == '1'\napp = print\n")
    status, output, errors = cli(tmp_path, "check", "app:app")
    assert (status, errors) == (0, "") and output.startswith("app:app loads: ")


# -- refused ---------------------------------------------------------------------------------------------------------


def test_what_fails_is_told_as_the_servers_tell_it(shop: Path) -> None:
    """File, line, reason and traceback; no frame of ours or of the import system."""
    save(shop / "shop" / "views.py", "import os\n\nnot_there\n")
    place = "shop/views.py, line 3: NameError: name 'not_there' is not defined"
    lines = refusal(shop, "shop.wsgi:application").splitlines()
    assert lines[:2] == [f"shop.wsgi:application refused: {place}", "  Traceback (most recent call last):"]
    assert [line.strip() for line in lines if line.startswith("    File ")] == [
        f'File "{shop}/shop/wsgi.py", line 1, in <module>',
        f'File "{shop}/shop/views.py", line 3, in <module>',
    ]
    assert lines[-1] == "  NameError: name 'not_there' is not defined"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nosuch", "nosuch refused: ModuleNotFoundError: No module named 'nosuch'\n"),
        ("shop.nosuch:app", "shop.nosuch:app refused: ModuleNotFoundError: No module named 'shop.nosuch'\n"),
        ("shop.wsgi:nosuch", "shop/wsgi.py has no callable 'nosuch'\n"),
        ("shop.wsgi:number", "'number' in shop/wsgi.py is no callable: its type is int\n"),
        ("shop/wsgi.py:make2()", "shop/wsgi.py has no callable 'make2'\n"),
        ("half.py", "half.py, line 1: SyntaxError: "),
        ("leaves", "leaves.py, line 1: SystemExit: 0\n"),
        ("crashes", "the interpreter that tried it ended with exit code 7; the last it began to load was crashes.py\n"),
    ],
)
def test_what_is_refused(shop: Path, target: str, text: str) -> None:
    """Exit code 1, and the reason; a program that ends while it is imported is no good either."""
    save(shop / "half.py", "def\n")
    save(shop / "leaves.py", "raise SystemExit(0)\n")
    save(shop / "crashes.py", "import os\nos._exit(7)\n")
    errors = refusal(shop, target)
    assert text in errors and "trial_main.py" not in errors


def test_each_target_is_told(shop: Path) -> None:
    """One that is refused keeps none of the others from being tried; each has an interpreter of its own."""
    save(shop / "bad.py", "import sys\nassert 'shop' not in sys.modules, 'not alone'\nnot_there\n")
    status, output, errors = cli(shop, "check", "shop.wsgi", "bad", "shop/wsgi.py")
    assert status == 1
    assert [line.split()[0] for line in output.splitlines()] == ["shop.wsgi", "shop/wsgi.py"]
    assert errors.startswith("bad refused: bad.py, line 3: NameError")


def test_an_import_that_never_ends(tmp_path: Path) -> None:
    """`--timeout` ends it, and the line where it was is told."""
    save(tmp_path / "app.py", "import time\n\ntime.sleep(1000)\n")
    errors = refusal(tmp_path, "--timeout", "4", "app")
    assert errors.startswith("app refused: app.py, line 3: it did not load within 4 s\n")


# -- the warm-up -----------------------------------------------------------------------------------------------------


def test_requests_that_have_to_be_answered(shop: Path) -> None:
    """`--warmup`, in place of the setting; the paths are named where all is well."""
    status, output, _ = cli(shop, "check", "--warmup", "/healthz", "--warmup", "/a?b", "shop.wsgi")
    assert status == 0 and output.startswith("shop.wsgi loads and answers /healthz, /a?b: ")
    assert "GET /fails was answered with 500 Oh no" in refusal(shop, "--warmup", "/", "--warmup", "/fails", "shop.wsgi")
    errors = refusal(shop, "--warmup", "/raises", "shop.wsgi")
    assert "shop/views.py, line 2: KeyError: 'missing'\n" in errors and "warmup.py" not in errors


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no TOML reader")
def test_the_settings_of_the_project(shop: Path) -> None:
    """`warmup` and `boot_timeout` are the defaults, from the project of `--chdir`; the options win."""
    save(shop / "pyproject.toml", "[tool.wsgi_reload_hooks]\nwarmup = ['/fails']\n")
    save(shop / "slow.py", "import time\ntime.sleep(1000)\n")
    (shop / "elsewhere").mkdir()
    place = ("--chdir", str(shop))
    assert "GET /fails" in refusal(shop / "elsewhere", *place, "shop.wsgi")
    assert cli(shop, "check", "--warmup", "/", "shop.wsgi")[0] == 0
    save(shop / "pyproject.toml", "[tool.wsgi_reload_hooks]\nboot_timeout = 0.1\n")
    assert "within 0.1 s" in refusal(shop / "elsewhere", *place, "slow")
    assert cli(shop, "check", "--timeout", "20", "shop.wsgi")[0] == 0


@pytest.mark.parametrize("fail", [False, True], ids=["good", "failed"])
def test_the_warm_up_of_an_asgi_application(tmp_path: Path, fail: bool) -> None:
    """It is asked in a loop of its own, in its lifespan, without frames of the loop; one that fails is refused."""
    save(tmp_path / "web.py", f"FAIL = {fail}\n{ASGI}")
    if fail:
        expected = "web:app refused: web.py: lifespan startup failed: no database\n"
        assert refusal(tmp_path, "--warmup", "/", "web:app") == expected
    else:
        assert cli(tmp_path, "check", "--warmup", "/", "web:app")[0] == 0
        errors = refusal(tmp_path, "--warmup", "/raises", "web:app")
        assert errors.startswith("web:app refused: web.py, line 14: LookupError: nothing there\n")
        assert "asyncio" not in errors


def test_the_warm_up_of_an_asgi_application_without_a_lifespan(tmp_path: Path) -> None:
    """One that knows of no lifespan raises, and is asked all the same."""
    answer = ASGI[ASGI.index("    status =") :].replace('scope["state"]["database"]', "True")
    save(tmp_path / "web.py", f'async def app(scope, receive, send):\n    assert scope["type"] == "http"\n{answer}')
    assert cli(tmp_path, "check", "--warmup", "/", "web:app")[0] == 0


# -- for programs ----------------------------------------------------------------------------------------------------


def test_json(shop: Path) -> None:
    """A line for each target on standard output, nothing else; the exit code is the same."""
    save(shop / "bad.py", "import shop\n1 / 0\n")
    status, output, errors = cli(shop, "check", "--json", "shop.wsgi", "bad")
    good, bad = map(json.loads, output.splitlines())
    assert (status, errors) == (1, "")
    assert 0 < good.pop("seconds") < LIMIT and 0 < bad.pop("seconds") < LIMIT
    nothing = {"reason": None, "path": None, "line": None, "traceback": None}
    assert good == {"ok": True, "target": "shop.wsgi", "files": 3, **nothing}
    assert bad.pop("traceback").splitlines()[-1] == "ZeroDivisionError: division by zero"
    place = {"reason": "ZeroDivisionError: division by zero", "path": str(shop / "bad.py"), "line": 2}
    assert bad == {"ok": False, "target": "bad", "files": 2, **place}


# -- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--json"], "the following arguments are required: TARGET; see wsgi-reload check --help"),
        (["a b"], "'a b' is not like shop.wsgi, shop.wsgi:application or shop:make_app()"),
        ([""], "'' is not like shop.wsgi"),
        (["app:"], "'app:' is not like"),
        (["nosuch.py"], "nosuch.py: there is no such file"),
        (["--chdir", "nosuch", "app"], "--chdir nosuch: there is no such folder"),
        (["--python", "nosuch", "app"], "--python nosuch: there is no such program"),
        (["--python", "./plain", "app"], "--python ./plain: there is no such program"),
        (["--python", "./other", "app"], "other: does not tell its search path"),
        (["--user", "no-such-user", "app"], "argument --user: there is no user 'no-such-user'"),
        (["--timeout", "soon", "app"], "argument --timeout: 'soon' is no number of seconds, 0.1 at least"),
        (["--timeout", "inf", "app"], "argument --timeout: 'inf' is no number"),
        (["--warmup", "healthz", "app"], "'healthz' is neither a path that begins with / nor a URL"),
    ],
    ids=" ".join,
)
def test_wrong_use(tmp_path: Path, words: list[str], text: str) -> None:
    """One line, exit code 2: the option or the file is named."""
    save(tmp_path / "plain", "")
    save(tmp_path / "other", "#!/bin/sh\n").chmod(0o755)
    status, said = complaint(tmp_path, "check", *words)
    assert status == 2 and text in said


def test_a_wrong_setting(tmp_path: Path) -> None:
    """It is told in one line, as a server would."""
    save(tmp_path / "app.py", "app = print\n")
    words = [*MODULE, "check", "app"]
    variables = {**environment(), "WSGI_RELOAD_BOOT_TIMEOUT": "soon"}
    done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "setting boot_timeout = 'soon' (from WSGI_RELOAD_BOOT_TIMEOUT)" in done.stderr


# -- its end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_end_from_outside(tmp_path: Path, sig: signal.Signals) -> None:
    """A signal is its end, without a word (a shell calls that of Ctrl-C 130, and a script ends with it); what was being
    tried ends, too."""
    save(tmp_path / "app.py", "import os, time\nopen(f'pid-{os.getpid()}', 'w').close()\ntime.sleep(1000)\n")
    running = subprocess.Popen(
        [*MODULE, "check", "app"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    (began,) = wait_until(lambda: list(tmp_path.glob("pid-*")), "it is being tried")
    running.send_signal(sig)
    output, _ = running.communicate(timeout=LIMIT)
    assert (running.returncode, output) == (-sig, b"")
    wait_until(lambda: not processes.alive(int(began.name[4:])), "what was tried has ended")


@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_files(shop: Path, shell: str) -> None:
    """With its files closed it does the same, and says what it can."""
    assert cli(shop, "check", "shop.wsgi", shell=shell)[0] == 0
    assert cli(shop, "check", "shop.wsgi:nosuch", shell=shell)[0] == 1


def test_names_in_any_encoding(tmp_path: Path) -> None:
    """What an output has no character for is shown escaped."""
    save(tmp_path / "größe.py", "app = print\n")
    variables = {**environment(), "PYTHONIOENCODING": "ascii"}
    words = [*MODULE, "check", "größe", "größe:nosuch"]
    done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, timeout=LIMIT, check=False)
    assert done.stdout.startswith(rb"gr\xf6\xdfe loads: ")
    assert done.stderr.startswith(rb"gr\xf6\xdfe:nosuch refused: ")


@needs_root
def test_whose_rights() -> None:
    """As root it is tried with its own rights, or with those of `--user`."""
    python = python_of("nobody")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        save(folder / "app.py", "import os\nassert os.getuid() == 0, os.getuid()\napp = print\n")
        variables = {**environment(), **our_package(folder)}
        words = [sys.executable, "-m", "wsgi_reload_hooks", "check", "--python", python, "app"]
        for more, status in (([], 0), (["--user", "nobody"], 1)):
            done = subprocess.run(
                [*words, *more], cwd=folder, env=variables, capture_output=True, text=True, check=False
            )
            assert done.returncode == status, done.stderr
        assert f"AssertionError: {pwd.getpwnam('nobody').pw_uid}\n" in done.stderr
