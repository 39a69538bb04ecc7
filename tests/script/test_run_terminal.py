"""`wsgi-reload run` at a terminal: the program has it as if it were started by hand."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from edits import save
from harness import Session, holds, processes, wait_until
from harness.script import ENDED, RESTARTED, RUN, WATCHING

STAY = "import time\nprint({version!r}, flush=True)\nwhile True:\n    time.sleep(0.05)\n"
PATIENT = """\
import signal, time
signal.signal(signal.SIGINT, lambda *_: print("interrupted, goes on", flush=True))
print({version!r}, flush=True)
while True:
    time.sleep(0.05)
"""
# A shell with one job, as far as the terminal is concerned: it starts it, sees it stop, and has it go on. It ends in the
# way the job does.
SHELL = """\
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
signal.signal(signal.SIGTSTP, signal.SIG_IGN)
signal.signal(signal.SIGINT, lambda *_: print("the shell was interrupted", flush=True))
signal.signal(signal.SIGTERM, lambda *_: os.kill(job, signal.SIGTERM))
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    for each in (signal.SIGTTOU, signal.SIGTSTP, signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
print("job", job, flush=True)
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        break
    print("stopped", flush=True)
    while True:
        word = input()
        if word in ("fg", "quiet fg"):
            os.tcsetpgrp(0, job)
        if word != "quiet fg":
            os.killpg(job, signal.SIGCONT)
        if word != "bg":
            break
print("status", os.waitstatus_to_exitcode(status), flush=True)
"""


class Job(Session):
    """The same as a job of a shell with job control."""

    stop_status = 0

    def __init__(self, root: Path, *program: str) -> None:
        shell = str(save(root / "shell.py", SHELL))
        super().__init__(root, command=[sys.executable, shell, *RUN, *program])

    def supervisor(self) -> int:
        return int(self.said(r"job (\d+)"))


def in_front(session: Session, pid: int) -> None:
    """Wait until the program *pid* has the terminal."""
    wait_until(lambda: session.foreground() == processes.group(pid), "the program is in the foreground")


@pytest.mark.adapters
def test_a_terminal_stays_a_terminal(tmp_path: Path) -> None:
    """The program reads from, writes to and asks the size of the very terminal, and is in its foreground."""
    text = "import os, sys\nprint(*(os.isatty(n) for n in range(3)), os.get_terminal_size().columns, os.tcgetpgrp(0) == os.getpgrp())\n"
    path = save(tmp_path / "app.py", text + STAY.format(version="v1"))
    with Session(tmp_path, "app.py") as session:
        session.said("True True True 500 True\nv1")
        session.said(WATCHING)
        save(path, text + STAY.format(version="v2"))
        session.said("True True True 500 True\nv2")


def test_input(tmp_path: Path) -> None:
    """`input()` reads, also after a restart."""
    text = "while True:\n    print({version!r}, 'got', input('say: '), flush=True)\n"
    path = save(tmp_path / "app.py", text.format(version="v1"))
    with Session(tmp_path, "app.py") as session:
        session.said("say: ")
        session.type("one\n")
        session.said("v1 got one")
        session.said(WATCHING)
        save(path, text.format(version="v2"))
        session.said(RESTARTED)
        session.type("two\n")
        session.said("v2 got two")


def test_the_end_of_the_input(tmp_path: Path) -> None:
    """Ctrl-D ends the program's input, and nothing else."""
    save(
        tmp_path / "app.py",
        "import sys\nprint('read', len(sys.stdin.read()), flush=True)\n" + STAY.format(version="v1"),
    )
    with Session(tmp_path, "app.py") as session:
        session.type("a\n\x04")
        session.said("read 2\nv1")


def test_breakpoint(tmp_path: Path) -> None:
    """The debugger works."""
    save(
        tmp_path / "app.py", "secret = 6 * 7\nbreakpoint()\nprint('went on', flush=True)\n" + STAY.format(version="v1")
    )
    with Session(tmp_path, "app.py") as session:
        session.said(r"\(Pdb\) ")
        session.type("p secret\n")
        session.said("\n42\n")
        session.type("continue\n")
        session.said("went on\nv1")


def test_ctrl_c_ends_us_with_the_program(tmp_path: Path) -> None:
    """Ctrl-C reaches the program; it ends by it, and so do we."""
    save(tmp_path / "app.py", STAY.format(version="v1"))
    with Session(tmp_path, "app.py") as session:
        session.said("v1")
        session.type("\x03")
        assert session.ends() == -signal.SIGINT
        assert session.log.count("KeyboardInterrupt") == 1 and "supervisor.py" not in session.log


def test_ctrl_c_is_the_programs_own_business(tmp_path: Path) -> None:
    """A program that takes Ctrl-C and goes on, goes on; and is restarted as ever."""
    path = save(tmp_path / "app.py", PATIENT.format(version="v1"))
    with Session(tmp_path, "app.py") as session:
        session.said("v1")
        session.type("\x03")
        session.said("interrupted, goes on")
        session.type("\x03")
        session.said("interrupted, goes on", 2)
        session.said(WATCHING)
        save(path, PATIENT.format(version="v2"))
        session.said("v2")
        session.type("\x03")
        session.said("interrupted, goes on", 3)


def test_ctrl_c_while_nothing_runs(tmp_path: Path) -> None:
    """While a change is waited for, Ctrl-C ends the supervisor."""
    save(tmp_path / "app.py", "1 / 0\n")
    with Session(tmp_path, "app.py") as session:
        session.said(ENDED)
        session.type("\x03")
        assert session.ends() == -signal.SIGINT
        assert session.log.count("Traceback") == 1


def test_ctrl_c_while_the_old_one_leaves(tmp_path: Path) -> None:
    """Between two programs, Ctrl-C ends the supervisor: no other program is started."""
    leave = "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: print('leaving', flush=True))\n"
    path = save(tmp_path / "app.py", leave + STAY.format(version="v1"))
    with Session(tmp_path, "app.py", environment={"WSGI_RELOAD_KILL_AFTER": "600"}) as session:
        session.said("v1")
        session.said(WATCHING)
        save(path, leave + STAY.format(version="v2"))
        session.said("leaving")
        wait_until(lambda: session.foreground() == session.pid, "the terminal is taken back")
        # It was told to leave already; asked twice, it is not waited for.
        wait_until(lambda: session.type("\x03").exited(), "it ends")
        session.ends()
        assert "v2" not in session.log


RAW = """\
import signal, sys, termios, time, tty
before = termios.tcgetattr(0)
tty.setraw(0)
{on_term}
print("raw", flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("end", ["save", "crash"])
def test_the_echo_is_mended(tmp_path: Path, end: str) -> None:
    """However a program leaves the terminal, the next one finds it as the first one did."""
    path = save(tmp_path / "app.py", RAW.format(on_term="") if end == "save" else RAW.format(on_term="1 / 0"))
    with Session(tmp_path, "app.py") as session:
        if end == "save":
            session.said("raw")
            assert not session.echoes()
            session.said(WATCHING)
            save(path, STAY.format(version="v2"))
            session.said("v2")
        else:
            session.said(ENDED)
        wait_until(session.echoes, "what is typed is shown")


def test_a_program_that_tidies_up_the_terminal(tmp_path: Path) -> None:
    """A program that, told to leave, sets the terminal right first, does so and is not stopped for it."""
    tidy = "def leave(*_):\n    termios.tcsetattr(0, termios.TCSADRAIN, before)\n    print('tidy', flush=True)\n    sys.exit()\n"
    path = save(tmp_path / "app.py", RAW.format(on_term=tidy + "signal.signal(signal.SIGTERM, leave)"))
    with Session(tmp_path, "app.py", environment={"WSGI_RELOAD_KILL_AFTER": "600"}) as session:
        session.said("raw")
        session.said(WATCHING)
        save(path, STAY.format(version="v2"))
        session.said("tidy")
        session.said("v2")
        in_front(session, session.program())


def test_foreground_after_each_restart(tmp_path: Path) -> None:
    """The program is in the foreground, one after the other; while there is none, we are."""
    path = save(tmp_path / "app.py", STAY.format(version="v0"))
    with Session(tmp_path, "app.py") as session:
        for number in range(1, 4):
            session.said(f"v{number - 1}\n")
            in_front(session, session.program())
            save(path, STAY.format(version=f"v{number}"))
        session.said("v3")
        save(path, "1 / 0\n")
        session.said(ENDED)
        assert session.foreground() == session.pid


def test_a_window_that_is_closed(tmp_path: Path) -> None:
    """With the terminal, all of it is gone."""
    save(tmp_path / "app.py", STAY.format(version="v1"))
    with Session(tmp_path, "app.py") as session:
        session.said("v1")
        session.remember()
        session.hang_up()
        session.exit_status()
        wait_until(lambda: not session.left(), "nothing is left")
        session.forget()


def test_stopped_and_continued(tmp_path: Path) -> None:
    """Ctrl-Z stops program and supervisor, so that the shell has its turn; both go on with it."""
    path = save(tmp_path / "app.py", PATIENT.format(version="v1"))
    with Job(tmp_path, "app.py") as session:
        session.said("v1")
        job = session.supervisor()
        in_front(session, session.program())
        session.type("\x1a")
        session.said("stopped")
        assert processes.state(job) == "T"
        assert processes.state(session.program()) == "T"
        session.type("fg\n")
        wait_until(lambda: "T" not in map(processes.state, (job, session.program())), "both go on")
        wait_until(lambda: session.foreground() not in (job, session.pid), "the program has the terminal")
        session.type("\x03")
        session.said("interrupted, goes on")
        save(path, STAY.format(version="v2"))
        session.said("v2")
        session.type("\x03")
        session.said("status -2")
        session.ends()
        assert "the shell was" not in session.log


def test_in_the_background(tmp_path: Path) -> None:
    """In the background the program goes on without the terminal; when it wants to read it stops, like any job; and it has
    the terminal when the shell brings it to the front, even without a word."""
    text = "import os, time\nprint('v1', flush=True)\nwhile not os.path.exists('ask'):\n    time.sleep(0.01)\n"
    save(tmp_path / "app.py", text + "print('got', input(), flush=True)\ntime.sleep(600)\n")
    with Job(tmp_path, "app.py") as session:
        session.said("v1")
        job = session.supervisor()
        in_front(session, session.program())
        session.type("\x1a")
        session.said("stopped")
        session.type("bg\n")
        program = session.program()
        wait_until(lambda: processes.state(program) != "T", "it goes on")
        assert session.foreground() == session.pid
        save(tmp_path / "ask", "")
        wait_until(lambda: processes.state(program) == processes.state(job) == "T", "it wants to read, and both stop")
        session.type("fg\n")
        in_front(session, program)
        session.type("answer\n")
        session.said("got answer")


def test_brought_to_the_front_without_a_word(tmp_path: Path) -> None:
    """A shell that brings a running job to the front tells it nothing: it gets the terminal when it wants it."""
    text = "import os, time\nprint('v1', flush=True)\nwhile not os.path.exists('ask'):\n    time.sleep(0.01)\nprint('got', input(), flush=True)\n"
    save(tmp_path / "app.py", text)
    with Job(tmp_path, "app.py") as session:
        session.said("v1")
        in_front(session, session.program())
        session.type("\x1a")
        session.said("stopped")
        session.type("bg\nquiet fg\n")
        wait_until(lambda: session.foreground() != session.pid, "the job is in front")
        save(tmp_path / "ask", "")
        program = session.program()
        in_front(session, program)
        session.type("answer\n")
        session.said("got answer\n")
        session.said("status 0")
        session.ends()


def test_nobody_would_wake_us(tmp_path: Path) -> None:
    """Where there is no shell, Ctrl-Z stops nothing for good."""
    save(tmp_path / "app.py", PATIENT.format(version="v1"))
    with Session(tmp_path, "app.py") as session:
        session.said("v1")
        session.type("\x1a\x03")
        session.said("interrupted, goes on")


def test_a_program_that_somebody_else_stops(tmp_path: Path) -> None:
    """A program that is no job of a terminal and is stopped from elsewhere stops alone, and goes on when it is told to."""
    save(tmp_path / "app.py", PATIENT.format(version="v1"))
    with Job(tmp_path, "app.py") as session:
        session.said("v1")
        job = session.supervisor()
        program = session.program()
        in_front(session, program)
        session.type("\x1a")
        session.said("stopped")
        session.type("bg\n")
        wait_until(lambda: processes.state(program) != "T", "it goes on")
        os.kill(program, signal.SIGSTOP)
        wait_until(lambda: processes.state(program) == "T", "it has stopped")
        holds(lambda: processes.state(job) != "T", "the supervisor goes on", 0.3)
        os.kill(program, signal.SIGCONT)
        session.type("fg\n")


def test_a_terminal_that_stops_background_writers(tmp_path: Path) -> None:
    """With `stty tostop` our log is written all the same, while the program has the terminal."""
    save(tmp_path / "app.py", "import os\nos.system('stty tostop')\n" + STAY.format(version="v1"))
    with Session(tmp_path, "app.py") as session:
        session.said(WATCHING)
