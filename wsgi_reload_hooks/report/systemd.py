"""Notifies systemd of reloads if the unit has ``Type=notify``; does nothing otherwise."""

from __future__ import annotations

# Not `socket`: gevent puts its own in the place of that one.
import _socket
import os
import time

from ..core.text import printable

_STATUS_AT_MOST = 400


def notify(text: str) -> None:
    """Send *text*, lines of NAME=VALUE, to ``NOTIFY_SOCKET``. Never waits and never raises."""
    address = os.fsencode(os.environ.get("NOTIFY_SOCKET", ""))
    if not address.startswith((b"/", b"@")):
        return
    if address.startswith(b"@"):
        address = b"\0" + address[1:]
    try:
        channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        try:
            channel.setblocking(False)
            channel.sendto(text.encode(errors="backslashreplace"), address)
        finally:
            channel.close()
    except (OSError, ValueError):
        return


def reloading() -> None:
    """Report that a reload begins: the unit is `reloading` until `ready`."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def ready(text: str) -> None:
    """Report that the reload has ended in any way; *text* is what `systemctl status` shows."""
    notify(f"READY=1\n{_status(text)}")


def status(text: str) -> None:
    """Set *text* as what `systemctl status` shows."""
    notify(_status(text))


def _status(text: str) -> str:
    return f"STATUS={printable(text)[:_STATUS_AT_MOST]}"
