"""Destinations that never finish: each is given up by itself, and the others go on."""

from __future__ import annotations

import socket
import threading
import time

import pytest

pytest.importorskip("pynetdicom")

from pynetdicom import evt
from pynetdicom.sop_class import SecondaryCaptureImageStorage, StudyRootQueryRetrieveInformationModelFind

from helpers.appliance import FakeClock
from helpers.dicom_node import tls_of
from helpers.slow_archives import (
    capture_parcel,
    claim,
    drip,
    drip_tls,
    go_on,
    ignore,
    listening,
    sip,
    sip_bytes,
    slow_archive,
)
from helpers.web_archives import KINDS
from spinescore.runtime.appliance import deadline, service, webclient
from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.fault import Unsent
from spinescore.runtime.appliance.network import client_context
from spinescore.runtime.appliance.sending import senddicom
from spinescore.runtime.appliance.sending.delivery import SENT
from spinescore.runtime.appliance.sending.senddicom import Archive, DicomDestination

CLASSES = (SecondaryCaptureImageStorage, StudyRootQueryRetrieveInformationModelFind)
MORE_THAN_THE_BUFFERS = 16 << 20  # of both sockets together


@pytest.fixture(scope="module")
def parcel(tmp_path_factory):
    return capture_parcel(tmp_path_factory.mktemp("result"), MORE_THAN_THE_BUFFERS)


@pytest.fixture
def soon(monkeypatch):
    """Exchanges end in less than a second, and silence before that."""
    for module, name, seconds in (
        (senddicom, "_EXCHANGE_S", 0.8),
        (senddicom, "_SILENT_S", 0.6),
        (webclient, "_FILE_S", 0.3),
        (webclient, "_ANSWER_S", 0.3),
    ):
        monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr(deadline, "_AGAIN_S", 0.05)


def destination(address, tls=None, host=None) -> DicomDestination:
    return DicomDestination("out", Archive(host or address[0], address[1], "PACS", "SPINESCORE", tls), FakeClock())


SLOW = {
    "takes a byte at a time": (sip, "send", "did not finish an exchange within 0.8 s"),
    "answers no C-STORE": (ignore, "send", "did not (answer|finish)"),
    "answers a C-FIND for ever": (go_on, "holds", "did not finish an exchange within 0.8 s"),
}


@pytest.mark.usefixtures("closed_clients", "soon")
@pytest.mark.parametrize("case", SLOW)
def test_an_archive_that_never_finishes_is_given_up(parcel, case):
    prepare, verb, reason = SLOW[case]
    with slow_archive(prepare, *CLASSES) as address:
        place = destination(address)
        with pytest.raises(ConnectionError, match=reason) as caught:
            getattr(place, verb)(parcel)
        assert not isinstance(caught.value, Unsent)  # the archive may have the file
        place.close()


@pytest.mark.usefixtures("closed_clients", "soon")
@pytest.mark.parametrize("act", [drip, claim])
def test_an_archive_that_drips_or_floods_is_not_reached(parcel, act, monkeypatch):
    monkeypatch.setattr(senddicom, "_MOST_BYTES", 1 << 16)
    with listening(act) as port, pytest.raises(Unsent, match="cannot be reached"):
        destination(("127.0.0.1", port)).send(parcel)


@pytest.mark.usefixtures("closed_clients", "soon")
def test_a_tls_handshake_without_an_end_is_ended(parcel, certificates, monkeypatch):
    context = client_context(tls_of(certificates, "client"))
    monkeypatch.setattr(senddicom, "_IDLE_S", 0.1)
    with listening(drip_tls) as port, pytest.raises(Unsent, match="cannot be reached"):
        destination(("127.0.0.1", port), context, "localhost").send(parcel)


@pytest.mark.usefixtures("closed_clients")
def test_a_large_file_has_more_time_to_be_stored_than_an_answer_to_come(parcel, monkeypatch):
    monkeypatch.setattr(senddicom, "_SILENT_S", 0.2)
    monkeypatch.setattr(senddicom, "_SLOWEST", 1 << 20)

    def store_slowly(end: threading.Event) -> dict:
        return {evt.EVT_C_STORE: lambda event: int(end.wait(0.5))}

    with slow_archive(store_slowly, *CLASSES) as address:
        place = destination(address)
        assert place.send(parcel) == SENT
        place.close()


def open_place(kind: str, host: str, port: int):
    if kind == "dicom":
        return destination((host, port))
    return KINDS[kind]("vna", Web(f"http://{host}:{port}"))


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("kind", KINDS)
def test_a_web_archive_that_takes_a_byte_at_a_time_is_given_up(parcel, kind):
    with listening(sip_bytes) as port, pytest.raises(ConnectionError, match=r"did not answer within 0\.3 s"):
        open_place(kind, "127.0.0.1", port).send(parcel)


@pytest.mark.usefixtures("closed_clients", "soon")
@pytest.mark.parametrize("kind", ["dicom", *KINDS])
def test_after_a_name_that_was_looked_up_for_too_long_nothing_is_sent(parcel, kind, monkeypatch):
    """The lookup itself cannot be ended, but the connection that it leads to is."""
    look_up = socket.getaddrinfo

    def hang(host, *arguments, **more):
        if host == "slow.example":
            host = "127.0.0.1"
            time.sleep(0.9)
        return look_up(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with listening(drip) as port, pytest.raises(ConnectionError, match=r"within 0.[38] s|cannot"):
        open_place(kind, "slow.example", port).send(parcel)


def test_a_delivery_that_hangs_is_told_and_the_process_lives_on(make):
    appliance, noted = make(), {}
    for seconds, count in ((0.0, 0), (599.0, 0), (601.0, 1), (1100.0, 1)):
        service._note(appliance.index, appliance.clock, noted, service._stuck({"vna": seconds, "out": 0.0}))
        faults = appliance.index.rows("SELECT code, message FROM faults")
        assert len(faults) == count
    assert faults[0]["code"] == "destination-unreachable"
    assert faults[0]["message"].startswith("a delivery to vna has hung for 10 min; ")


@pytest.mark.usefixtures("closed_clients")
def test_no_deadline_is_left_behind(parcel):
    before = {thread for thread in threading.enumerate() if thread.name == "spinescore-deadline"}
    with pytest.raises(Unsent):
        destination(("127.0.0.1", 9)).send(parcel)
    end = time.monotonic() + 10
    while {thread for thread in threading.enumerate() if thread.name == "spinescore-deadline"} - before:
        assert time.monotonic() < end
        time.sleep(0.01)
