"""Attacks what its process was born with: writes to every pipe that it can find, what `HOSTILE` names.

`HOSTILE_PID`: a process that has nothing to do with the server.
"""

from __future__ import annotations

import json
import os
import stat
import struct

VERSION = "attacked"
STRANGER = int(os.environ["HOSTILE_PID"])
HEADER = struct.Struct(">HIB")
FRAME = 4096


def pipes():
    """The writing ends in this process of pipes that another process reads."""
    ends = {os.O_RDONLY: {}, os.O_WRONLY: {}}
    for name in os.listdir("/proc/self/fd"):
        try:
            number = int(name)
            with open(f"/proc/self/fdinfo/{name}") as file:
                flags = int(file.read().split("flags:")[1].split()[0], 8)
            status = os.fstat(number)
            if stat.S_ISFIFO(status.st_mode):
                ends[flags & os.O_ACCMODE][status.st_ino] = number
        except (OSError, KeyError):
            continue
    return [number for pipe, number in ends[os.O_WRONLY].items() if pipe not in ends[os.O_RDONLY]]


def frames(message, pid=None):
    """A message as the hooks would send it, in the name of *pid*."""
    text = json.dumps(message).encode() if not isinstance(message, bytes) else message
    room = FRAME - HEADER.size
    for start in range(0, len(text) or 1, room):
        part = text[start : start + room]
        yield HEADER.pack(len(part) + HEADER.size, pid or os.getpid(), start + room >= len(text)) + part


def odd_files():
    """Files that are no code: the arbiter reads none of them, and goes on."""
    os.mkfifo("fifo.py")
    with open("huge.py", "wb") as file:
        file.truncate(3 << 30)
    os.symlink("/dev/zero", "zero.py")
    for name in ("fifo.py", "huge.py", "zero.py", "."):
        status = os.stat(name)
        signature = [status.st_mtime_ns, status.st_size, status.st_ino]
        yield from frames({"kind": "loaded", "path": os.path.abspath(name), "signature": signature})
    yield from frames({"kind": "loaded", "path": "/proc/kmsg", "signature": [0, 0, 0]})


def endless():
    for _ in range(5000):
        yield HEADER.pack(FRAME, os.getpid(), 0) + b"x" * (FRAME - HEADER.size)


def others():
    """In the name of others: of the stranger, of init, of everyone, and of the neighbours."""
    for pid in (STRANGER, 1, 0, 2**32 - 1, os.getppid(), *range(os.getpid() - 20, os.getpid() + 20)):
        for kind in ("refused", "recycle", "forked", "delivered", "ready"):
            yield from frames({"kind": kind, "worker": pid, "age": 1, "ages": [1], "duck": True}, pid % 2**32)


def forked():
    for age in range(200):
        for pid in (STRANGER, 1, 0, -1, os.getppid()):
            yield from frames({"kind": "forked", "age": age, "worker": pid})


ATTACKS = {
    "odd files": odd_files,
    "garbage": lambda: [b"\xff\0garbage\n" * 300] * 100,
    "endless": endless,
    "others": others,
    "forked": forked,
    "files": lambda: (
        frame
        for number in range(1_000_000)
        for frame in frames({"kind": "loaded", "path": f"/nowhere/{number}.py", "signature": None})
    ),
    "path": lambda: frames({"kind": "loaded", "path": "/a\0b\ud800.py", "signature": [1, 2, 3]}),
    "relative": lambda: frames({"kind": "loaded", "path": "../../etc/passwd", "signature": [1, 2, 3]}),
    "deep": lambda: frames(b"[" * 3000),
    "types": lambda: frames({"kind": "assets", "since": "yesterday", "folders": {"x": {"y": 1}}}),
    "unknown": lambda: frames({"kind": "halt"}),
}


def attack():
    for number in pipes():
        try:
            os.set_blocking(number, True)
            for frame in ATTACKS[os.environ["HOSTILE"]]():
                os.write(number, frame)
        except OSError:
            # Nobody listens there any more.
            continue


attack()
