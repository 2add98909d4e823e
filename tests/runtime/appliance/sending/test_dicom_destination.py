"""An archive with DICOM: what its statuses and its rejections mean for a delivery. The archive is pynetdicom's."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

pytest.importorskip("pynetdicom")

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    SecondaryCaptureImageStorage,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from helpers.appliance import FakeClock
from helpers.slow_archives import capture_parcel
from spinescore.runtime.appliance import service
from spinescore.runtime.appliance.configuration.config import Destination, Tls
from spinescore.runtime.appliance.fault import Unsent
from spinescore.runtime.appliance.sending.delivery import SENT, Outcome, Parcel
from spinescore.runtime.appliance.sending.senddicom import Archive, DicomDestination

CLASSES = (SecondaryCaptureImageStorage, StudyRootQueryRetrieveInformationModelFind, StorageCommitmentPushModel)


@pytest.fixture(scope="module")
def parcel(tmp_path_factory):
    return capture_parcel(tmp_path_factory.mktemp("result"))


class Answers:
    """An archive that answers as it is told, and notes what it was asked to confirm."""

    def __init__(self) -> None:
        self.store, self.action, self.asked = 0x0000, 0x0000, []
        self.find: list[tuple[int, str | None]] = [(0x0000, None)]

    def on_store(self, event) -> Dataset:
        answer = Dataset()
        answer.Status, answer.ErrorComment = self.store, "Patient Doe, 4711"
        return answer

    def on_find(self, event):
        for status, uid in self.find:
            identifier = Dataset()
            identifier.QueryRetrieveLevel = "IMAGE"
            if uid is not None:
                identifier.SOPInstanceUID = uid
            yield status, identifier if status == 0xFF00 else None

    def on_action(self, event):
        self.asked.append(event.action_information)
        return self.action, None


@contextmanager
def archive(*classes: str, title: str = "PACS"):
    """Yield the answers of an archive with an open port, and a destination that sends to it."""
    answers, entity = Answers(), AE("PACS")
    entity.require_called_aet = True
    for sop_class in classes or CLASSES:
        entity.add_supported_context(sop_class)
    handlers = [(evt.EVT_C_STORE, answers.on_store), (evt.EVT_C_FIND, answers.on_find),
                (evt.EVT_N_ACTION, answers.on_action)]  # fmt: skip
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    place = DicomDestination("out", Archive(*server.server_address, title, "SPINESCORE"), FakeClock())
    try:
        yield answers, place
    finally:
        place.close()
        server.shutdown()


FOUND = (0xFF00, "1.2.3.4.7")
HOLDS = [
    ([(0x0000, None)], False),
    ([FOUND, (0x0000, None)], True),
    ([(0xFF00, "1.2.3.4.70"), (0xFF00, None), (0x0000, None)], False),  # it ignores the key
    ([FOUND, (0xC001, None)], True),
    ([(0xA700, None)], None),
    ([(0xC001, None)], None),
    ([(0xFF00, "1.2.3"), (0xC001, None)], None),
    ([(0xA900, None)], False),  # it never answers this question: the same instance is sent again
    ([(0x0122, None)], False),
    ([(0x0124, None)], False),
]


@pytest.mark.usefixtures("closed_clients")
def test_an_archive_that_is_asked_says_yes_no_or_nothing(parcel):
    with archive() as (answers, place):
        for answers.find, held in HOLDS:
            assert place.holds(parcel) is held, answers.find


@pytest.mark.usefixtures("closed_clients")
def test_the_status_of_a_request_for_confirmation_decides(parcel):
    with archive() as (answers, place):
        assert place.send(parcel) == SENT
        missing = Parcel(parcel.path.with_name("gone.dcm"), "sr", "", "1.2.3.4.8", "1.2.3.4", 1)
        for answers.action, kind in ((0x0000, "sent"), (0x0110, "later"), (0x0213, "later"), (0x0124, "later"),
                                     (0x0122, "refused"), (0x0123, "refused"), (0x0211, "refused")):  # fmt: skip
            outcome = place.ask([parcel, missing], "2.25.7")
            assert outcome.kind == kind
            assert (kind == "refused") == ("set commitment = false" in outcome.message)
        instances = answers.asked[0].ReferencedSOPSequence
        assert [one.ReferencedSOPInstanceUID for one in instances] == ["1.2.3.4.7", "1.2.3.4.8"]
        assert instances[0].ReferencedSOPClassUID == SecondaryCaptureImageStorage


@pytest.mark.usefixtures("closed_clients")
def test_an_archive_that_takes_no_association_says_why(parcel):
    with archive(title="OTHER") as (_, place):
        reason = r"rejected the association of SPINESCORE \(called AE title not recognised\)"
        with pytest.raises(Unsent, match=f"(?i){reason}"):
            place.send(parcel)
    with archive(Verification) as (_, place), pytest.raises(Unsent, match="takes no objects that results consist of"):
        place.send(parcel)
    with pytest.raises(Unsent, match="cannot be reached"):  # nobody listens there any more
        place.send(parcel)


@pytest.mark.usefixtures("closed_clients")
def test_an_archive_without_queries_has_nothing(parcel):
    with archive(SecondaryCaptureImageStorage) as (answers, place):
        assert place.holds(parcel) is False
        answers.store = 0xA700
        assert place.send(parcel) == Outcome("later", "it answered with the status 0xA700")


def test_certificates_that_cannot_be_read_are_told_once_and_wait_for_better_ones(tmp_path, make, certificates):
    appliance = make()
    tls = Tls(*(str(tmp_path / name) for name in ("client.pem", "client.key", "ca.pem")))
    destination = Destination("pacs", "dicom", host="localhost", port=104, ae_title="PACS", tls=tls)
    noted: dict[tuple[str, str], float] = {}

    def opened():
        return service._opened(destination, appliance.config, appliance.places, appliance.clock, appliance.index, noted)

    assert opened() is None
    assert opened() is None
    faults = appliance.index.rows("SELECT code, message FROM faults")
    assert [one["code"] for one in faults] == ["destination-unreachable"]
    assert "pacs" in faults[0]["message"]
    shutil.copytree(certificates, tmp_path, dirs_exist_ok=True)
    assert opened().name == "pacs"
