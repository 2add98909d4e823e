"""Copies of audit records for the system's log, as messages of RFC 3164 to its local socket.

`logging.handlers.SysLogHandler` waits if the system's log is slow, and an object would wait with it. This never waits:
a copy that cannot be sent at once is dropped, since the record itself is in the audit log.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

__all__ = ["ADDRESS", "send"]

ADDRESS = "/dev/log"
_PRIORITY = 10 * 8 + 6  # authpriv, informational


def send(line: str) -> None:
    """Send a copy of a record, and never wait or raise."""
    if sys.platform == "win32":
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.setblocking(False)
        connection.sendto(f"<{_PRIORITY}>spinescore-audit: {line}".encode(), ADDRESS)
