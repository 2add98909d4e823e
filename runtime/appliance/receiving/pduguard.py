"""The limits on what a peer may send to the DICOM node, and the guard that reads its PDUs within them."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["LimitError", "Limits", "PduGuard"]

_HEADER_LENGTH = 6  # bytes of a PDU before its body (PS3.8, section 9.3.1)
_ASSOCIATE_RQ, _DATA = 0x01, 0x04
_READ_SIZE = 256 * 1024


@dataclass(frozen=True)
class Limits:
    """The limits that the guard holds every peer to: sizes in bytes, times in seconds."""

    max_associations: int = 10
    max_waiting: int = 32  # connections whose association has not been requested yet
    max_pdu: int = 131_072  # body of a P-DATA-TF PDU; the peer is told of it
    max_request: int = 1_048_576  # body of every other PDU
    max_object: int = 256 * 1024 * 1024
    max_memory: int = 512 * 1024 * 1024  # objects that are arriving, of all associations together
    request_s: float = 10.0  # from the connection to the request for an association, TLS handshake included
    pdu_s: float = 30.0  # from a PDU's first byte to its last
    object_s: float = 300.0  # from the first byte of an object's first PDU to its last byte
    idle_s: float = 60.0  # an association on which nothing moves is aborted


class LimitError(ConnectionError):
    """A peer went beyond a limit; pynetdicom ends the association as it does if the connection is lost."""


class PduGuard:
    """Reads the PDUs of one association within the limits; its `recv` stands in for that of pynetdicom's socket.

    pynetdicom reads a PDU with two calls: the header of 6 bytes, then a body of the length that the header states. The
    guard reads the header too, so that it knows the kind of the PDU whose body is asked for.
    """

    def __init__(
        self,
        connection: socket.socket,
        limits: Limits,
        arriving: Callable[[], int],
        refused: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection = connection
        self._limits = limits
        self._arriving = arriving
        self._refused = refused
        self._clock = clock
        self._kind = 0
        self._pdu_end = 0.0
        self._object_end: float | None = None
        self._lock = threading.Lock()  # the threads of the connection and of the association both count
        self._came: deque[int] = deque()  # bytes of the messages that came whole and are not done
        self._coming = 0  # bytes of the message that is arriving
        self.held = 0  # bytes of all these messages

    def recv(self, count: int) -> bytearray:
        """Return `count` bytes, or fewer if the peer closed the connection.

        Raises `LimitError` for a PDU or an object above the limits, and `TimeoutError` for one that arrives too slowly.
        """
        try:
            if count == _HEADER_LENGTH and self._kind == 0:
                return self._header()
            kind, self._kind = self._kind, 0
            self._admit(kind, count)
            return self._read(count)
        except OSError as error:
            if isinstance(error, (LimitError, TimeoutError)):
                self._refused(str(error) or "the peer sent too slowly")
            raise

    def message_came(self) -> None:
        """A message has come whole: the time of the next one starts anew."""
        with self._lock:
            self._came.append(self._coming)
            self._coming, self._object_end = 0, None

    def message_done(self) -> None:
        """The first of the messages that came was served, or is passed over: its bytes are no longer held."""
        with self._lock:
            self.held -= self._came.popleft() if self._came else 0

    def _header(self) -> bytearray:
        self._pdu_end = self._clock() + self._limits.pdu_s
        header = self._read(_HEADER_LENGTH)
        self._kind = header[0] if header else 0
        return header

    def _admit(self, kind: int, length: int) -> None:
        limit = self._limits.max_pdu if kind == _DATA else self._limits.max_request
        if length > limit:
            raise LimitError(f"a PDU of type {kind} claims {length} bytes; at most {limit} are read")
        if kind != _DATA:
            return
        if self._object_end is None:
            self._object_end = self._clock() + self._limits.object_s
        if self._coming + length > self._limits.max_object:
            raise LimitError(f"an object is larger than {self._limits.max_object} bytes")
        if self._arriving() + length > self._limits.max_memory:
            raise LimitError(f"objects of more than {self._limits.max_memory} bytes were arriving at the same time")
        with self._lock:
            self._coming += length
            self.held += length

    def _read(self, count: int) -> bytearray:
        received = bytearray(count)
        view, filled = memoryview(received), 0
        while filled < count:
            self.connection.settimeout(self._time_left())
            read = self.connection.recv_into(view[filled : filled + _READ_SIZE])
            if not read:
                break
            filled += read
        view.release()
        del received[filled:]
        return received

    def _time_left(self) -> float:
        end = self._pdu_end if self._object_end is None else min(self._pdu_end, self._object_end)
        left = end - self._clock()
        if left <= 0:
            raise TimeoutError("a PDU or an object took longer than the limits allow")
        return left
