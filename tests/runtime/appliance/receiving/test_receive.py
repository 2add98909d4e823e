"""The DICOM node's SCP: permitted peers and classes, and its answers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from io import BytesIO
from typing import get_args

import pydicom
import pytest
from pydicom import Dataset

pytest.importorskip("pynetdicom")

from pynetdicom import build_role
from pynetdicom.acse import ACSE
from pynetdicom.sop_class import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    StorageCommitmentPushModel,
    Verification,
)

from helpers.dicom_node import DX, MODALITY, Heard, associated, node, object_of
from spinescore.runtime.appliance.configuration.config import Peer, SopClassName
from spinescore.runtime.appliance.fault import Fault, Refused
from spinescore.runtime.appliance.receiving.receive import CLASSES, TRANSFER_SYNTAXES

pytestmark = pytest.mark.usefixtures("closed_clients")


def test_an_object_is_handed_on_as_the_file_that_it_is(radiographs):
    sent = object_of(radiographs[0])
    with node() as (receiver, heard):
        with associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association:
            status = association.send_c_store(sent)
        assert heard.end.wait(10)
    assert status.Status == 0x0000
    number, file = heard.files[0]
    read = pydicom.dcmread(BytesIO(file))
    assert read.file_meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID
    assert read.file_meta.MediaStorageSOPClassUID == sent.SOPClassUID
    assert read.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    assert read == sent
    assert heard.ended == [number]


def test_a_resend_gives_the_same_file(radiographs):
    sent = object_of(radiographs[0])
    with node() as (receiver, heard):
        for _ in range(2):
            with associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association:
                association.send_c_store(sent)
    (first, one), (second, two) = heard.files
    assert one == two
    assert first != second


@pytest.mark.skipif(shutil.which("storescu") is None, reason="needs dcmtk")
def test_dcmtk_sends_and_asks(radiographs):
    with node() as (receiver, heard):
        words = ["-aet", "MODALITY", "-aec", "SPINESCORE", "127.0.0.1", str(receiver.port)]
        subprocess.run(["echoscu", *words], check=True, timeout=60)
        subprocess.run(["storescu", *words, *map(str, radiographs)], check=True, timeout=60)
        subprocess.run(["dcmsend", *words, *map(str, radiographs)], check=True, timeout=60)
    assert len(heard.files) == 2 * len(radiographs)
    assert {pydicom.dcmread(BytesIO(file)).SOPInstanceUID for _, file in heard.files} == {
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
    with (
        node() as (receiver, _),
        associated(receiver, *((DX, syntax) for syntax in TRANSFER_SYNTAXES)) as association,
    ):
        accepted = {context.transfer_syntax[0] for context in association.accepted_contexts}
    assert accepted == set(TRANSFER_SYNTAXES)


@pytest.mark.parametrize("fault", [Refused(Fault("no-space", "no room")), OSError(28, "No space left on device")])
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
    assert refused.ErrorComment in ("no room", "[Errno 28] No space left on device")
    assert stored.Status == 0
    assert len(heard.files) == 1


def test_a_fault_in_the_store_has_the_object_sent_again(radiographs):
    sent = object_of(radiographs[0])
    with node() as (receiver, heard):
        heard.full = RuntimeError("a fault of ours with the name of a patient")
        with associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association:
            assert association.send_c_store(sent).Status == 0xA700
            heard.full = None
            assert association.send_c_store(sent).Status == 0
    peer, reason = heard.refusals[0]
    assert peer == "MODALITY at 127.0.0.1"
    assert reason.startswith("storing failed (RuntimeError < dicom_node.py line ")
    assert "patient" not in reason


def test_a_fault_in_a_request_is_a_rejection_for_now():
    with node() as (receiver, heard):
        heard.room = RuntimeError("a fault of ours")
        with associated(receiver, Verification) as association:
            assert association.is_rejected
            assert association.acceptor.primitive.result == 2
        heard.room = True
        with associated(receiver, Verification) as association:
            assert association.is_established
    assert heard.refusals[0][1].startswith("its request failed (RuntimeError")


def test_a_fault_in_an_association_closes_its_connection(monkeypatch):
    with node() as (receiver, heard):
        monkeypatch.setattr(ACSE, "_negotiate_as_acceptor", lambda acse: 1 / 0)
        with associated(receiver, Verification) as association:
            assert association.is_aborted
        assert heard.end.wait(60)
        assert not receiver._server._guards
    assert heard.refusals[0][1].startswith("its association failed (ZeroDivisionError")


def test_an_association_ends_after_the_object_that_is_being_stored(radiographs):
    sent, begun, going = object_of(radiographs[0]), threading.Event(), threading.Event()

    def store(*arrived) -> None:
        begun.set()
        assert going.wait(60)
        assert not heard.ended
        Heard.store(heard, *arrived)

    with node() as (receiver, heard):
        heard.store = store
        with associated(receiver, (sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)) as association:
            thread = threading.Thread(target=association.send_c_store, args=(sent,))
            thread.start()
            assert begun.wait(60)
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)  # the sender waits no longer
            thread.join()
        going.set()
        assert heard.end.wait(60)
    assert [number for number, _ in heard.files] == heard.ended
    assert not heard.refusals


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_a_node_that_listens_on_all_addresses_knows_its_peers():
    with node(host="::") as (receiver, _), associated(receiver, Verification) as association:
        assert association.is_established


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
            heard.full = RuntimeError("a fault of ours")
            failed, _ = association.send_n_event_report(
                information, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1"
            )
    assert (status.Status, failed.Status) == (0, 0x0110)
    assert heard.reports[0].TransactionUID == "2.25.7"
    assert heard.refusals[0][1].startswith("noting its report failed (RuntimeError")


def test_a_class_that_can_be_configured_has_its_uid():
    assert set(CLASSES) == set(get_args(SopClassName))
    names = [pydicom.uid.UID(uid).name for uid in CLASSES.values()]
    assert all(name.endswith(("Storage", "Presentation", "Processing")) for name in names)
