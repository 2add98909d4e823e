"""What silent, slow, greedy and crowding peers cannot do to the DICOM node, and the guard that keeps them from it."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import sys
import threading
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("pynetdicom")

from pynetdicom import StoragePresentationContexts, association, dimse, dul, transport
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from helpers.dicom_node import associated, node, object_of
from spinescore.runtime.appliance.configuration.config import Peer
from spinescore.runtime.appliance.receiving.pduguard import LimitError, Limits, PduGuard

pytestmark = pytest.mark.usefixtures("closed_clients")


def test_the_last_place_is_given_once_and_given_back():
    with node(limits=Limits(max_associations=2)) as (receiver, heard):
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                assert stack.enter_context(associated(receiver, Verification)).is_established
            with associated(receiver, Verification) as third:
                assert third.is_rejected
                assert (third.acceptor.primitive.result, third.acceptor.primitive.diagnostic) == (2, 2)
        with associated(receiver, Verification) as again:
            assert again.is_established
    assert "2 associations are open" in heard.refusals[0][1]


def test_a_peer_that_takes_all_places_leaves_each_other_peer_one():
    crowd, other = (Peer(title, "127.0.0.1") for title in ("CROWD", "MODALITY"))
    with node(crowd, other, limits=Limits(max_associations=2)) as (receiver, _), contextlib.ExitStack() as stack:
        for _ in range(2):
            assert stack.enter_context(associated(receiver, Verification, calling="CROWD")).is_established
        with associated(receiver, Verification, calling="CROWD") as third:
            assert third.is_rejected
        with associated(receiver, Verification) as first:
            assert first.is_established
            with associated(receiver, Verification) as second:
                assert second.is_rejected


def test_silent_connections_take_nobodys_place():
    with node(limits=Limits(max_waiting=8)) as (receiver, _), contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", receiver.port), timeout=10))
        with associated(receiver, Verification) as association:
            assert association.send_c_echo().Status == 0


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(("kind", "length"), [(0x01, 0xF0000000), (0x04, 0xF0000000), (0x04, 131_073)])
def test_a_pdu_that_claims_too_much_is_not_read(kind, length):
    with node() as (receiver, heard):
        before = resident()
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=30) as connection:
            connection.sendall(struct.pack(">BBL", kind, 0, length))
            with contextlib.suppress(OSError):
                for _ in range(64):
                    connection.sendall(bytes(1 << 20))
            with contextlib.suppress(OSError):
                while connection.recv(4096):
                    pass
        assert heard.refusal.wait(10)
        assert resident() - before < 32 << 20
    assert heard.refusals[0][1].startswith(f"a PDU of type {kind} claims {length} bytes")


def test_a_slow_sender_is_cut_off():
    with (
        node(limits=Limits(pdu_s=0.2)) as (receiver, heard),
        socket.create_connection(("127.0.0.1", receiver.port), timeout=30) as connection,
    ):
        connection.sendall(struct.pack(">BBL", 0x01, 0, 200))
        assert heard.refusal.wait(10)
        assert connection.recv(100) == b""
    assert "timed out" in heard.refusals[0][1] or "longer" in heard.refusals[0][1]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_object=1 << 20), "an object is larger than 1048576 bytes"),
        (Limits(max_memory=1 << 20), "objects of more than 1048576 bytes were arriving at the same time"),
    ],
)
def test_an_object_above_the_limits_ends_its_association(radiographs, limits, reason):
    sent = max(map(object_of, radiographs), key=lambda one: len(one.PixelData))
    assert len(sent.PixelData) > 1 << 20
    with node(limits=limits) as (receiver, heard):
        with associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association:
            status = association.send_c_store(sent)
        assert heard.end.wait(10)
    assert "Status" not in status
    assert not heard.files
    assert reason in [told for _, told in heard.refusals]


def test_many_objects_of_one_association_are_counted_one_by_one(radiographs):
    sent = min(map(object_of, radiographs), key=lambda one: len(one.PixelData))
    size = len(sent.PixelData) + (1 << 20)
    with (
        node(limits=Limits(max_object=size, max_memory=size)) as (receiver, heard),
        associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association,
    ):
        answers = [association.send_c_store(sent).Status for _ in range(3)]
    assert answers == [0, 0, 0]
    assert len(heard.files) == 3


def test_associations_that_begin_and_end_meanwhile_do_not_disturb_the_count():
    interval, over = sys.getswitchinterval(), threading.Event()

    def churn() -> None:
        while not over.is_set():
            association = object()
            receiver._server.watch(association, SimpleNamespace(held=0, connection=socket.socket()))
            receiver._server.closed(association)

    with node() as (receiver, _):
        thread = threading.Thread(target=churn)
        sys.setswitchinterval(1e-6)
        thread.start()
        try:
            assert [receiver._server.arriving() for _ in range(5000)] == [0] * 5000
        finally:
            over.set()
            thread.join()
            sys.setswitchinterval(interval)


def request_of(sent) -> C_STORE:
    """A request whose answer nobody waits for."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sent.SOPClassUID, sent.SOPInstanceUID
    request.DataSet = BytesIO(encode(sent, False, True))
    return request


def test_objects_that_come_before_the_answer_are_counted_with_the_others(radiographs):
    sent = min(map(object_of, radiographs), key=lambda one: len(one.PixelData))
    size, going = len(sent.PixelData), threading.Event()
    with node(limits=Limits(max_memory=3 * size)) as (receiver, heard):
        keep, heard.store = heard.store, lambda *arrived: (going.wait(60), keep(*arrived))
        with associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association:
            for _ in range(4):
                association.dimse.send_msg(request_of(sent), association.accepted_contexts[0].context_id)
            assert heard.refusal.wait(60)
            going.set()
        assert heard.end.wait(60)
    assert heard.refusals[0][1] == f"objects of more than {3 * size} bytes were arriving at the same time"


def test_a_request_without_a_field_ends_its_association(radiographs):
    sent = min(map(object_of, radiographs), key=lambda one: len(one.PixelData))
    request = request_of(sent)
    request._affected_sop_instance_uid = None
    with node() as (receiver, heard):
        with associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association:
            association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
            association.join(60)
            assert not association.is_established
        assert heard.end.wait(60)
    assert heard.refusals[0][1] == "it sent a message that is no request, or lacks a field"
    assert not heard.files


def test_bytes_that_cannot_be_read_end_their_association():
    nothing = struct.pack(">BBLLBB", 0x04, 0, 6, 2, 1, 0x03)  # the last fragment of a command set without elements
    with node() as (receiver, heard):
        with associated(receiver, Verification) as association:
            association.dul.socket.send(nothing)
            association.join(60)
            assert association.is_aborted
        assert heard.end.wait(60)
    assert heard.refusals[0][1].startswith("it sent bytes that cannot be read (")


def test_threads_and_descriptors_come_back():
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = (threading.active_count(), descriptors())
    with node() as (receiver, _):
        for _ in range(5):
            with associated(receiver, Verification) as association:
                association.send_c_echo()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and "dicom" in thread.name:
            thread.join(5)
    assert (threading.active_count(), descriptors()) <= before


def test_the_names_of_pynetdicom_that_the_guard_uses_are_there():
    assert callable(transport.AssociationSocket.recv)
    assert callable(transport.RequestHandler._create_association)
    assert {"get_request", "verify_request", "handle_error"} <= set(dir(transport.ThreadedAssociationServer))
    assert callable(association.Association._serve_request)
    assert issubclass(dul.DULServiceProvider, threading.Thread)
    assert issubclass(association.Association, threading.Thread)
    assert "self.assoc._serve_request" in Path(dimse.__file__).read_text()
    assert "self._serve_request(" in Path(association.__file__).read_text()
    source = Path(dul.__file__).read_text()
    assert "self.socket.recv(6)" in source
    assert "self.socket.recv(pdu_length)" in source
    assert StoragePresentationContexts


class Wire:
    """A socket that gives prepared bytes, in pieces of one size."""

    def __init__(self, data: bytes, piece: int) -> None:
        self.data, self.piece, self.timeouts = data, piece, []

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)

    def recv_into(self, view: memoryview) -> int:
        count = min(self.piece, len(view), len(self.data))
        view[:count], self.data = self.data[:count], self.data[count:]
        return count


def test_a_pdu_has_one_time_limit_however_it_comes_in_pieces():
    times = iter(range(1000))
    wire = Wire(struct.pack(">BBL", 0x01, 0, 50) + bytes(50), 1)
    guard = PduGuard(wire, Limits(pdu_s=20), lambda: 0, lambda reason: None, lambda: next(times))
    assert guard.recv(6)[0] == 0x01
    with pytest.raises(TimeoutError):
        guard.recv(50)
    assert wire.timeouts == sorted(wire.timeouts, reverse=True)


def test_the_time_of_a_message_begins_after_the_one_before():
    now = [0.0]
    wire = Wire((struct.pack(">BBL", 0x04, 0, 10) + bytes(10)) * 3, 100)
    guard = PduGuard(wire, Limits(object_s=5.0, pdu_s=60.0), lambda: 0, lambda reason: None, lambda: now[0])
    guard.recv(6)
    guard.recv(10)
    guard.message_came()
    assert guard.held == 10
    guard.message_done()
    now[0] = 100.0
    guard.recv(6)
    guard.recv(10)
    assert guard.held == 10
    now[0] = 106.0
    with pytest.raises(TimeoutError):
        guard.recv(6)


def test_a_pdu_of_six_bytes_is_no_header():
    body = bytes(range(6))
    wire = Wire(struct.pack(">BBL", 0x04, 0, 6) + body + struct.pack(">BBL", 0x04, 0, 200_000), 100)
    guard = PduGuard(wire, Limits(), lambda: 0, lambda reason: None)
    guard.recv(6)
    assert guard.recv(6) == body
    guard.recv(6)
    with pytest.raises(LimitError):
        guard.recv(200_000)
