"""The DICOM node over TLS: the certificate decides, old protocols are refused, and a silent client stops nobody."""

from __future__ import annotations

import socket
import ssl

import pytest

pytest.importorskip("pynetdicom")

from pynetdicom.sop_class import Verification

from helpers.dicom_node import associated, client, node, object_of, sha256_of, tls_of
from spinescore.runtime.appliance.configuration.config import Peer
from spinescore.runtime.appliance.network import server_context

pytestmark = pytest.mark.usefixtures("closed_clients")


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
