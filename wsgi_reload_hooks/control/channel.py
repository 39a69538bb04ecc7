"""Connects the command line with running servers: one datagram each way, over a socket in the server's private folder.

Only the server's user and root have access: the folder's mode sees to that, and on Linux the sender's credentials.
A message is one JSON object; nothing is kept between messages.
"""

from __future__ import annotations

import _socket
import json
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from .runtime_dir import Home, homes, is_private, lives, make_home, remove_home

_SOCKET = "control"
_AT_MOST = 131072
_WAITING_AT_MOST = 64
_ANSWER_WITHIN = 10.0
_ASKED_AGAIN = 1.0
_CREDENTIALS = struct.Struct("3i")
# Bytes. Linux and macOS allow 108 and 104.
_PATH_AT_MOST = 100

Message = dict[str, Any]


class ControlSocket:
    """Receives requests in the server. Raises OSError if the private folder or the socket cannot be made.

    `receive` may be called in another thread than the rest: it takes no lock and imports nothing.
    """

    def __init__(self, kind: str, pid: int) -> None:
        self._home = make_home(kind, pid)
        try:
            self._socket = _bound(os.path.join(self._home.path, _SOCKET))
        except OSError:
            remove_home(self._home)
            raise
        self._mark = self._found()

    @property
    def reader(self) -> int:
        """Return a file descriptor that is readable when a message waits."""
        return self._socket.fileno()

    def receive(self) -> list[tuple[bytes, str]]:
        """Return the waiting messages, each with the address to `answer`; drops those of other users."""
        found = []
        for _ in range(_WAITING_AT_MOST):
            message = _received(self._socket)
            if message is None:
                break
            data, sender, user = message
            if sender and user in (None, 0, os.geteuid()):
                found.append((data, sender))
        return found

    def answer(self, whom: str, answer: Message) -> None:
        """Send *answer* to the address *whom*; never waits, and ignores a client that has ended."""
        try:
            data = _packed(answer)
            if len(data) > _AT_MOST:
                data = _packed({"error": "the answer is too long", "question": answer.get("question")})
            self._socket.sendto(data, whom)
        except (OSError, ValueError):
            return

    def renew(self) -> None:
        """Make the socket again if it was deleted (with a session's runtime folder, or with temporary files), or if
        that of an earlier leader lies there. Another thread may wait for messages meanwhile."""
        if self._mark is not None and self._found() == self._mark:
            return
        try:
            home = make_home(self._home.kind, self._home.pid)
            anew = _bound(os.path.join(home.path, _SOCKET))
        except OSError:
            # It cannot be made now; until the next call no client can reach this server.
            return
        os.dup2(anew.fileno(), self._socket.fileno(), inheritable=False)
        anew.close()
        self._home = home
        self._mark = self._found()

    def _found(self) -> tuple[int, int, int] | None:
        """Return the identity of the socket that lies at the path; None if there is none."""
        try:
            status = os.lstat(os.path.join(self._home.path, _SOCKET))
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_ctime_ns

    def leave(self) -> None:
        """Close the socket in a forked child; the parent keeps it."""
        self._socket.close()

    def withdraw(self) -> None:
        """Delete the socket's file, so that no client finds it. Another thread may still wait for messages."""
        remove_home(self._home)

    def close(self) -> None:
        """Close the socket and delete its folder when the server ends."""
        self._socket.close()
        self.withdraw()


class Unreachable(Exception):
    """Reports that a server cannot be asked; the text says why."""


class Silent(Unreachable):
    """Reports that a server did not answer in time; it may answer later."""


class Remote:
    """Sends requests to a running server, for the command line."""

    def __init__(self, home: Home) -> None:
        self.kind = home.kind
        self.pid = home.pid
        self._home = home
        self._path = os.path.join(home.path, _SOCKET)

    def __str__(self) -> str:
        return f"{self.kind} {self.pid}"

    def lives(self) -> bool:
        """Tell whether the server's process lives."""
        return lives(self._home)

    def ask(self, request: Mapping[str, Any], within: float = _ANSWER_WITHIN) -> Message:
        """Return the server's answer to *request*, *within* seconds. Raises `Unreachable`, or OSError if this process
        can make no private folder."""
        home = make_home("client", os.getpid())
        try:
            mine = _bound(os.path.join(home.path, _SOCKET))
            try:
                return self._asked(mine, request, time.monotonic() + within)
            finally:
                mine.close()
        except OSError as error:
            raise Unreachable(f"{self} cannot be reached: {error.strerror or error}") from None
        finally:
            remove_home(home)

    def _asked(self, mine: _socket.socket, request: Mapping[str, Any], until: float) -> Message:
        question = os.urandom(8).hex()
        data = _packed({**request, "question": question})
        again_at = 0.0
        while time.monotonic() < until:
            try:
                # uWSGI's leader may have been replaced meanwhile, and requests that it had not read are lost.
                if time.monotonic() >= again_at and self._is_genuine():
                    mine.sendto(data, self._path)
                    again_at = time.monotonic() + _ASKED_AGAIN
            except (ConnectionRefusedError, FileNotFoundError, BlockingIOError):
                pass
            select.select([mine], [], [], min(0.1, max(0.0, until - time.monotonic())))
            answer = self._answer(mine, question)
            if answer is not None:
                return answer
        raise Silent(f"{self} does not answer")

    def _answer(self, mine: _socket.socket, question: str) -> Message | None:
        message = _received(mine)
        if message is None or message[2] not in (None, os.geteuid()):
            return None
        answer = understood(message[0])
        return answer if answer is not None and answer.get("question") == question else None

    def _is_genuine(self) -> bool:
        """Tell whether the path is a socket of this user, in a private folder of this user."""
        try:
            status = os.lstat(self._path)
        except FileNotFoundError:
            return False
        if not (
            stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid() and is_private(os.path.dirname(self._path))
        ):
            raise Unreachable(f"{self._path} is no socket of this user's: remove it")
        return True


def remotes() -> Iterator[Remote]:
    """Yield the running servers of this user that can be asked."""
    for home in homes():
        if home.kind != "client" and os.path.lexists(os.path.join(home.path, _SOCKET)):
            yield Remote(home)


def _packed(message: Mapping[str, Any]) -> bytes:
    # Unescaped: `\u` escapes would triple the length of non-Latin paths.
    return json.dumps(message, ensure_ascii=False).encode(errors="surrogatepass")


def understood(data: bytes) -> Message | None:
    """Parse the message in *data*; None if it is no message."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _bound(path: str) -> _socket.socket:
    """Bind a socket at *path*, and replace what lies there."""
    if len(os.fsencode(path)) > _PATH_AT_MOST:
        raise OSError(f"{path} is too long for a socket: set XDG_RUNTIME_DIR or TMPDIR to a shorter one")
    # The real socket class, even if gevent has patched `socket`.
    made = _socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AT_MOST)
        if hasattr(socket, "SO_PASSCRED"):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        made.bind(path)
        # The folder's mode already keeps other users out; this is a second check.
        os.chmod(path, 0o600)
    except BaseException:
        made.close()
        raise
    return made


def _received(mine: _socket.socket) -> tuple[bytes, str, int | None] | None:
    """Receive one message: its data, the sender's path, and the sender's user if known; None if none waits."""
    try:
        data, ancillary, _, sender = mine.recvmsg(_AT_MOST, socket.CMSG_SPACE(_CREDENTIALS.size))
    except (BlockingIOError, InterruptedError, ConnectionError):
        return None
    user: int | None = None
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == getattr(socket, "SCM_CREDENTIALS", None):
            user = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])[1]
    return data, sender if isinstance(sender, str) else "", user
