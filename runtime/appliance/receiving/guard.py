"""The guard in front of pynetdicom's server: limits on connections, TLS handshakes, PDUs, objects and time.

pynetdicom 3.0 accepts a PDU of any length, waits for a TLS handshake in the loop that accepts connections, and lets
connections without an association take the places of others. It leaves the connection open if the thread of an
association fails, and gives no answer to a request that lacks a field. The guard replaces these parts: a server class,
a request handler, the `recv` of an association's socket, and two functions of an association. They use names of
pynetdicom that are not public, so the extra `appliance` allows 3.0 only, and a test fails if a name is gone.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_CANCEL_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from spinescore.runtime.appliance.fault import Refusal, place_of
from spinescore.runtime.appliance.receiving.pduguard import Limits, PduGuard

__all__ = ["GuardedServer"]

_BY_PROVIDER = 0x02  # source of an A-ABORT (PS3.8, table 9-26)


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
        self._guards: dict[Association, PduGuard] = {}
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

    def watch(self, association: Association, guard: PduGuard) -> None:
        """Have a guard count what arrives on an association, until it is closed."""
        self._guards[association] = guard

    def requested(self, association: Association) -> socket.socket:
        """Note that the peer asked for this association: its connection, which is returned, no longer waits."""
        connection = self._guards[association].connection
        self._forget(connection)
        return connection

    def closed(self, association: Association) -> None:
        """Close the association's connection: pynetdicom leaves it open if its shutdown fails."""
        guard = self._guards.pop(association, None)
        if guard is not None:
            self._forget(guard.connection)
            guard.connection.close()

    def object_done(self, association: Association) -> None:
        guard = self._guards.get(association)
        if guard is not None:  # or else it was closed meanwhile
            guard.message_done()

    def _forget(self, connection: socket.socket) -> None:
        with self._waiting_lock:
            self._waiting.pop(id(connection), None)

    def arriving(self) -> int:
        """Return the bytes of the objects that are arriving now, of all associations together."""
        return sum(guard.held for guard in list(self._guards.values()))  # a copy: other threads add and remove

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
        association.run = partial(_run, association, server, address)  # type: ignore[method-assign]
        association.dul.run = partial(_run_below, association.dul, server, address)  # type: ignore[method-assign]
        association._serve_request = partial(_serve, association, server, address, guard)  # type: ignore[method-assign]
        association.bind(evt.EVT_DIMSE_RECV, partial(_note_message, guard))
        server.watch(association, guard)
        association.acceptor.supported_contexts = []  # until the peer is known
        association.acse_timeout = limits.request_s
        association.network_timeout = limits.idle_s
        return association


def _run(association: Association, server: GuardedServer, address: str) -> None:
    """Run an association in its thread. In any case its connection is closed then, and its end is told."""
    try:
        Association.run(association)
    except Exception as error:
        server.refused(address, f"its association failed ({place_of(error)})", "fault")
        association.abort()
    finally:
        association.dul.kill_dul()
        evt.trigger(association, evt.EVT_CONN_CLOSE, {"address": address})


def _run_below(layer: DULServiceProvider, server: GuardedServer, address: str) -> None:
    """Run the layer below an association in its thread. Bytes that it cannot read end the association."""
    try:
        DULServiceProvider.run(layer)
    except Exception as error:
        server.refused(address, f"it sent bytes that cannot be read ({place_of(error)})", "object")
        abort = A_ABORT_RQ()
        abort.source, abort.reason_diagnostic = _BY_PROVIDER, 0
        assert layer.socket is not None
        layer.socket.send(abort.encode())


def _serve(
    association: Association, server: GuardedServer, address: str, guard: PduGuard, message: Any, context_id: int
) -> None:
    """Serve a message. One that is no request, or lacks a field, ends the association: it can have no answer."""
    try:
        if message.is_valid_request:
            Association._serve_request(association, message, context_id)
        else:
            server.refused(address, "it sent a message that is no request, or lacks a field", "object")
            association.abort()
    finally:
        if not isinstance(message, C_STORE):  # those are done before they are answered
            guard.message_done()


def _note_message(guard: PduGuard, event: evt.Event) -> None:
    """Note that a message has come; a request to cancel another one is not served."""
    guard.message_came()
    if isinstance(event.message, C_CANCEL_RQ):
        guard.message_done()


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
