"""Tells systemd (sd_notify(3)) when the service is ready, that it lives, how it is, and that it ends.

READY=1      whenever the service becomes ready
STATUS=..    a line for `systemctl status`, if it changed
WATCHDOG=1   only if every process moved since the last one: a process that hangs has systemd restart the service
STOPPING=1   at the end
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

from spinescore.runtime.text import one_line

__all__ = ["Systemd"]

_LONGER_US = 30_000_000  # for which a start may take longer
_SEND_S = 0.2


class Systemd:
    """The service manager that started this process; without one nothing is sent."""

    def __init__(self, address: str | None = None) -> None:
        """`address` is the path of its socket, or `@` and an abstract name; by default that of the environment."""
        name = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._is_ready = self._was_ready = False
        self._status = ""

    def tell(self, reasons: Sequence[str], *, moved: bool, opening: bool) -> None:
        """Tell why the service is not ready, or that it is. `opening` asks for more time, until it was ready once."""
        lines = []
        if not reasons and not self._is_ready:
            lines.append("READY=1")
        status = one_line("; ".join(reasons) or "ready")
        if status != self._status:
            lines.append(f"STATUS={status}")
        if opening and not self._was_ready:
            lines.append(f"EXTEND_TIMEOUT_USEC={_LONGER_US}")
        if moved:
            lines.append("WATCHDOG=1")
        if self._send(lines):  # or else it is told again
            self._is_ready, self._status = not reasons, status
            self._was_ready = self._was_ready or self._is_ready

    def stopping(self) -> None:
        self._send(["STOPPING=1", "STATUS=ending"])

    def _send(self, lines: Sequence[str]) -> bool:
        """Send lines in one datagram; return whether the manager has them."""
        if not self._address or not lines or sys.platform == "win32":
            return True
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_SEND_S)  # a manager that hangs must not hold up the service
            sender.sendto("\n".join(lines).encode(), self._address)
            return True
        return False
