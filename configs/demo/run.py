#!/usr/bin/env python3
"""Serve the demo application with gunicorn and the reload: python3 configs/demo/run.py

It needs Python and nothing else. Where gunicorn is missing, the first run makes a virtual environment in the
checkout (`.venv-demo`, ignored by git) and installs it there; the hooks run from the checkout.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parent
CHECKOUT = DEMO.parent.parent
HOOKS = CHECKOUT / "wsgi_reload_hooks" / "gunicorn_conf.py"
ENVIRONMENT = CHECKOUT / ".venv-demo"
PORTS = range(8000, 8010)


def main() -> None:
    """Find or install gunicorn, say what to do, and become gunicorn."""
    if sys.version_info < (3, 10):  # noqa: UP036
        sys.exit(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}")
    options = parse()
    folder = options.folder.resolve()
    if not (folder / "app.py").is_file():
        sys.exit(f"{folder}: there is no app.py in it")
    port = choose_port(options.port)
    python = find_gunicorn() or install_gunicorn()
    tell(folder / "app.py", port, options.workers)
    os.chdir(folder)
    command = [python, "-m", "gunicorn", "-c", str(HOOKS), "--bind", f"127.0.0.1:{port}"]
    # In the place of this process: Ctrl-C and signals are gunicorn's.
    os.execv(python, [*command, "--workers", str(options.workers), "app:app"])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Serve a demo application that you edit while it runs.")
    parser.add_argument("folder", nargs="?", type=Path, default=DEMO, help="a folder with an app.py (the demo's own)")
    parser.add_argument("--port", type=int, help=f"default: the first free one from {PORTS[0]} on; 0: any")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    return parser.parse_args()


def choose_port(wanted: int | None) -> int:
    """The wanted port, or the first free one."""
    for port in PORTS if wanted is None else [wanted]:
        free = free_port(port)
        if free is not None:
            return free
        print(f"port {port} is in use", file=sys.stderr)
    sys.exit("give another one: --port 8080, or --port 0 for any")


def free_port(port: int) -> int | None:
    """The port itself, or any for 0; None when it is in use."""
    with socket.socket() as probe:
        # As gunicorn binds: connections of an earlier run that linger are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
        return int(probe.getsockname()[1])


def find_gunicorn() -> str | None:
    """An interpreter that has gunicorn: this one, or that of an earlier run."""
    if importlib.util.find_spec("gunicorn") is not None:
        return sys.executable
    python = environment_python()
    if python.exists():
        answer = subprocess.run([python, "-c", "import gunicorn"], stderr=subprocess.DEVNULL, check=False)
        if answer.returncode == 0:
            return str(python)
    return None


def install_gunicorn() -> str:
    """Make the virtual environment and install gunicorn into it."""
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("this Python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv")
    print(f"installing gunicorn into {ENVIRONMENT}", flush=True)
    python = str(environment_python())
    for command in (
        [sys.executable, "-m", "venv", str(ENVIRONMENT)],
        [python, "-m", "pip", "-q", "install", "gunicorn"],
    ):
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit("gunicorn could not be installed, the reason is above; run this again to go on from here")
    return python


def environment_python() -> Path:
    return ENVIRONMENT / "bin" / "python"


def tell(application: Path, port: int, workers: int) -> None:
    """What a newcomer does now."""
    here = Path.cwd()
    shown = application.relative_to(here) if here in application.parents else application
    print(
        f"\n  open  http://127.0.0.1:{port}  ({workers} workers answer, the page asks again every second)"
        f"\n  edit  {shown}  (it says what to try: a good save, a broken one, its repair)"
        "\n  stop  Ctrl-C\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
