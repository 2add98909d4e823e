"""The DICOM node's SCP: who may send what, what is answered, and what hostile peers cannot do."""

from __future__ import annotations

import contextlib
import resource
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from io import BytesIO
from pathlib import Path
from typing import get_args

import pydicom
import pytest
from pydicom import Dataset

pytest.importorskip("pynetdicom")

from pynetdicom import AE, StoragePresentationContexts, build_role, dul, transport
from pynetdicom.sop_class import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    StorageCommitmentPushModel,
    Verification,
)

from spinescore.runtime.appliance.config import Peer, SopClassName, Tls
from spinescore.runtime.appliance.fault import Refusal
from spinescore.runtime.appliance.guard import LimitError, Limits, PduGuard
from spinescore.runtime.appliance.network import client_context, server_context
from spinescore.runtime.appliance.receive import CLASSES, Arrival, NotStored, Receiver
from spinescore.runtime.phantom import write_study

MODALITY = Peer("MODALITY", "127.0.0.1", classes=("DX", "CR"))
DX = DigitalXRayImageStorageForPresentation


class Heard:
    """Keeps what a receiver tells; `full` and `room` imitate a disk without room."""

    def __init__(self) -> None:
        self.files: list[tuple[Arrival, bytes]] = []
        self.refusals: list[tuple[str, str]] = []
        self.ended: list[int] = []
        self.reports: list[Dataset] = []
        self.full: Exception | None = None
        self.room = True
        self.end = threading.Event()
        self.refusal = threading.Event()

    def store(self, arrival: Arrival) -> None:
        if self.full:
            raise self.full
        self.files.append((arrival, b"".join(arrival.parts)))

    def ready(self) -> bool:
        return self.room

    def released(self, association: int) -> None:
        self.ended.append(association)
        self.end.set()

    def refused(self, peer: str, reason: str, kind: str) -> None:
        assert kind in get_args(Refusal)
        self.refusals.append((peer, reason))
        self.refusal.set()

    def committed(self, peer: Peer, report: Dataset) -> None:
        self.reports.append(report)


@contextlib.contextmanager
def node(*peers: Peer, **settings):
    """A receiver on a free port of the loopback interface, with what it tells."""
    heard = Heard()
    receiver = Receiver("SPINESCORE", peers or (MODALITY,), heard, port=0, **settings)
    receiver.start()
    try:
        yield receiver, heard
    finally:
        receiver.stop(0.5)


@pytest.fixture(autouse=True)
def _closed_clients(monkeypatch):
    """The clients of these tests close their sockets; pynetdicom leaves one open if its shutdown fails."""
    shut = transport.AssociationSocket._shutdown_socket

    def shut_and_close(self):
        connection = self.socket
        shut(self)
        if connection is not None and self.assoc.is_requestor:
            connection.close()

    monkeypatch.setattr(transport.AssociationSocket, "_shutdown_socket", shut_and_close)


@contextlib.contextmanager
def associated(receiver: Receiver, *contexts, calling="MODALITY", called="SPINESCORE", host="127.0.0.1", **settings):
    """An association of pynetdicom's own SCU, closed at the end."""
    entity = AE(calling)
    for context in contexts or (DX,):
        entity.add_requested_context(*(context if isinstance(context, tuple) else (context,)))
    association = entity.associate("127.0.0.1", receiver.port, ae_title=called, bind_address=(host, 0), **settings)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        if association.is_alive():
            association.join(10)


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("study")
    write_study(1, folder)
    return sorted(folder.glob("**/*.dcm"))


def object_of(path: Path) -> Dataset:
    return pydicom.dcmread(path)


def test_an_object_is_handed_on_as_the_file_that_it_is(radiographs):
    sent = object_of(radiographs[0])
    with node() as (receiver, heard):
        with associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association:
            status = association.send_c_store(sent)
        assert heard.end.wait(10)
    assert status.Status == 0x0000
    arrival, file = heard.files[0]
    assert (arrival.sop_instance_uid, arrival.sop_class_uid) == (sent.SOPInstanceUID, sent.SOPClassUID)
    read = pydicom.dcmread(BytesIO(file))
    assert read.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    assert read == sent
    assert heard.ended == [arrival.association]


def test_a_resend_gives_the_same_file(radiographs):
    sent = object_of(radiographs[0])
    with node() as (receiver, heard):
        for _ in range(2):
            with associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association:
                association.send_c_store(sent)
    (first, one), (second, two) = heard.files
    assert one == two
    assert first.association != second.association


@pytest.mark.skipif(shutil.which("storescu") is None, reason="needs dcmtk")
def test_dcmtk_sends_and_asks(radiographs):
    with node() as (receiver, heard):
        words = ["-aet", "MODALITY", "-aec", "SPINESCORE", "127.0.0.1", str(receiver.port)]
        subprocess.run(["echoscu", *words], check=True, timeout=60)
        subprocess.run(["storescu", *words, *map(str, radiographs)], check=True, timeout=60)
        subprocess.run(["dcmsend", *words, *map(str, radiographs)], check=True, timeout=60)
    assert len(heard.files) == 2 * len(radiographs)
    assert {arrival.sop_instance_uid for arrival, _ in heard.files} == {
        object_of(path).SOPInstanceUID for path in radiographs
    }


@pytest.mark.parametrize(
    ("peer", "words", "reason"),
    [
        (MODALITY, {"calling": "STRANGER"}, "no peer has this AE title and address"),
        (MODALITY, {"called": "OTHER"}, "it calls OTHER, which is not this node's AE title"),
        (Peer("MODALITY", "127.0.0.2"), {}, "the address belongs to no peer"),
        (Peer("MODALITY", "127.0.0.1", cert_sha256="ab" * 32), {}, "its certificate (none) is not the peer's"),
    ],
)
def test_a_stranger_is_refused_and_named(peer, words, reason):
    with node(peer) as (receiver, heard):
        with associated(receiver, Verification, **words) as association:
            assert not association.is_established
        assert heard.refusal.wait(10)
    assert reason in [told for _, told in heard.refusals]


def test_an_ae_title_of_another_address_is_refused():
    peers = (Peer("ONE", "127.0.0.1"), Peer("TWO", "127.0.0.2"))
    with node(*peers) as (receiver, heard):
        with associated(receiver, Verification, calling="TWO") as association:
            assert association.is_rejected
        with associated(receiver, Verification, calling="TWO", host="127.0.0.2") as association:
            assert association.is_established
    assert heard.refusals == [("TWO at 127.0.0.1", "no peer has this AE title and address")]


def test_a_peer_is_offered_its_own_classes_only(radiographs):
    with (
        node(Peer("MODALITY", "127.0.0.1", classes=("CR",))) as (receiver, _),
        associated(receiver, DX, ComputedRadiographyImageStorage, CTImageStorage) as association,
    ):
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
    assert accepted == {ComputedRadiographyImageStorage}


def test_every_transfer_syntax_that_reading_knows_is_accepted():
    from spinescore.runtime.appliance.receive import TRANSFER_SYNTAXES

    with (
        node() as (receiver, _),
        associated(receiver, *((DX, syntax) for syntax in TRANSFER_SYNTAXES)) as association,
    ):
        accepted = {context.transfer_syntax[0] for context in association.accepted_contexts}
    assert accepted == set(TRANSFER_SYNTAXES)


@pytest.mark.parametrize("fault", [NotStored("the disk has no room"), OSError(28, "No space left on device")])
def test_without_room_the_peer_is_told_to_send_again(radiographs, fault):
    sent = object_of(radiographs[0])
    with node() as (receiver, heard):
        with associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID), Verification) as association:
            heard.full = fault
            refused = association.send_c_store(sent)
            assert association.send_c_echo().Status == 0
            heard.full = None
            stored = association.send_c_store(sent)
        heard.room = False
        with associated(receiver, Verification) as association:
            assert association.is_rejected
            assert (association.acceptor.primitive.result, association.acceptor.primitive.result_source) == (2, 3)
    assert refused.Status == 0xA700
    assert refused.ErrorComment == str(fault)
    assert stored.Status == 0
    assert len(heard.files) == 1


def test_a_fault_in_the_store_is_no_success(radiographs):
    sent = object_of(radiographs[0])
    with node() as (receiver, heard):
        heard.full = RuntimeError("a fault of ours")
        with associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association:
            assert association.send_c_store(sent).Status >= 0xA700


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


def test_an_aborted_transfer_stores_nothing(radiographs):
    sent = object_of(radiographs[0])
    with (
        node() as (receiver, heard),
        associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association,
    ):
        real, pdus = association.dul.socket.send, []

        def send(data):
            pdus.append(data)
            if len(pdus) == 5:
                association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            real(data)

        association.dul.socket.send = send
        association.send_c_store(sent)
    assert heard.end.wait(10)
    assert not heard.files


def test_an_object_of_another_class_than_its_context_is_refused(radiographs):
    sent = object_of(radiographs[0])
    with (
        node() as (receiver, heard),
        associated(
            receiver, *((uid, sent.file_meta.TransferSyntaxUID) for uid in (DX, ComputedRadiographyImageStorage))
        ) as association,
    ):
        context = next(c for c in association.accepted_contexts if c.abstract_syntax != sent.SOPClassUID)
        association._get_valid_context = lambda *words, **options: context
        status = association.send_c_store(sent)
    assert status.Status == 0xA900
    assert not heard.files


def test_a_report_of_storage_commitment_is_taken_with_reversed_roles():
    information = Dataset()
    information.TransactionUID = "2.25.7"
    with node() as (receiver, heard):
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        with associated(receiver, StorageCommitmentPushModel, ext_neg=[role]) as association:
            status, _ = association.send_n_event_report(
                information, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1"
            )
    assert status.Status == 0
    assert heard.reports[0].TransactionUID == "2.25.7"


def tls_of(folder: Path, name: str) -> Tls:
    return Tls(*(str(folder / file) for file in (f"{name}.pem", f"{name}.key", "ca.pem")))


def client(folder: Path, name: str | None) -> tuple[ssl.SSLContext, str]:
    """The TLS arguments of a client that has a certificate, or none."""
    context = client_context(tls_of(folder, name or "client"))
    if name is None:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
    return context, "localhost"


def sha256_of(certificate: Path) -> str:
    import hashlib

    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


def test_over_tls_the_certificate_decides(certificates, radiographs):
    sent = object_of(radiographs[0])
    peer = Peer("MODALITY", "127.0.0.1", cert_sha256=sha256_of(certificates / "client.pem"))
    tls = server_context(tls_of(certificates, "server"))
    with node(peer, tls=tls) as (receiver, heard):
        contexts = (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)
        with associated(receiver, contexts, tls_args=client(certificates, "client")) as association:
            assert association.send_c_store(sent).Status == 0
        with associated(receiver, contexts, tls_args=client(certificates, "other")) as association:
            assert not association.is_established
        with associated(receiver, contexts, tls_args=client(certificates, None)) as association:
            assert not association.is_established
        with associated(receiver, contexts) as association:  # without TLS
            assert not association.is_established
    assert len(heard.files) == 1
    reasons = " ".join(reason for _, reason in heard.refusals)
    assert sha256_of(certificates / "other.pem") in reasons
    assert "the TLS handshake failed" in reasons


def test_old_tls_is_refused(certificates):
    tls = server_context(tls_of(certificates, "server"))
    assert tls.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_silent_tls_client_stops_nobody(certificates):
    tls = server_context(tls_of(certificates, "server"))
    with (
        node(tls=tls) as (receiver, _),
        socket.create_connection(("127.0.0.1", receiver.port), timeout=10),
        associated(receiver, Verification, tls_args=client(certificates, "client")) as association,
    ):
        assert association.send_c_echo().Status == 0


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


def test_a_pdu_of_six_bytes_is_no_header():
    body = bytes(range(6))
    wire = Wire(struct.pack(">BBL", 0x04, 0, 6) + body + struct.pack(">BBL", 0x04, 0, 200_000), 100)
    guard = PduGuard(wire, Limits(), lambda: 0, lambda reason: None)
    guard.recv(6)
    assert guard.recv(6) == body
    guard.recv(6)
    with pytest.raises(LimitError):
        guard.recv(200_000)


def test_a_class_that_can_be_configured_has_its_uid():
    assert set(CLASSES) == set(get_args(SopClassName))
    names = [pydicom.uid.UID(uid).name for uid in CLASSES.values()]
    assert all(name.endswith(("Storage", "Presentation", "Processing")) for name in names)
