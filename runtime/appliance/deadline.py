"""The end of an exchange over the network whose time is over, whatever its library waits for."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType

__all__ = ["Deadline"]

_AGAIN_S = 1.0


class Deadline:
    """Ends the connections of an exchange after some seconds, unless it is cancelled before.

    The time-out of a socket is no limit: it begins anew with each byte.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._connection: socket.socket | None = None
        self._cancelled = threading.Event()
        threading.Thread(target=self._run, args=(seconds,), name="spinescore-deadline", daemon=True).start()

    def __enter__(self) -> Deadline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def watch(self, duplicate: socket.socket) -> None:
        """End this connection when the time is over. It is a duplicate of the one in use, and is closed here."""
        before, self._connection = self._connection, duplicate
        if before is not None:
            before.close()

    def cancel(self) -> None:
        """Leave the connection alone from now on."""
        self._cancelled.set()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self, seconds: float) -> None:
        while not self._cancelled.wait(seconds):
            self.is_over, connection = True, self._connection
            if connection is not None:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            seconds = _AGAIN_S  # a connection that is made later, or just now, has to end as well
