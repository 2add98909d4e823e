"""The guard in front of pynetdicom's server: limits on connections, TLS handshakes, PDUs, objects and time.

pynetdicom 3.0 accepts a PDU of any length, waits for a TLS handshake in the loop that accepts connections, and lets
connections without an association take the places of others. The guard replaces these parts: a server class, a request
handler, and the `recv` of an association's socket. They use names of pynetdicom that are not public, so the extra
`appliance` allows 3.0 only, and a test fails if a name is gone.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from spinescore.runtime.appliance.fault import Refusal

__all__ = ["GuardedServer", "Limits", "PduGuard", "items_of"]

_HEADER_LENGTH = 6  # bytes of a PDU before its body (PS3.8, section 9.3.1)
_ASSOCIATE_RQ, _DATA = 0x01, 0x04
_READ_SIZE = 256 * 1024

_Value = TypeVar("_Value")


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
        self.held = 0  # bytes of the object that is arriving

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

    def object_done(self) -> None:
        """The object that arrived was stored or refused: its bytes are no longer held, and its time starts anew."""
        self.held, self._object_end = 0, None

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
        if self.held + length > self._limits.max_object:
            raise LimitError(f"an object is larger than {self._limits.max_object} bytes")
        if self._arriving() + length > self._limits.max_memory:
            raise LimitError(f"objects of more than {self._limits.max_memory} bytes were arriving at the same time")
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


class GuardedServer(ThreadedAssociationServer):
    """pynetdicom's threaded server that no silent or greedy peer can hold up.

    The TLS handshake runs in the connection's own thread. If too many connections wait without a request for an
    association, the oldest of them is closed, so that a new peer is always heard.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        ae_title: str,
        contexts: list[PresentationContext],
        *,
        limits: Limits,
        allows: Callable[[str], bool],
        refused: Callable[[str, str, Refusal], None],
        **settings: Any,
    ) -> None:
        """`allows` says whether an address may connect; `refused` is told address, reason and kind of a refusal."""
        self.limits = limits
        self._allows = allows
        self.refused = refused
        self.moved_s = time.monotonic()
        self._waiting: dict[int, socket.socket] = {}
        self._waiting_lock = threading.Lock()
        self.guards: WeakKeyDictionary[Association, PduGuard] = WeakKeyDictionary()
        super().__init__(ae, address, ae_title, contexts, request_handler=_Handler, **settings)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; a TLS handshake waits for the connection's own thread."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        connection.settimeout(self.limits.request_s)
        if self.ssl_context:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def service_actions(self) -> None:
        """Note that the loop that accepts connections moves; it calls this at least twice a second."""
        super().service_actions()
        self.moved_s = time.monotonic()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether the address may connect, and make room for its connection."""
        if not self._allows(client_address[0]):
            self.refused(client_address[0], "the address belongs to no peer", "address")
            return False
        with self._waiting_lock:
            crowd = list(self._waiting.items())[: max(0, len(self._waiting) - self.limits.max_waiting + 1)]
            self._waiting[id(request)] = request
            for key, _ in crowd:
                del self._waiting[key]
        for _, connection in crowd:
            _shut(connection)
        return True

    def requested(self, association: Association) -> socket.socket:
        """Note that the peer asked for this association: its connection, which is returned, no longer waits."""
        connection = self.guards[association].connection
        self._forget(connection)
        return connection

    def closed(self, association: Association) -> None:
        """Close the association's connection: pynetdicom leaves it open if its shutdown fails."""
        connection = self.guards[association].connection
        self._forget(connection)
        connection.close()

    def _forget(self, connection: socket.socket) -> None:
        with self._waiting_lock:
            self._waiting.pop(id(connection), None)

    def arriving(self) -> int:
        """Return the bytes of the objects that are arriving now, of all associations together."""
        return sum(guard.held for association, guard in items_of(self.guards) if association.is_alive())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of a connection that failed before its association, as one whose TLS handshake fails."""
        self._forget(request)
        request.close()


class _Handler(RequestHandler):
    """Makes the association of one connection, behind a guard."""

    server: GuardedServer

    def handle(self) -> None:
        """Start an association after the peer's first byte: a silent connection costs one thread that sleeps."""
        try:
            if isinstance(self.request, ssl.SSLSocket):
                self.request.do_handshake()
        except OSError as error:
            self.server.refused(self.client_address[0], f"the TLS handshake failed: {error}", "tls")
            raise
        if not _speaks(self.request, self.server.limits.request_s):
            raise ConnectionError("no association was requested")
        super().handle()

    def _create_association(self) -> Association:
        association = super()._create_association()
        limits, server = self.server.limits, self.server
        address = self.client_address[0]
        guard = PduGuard(self.request, limits, server.arriving, lambda why: server.refused(address, why, "limits"))
        association_socket = association.dul.socket
        assert association_socket is not None
        association_socket.recv = guard.recv  # type: ignore[method-assign,assignment]
        server.guards[association] = guard
        association.acceptor.supported_contexts = []  # until the peer is known
        association.acse_timeout = limits.request_s
        association.network_timeout = limits.idle_s
        return association


def items_of(table: WeakKeyDictionary[Association, _Value]) -> list[tuple[Association, _Value]]:
    """Return the items of a table to which other threads add meanwhile, and from which keys go at any time.

    The table's own `items` raises `RuntimeError` then, which would end the thread of an association without an answer.
    """
    pairs = [(key, table.get(key)) for reference in table.keyrefs() if (key := reference()) is not None]
    return [(key, value) for key, value in pairs if value is not None]


def _speaks(connection: socket.socket, wait_s: float) -> bool:
    """Wait for the peer's first byte; return False if the time is over or the connection ended."""
    if isinstance(connection, ssl.SSLSocket) and connection.pending():
        return True
    if not select.select([connection], [], [], wait_s)[0]:
        return False
    return isinstance(connection, ssl.SSLSocket) or bool(connection.recv(1, socket.MSG_PEEK))


def _shut(connection: socket.socket) -> None:
    """End a connection that another thread may be reading from; that thread closes it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
