"""Storage Commitment: the effect of an archive's reports on deliveries, whenever and however they come."""

from __future__ import annotations

import pytest

pytest.importorskip("pynetdicom")

from pydicom import Dataset

from helpers import dicom_files
from spinescore.runtime.appliance.configuration.config import Destination
from spinescore.runtime.appliance.sending.commitment import Committer, note_report
from spinescore.runtime.appliance.sending.delivery import SENT, Deliverer, Outcome

HOUR_S = 3600.0


class Archive:
    """A destination that takes everything, and notes what it was asked to confirm."""

    name = "out"

    def __init__(self) -> None:
        self.sent, self.asked, self.answer = [], [], SENT

    def send(self, parcel):
        self.sent.append(parcel.path.name)
        return SENT

    def holds(self, parcel):
        return False

    def clear(self) -> None: ...

    def rest(self) -> None: ...

    def ask(self, parcels, transaction_uid):
        self.asked.append((transaction_uid, [parcel.sop_instance_uid for parcel in parcels]))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Delivered:
    """A scored study whose results went to an archive that confirms them."""

    def __init__(self, one, files) -> None:
        self.one, self.archive = one, Archive()
        self.clock, self.index, self.places = one.clock, one.index, one.places
        self.deliverer = Deliverer(self.index, self.clock, self.places, self.archive, confirms=True)
        self.committer = Committer(self.index, self.clock, self.places, "out", self.archive.ask)
        one.receive(*files)
        one.deliverers = [self.deliverer]
        one.run()

    def states(self) -> dict[str, str]:
        return {row["file"]: row["state"] for row in self.index.rows("SELECT * FROM deliveries")}

    def message(self) -> str:
        return self.index.one("SELECT message FROM deliveries WHERE file = 'sr.dcm'")["message"]

    def study(self) -> str:
        return self.index.one("SELECT state FROM studies")["state"]

    def report(self, asked=None, failed=None, uid=None) -> None:
        transaction, instances = asked or self.archive.asked[-1]
        told = Dataset()
        told.TransactionUID = uid or transaction
        told.ReferencedSOPSequence, told.FailedSOPSequence = [], []
        for instance in instances:
            item = Dataset()
            item.ReferencedSOPInstanceUID = instance
            if failed is None:
                told.ReferencedSOPSequence.append(item)
            else:
                item.FailureReason = failed
                told.FailedSOPSequence.append(item)
        note_report(self.places, self.clock, told)


@pytest.fixture
def delivered(make, files):
    return Delivered(make(), files)


def test_a_study_is_delivered_when_its_instances_are_confirmed(delivered):
    assert delivered.states()["sr.dcm"] == "committing"
    assert delivered.study() == "delivering"
    assert delivered.committer.step()
    assert not delivered.committer.step()
    transaction, instances = delivered.archive.asked[0]
    assert transaction.startswith("2.25.")
    assert len(instances) == 1
    delivered.report()
    assert delivered.states() == {"report.json": "sent", "set.json": "sent", "sr.dcm": "committed"}
    assert delivered.study() == "delivered"


def test_without_a_report_the_archive_is_asked_again_and_a_late_report_counts(delivered):
    delivered.committer.step()
    delivered.clock.pass_s(HOUR_S + 1)
    assert delivered.committer.step()
    (first, _), (second, _) = delivered.archive.asked
    assert first != second
    delivered.report(delivered.archive.asked[0])  # of the first request
    assert delivered.study() == "delivered"
    delivered.report()  # and of the second, which changes nothing any more
    assert delivered.study() == "delivered"


def test_what_the_archive_does_not_have_is_sent_again(delivered):
    delivered.committer.step()
    delivered.report(failed=0x0112)
    assert delivered.states()["sr.dcm"] == "waiting"
    delivered.clock.pass_s(60)
    delivered.deliverer.step()
    assert delivered.archive.sent.count("sr.dcm") == 2
    delivered.committer.step()
    delivered.report()
    assert delivered.study() == "delivered"


@pytest.mark.parametrize("reason", [0x0110, 0x0213, 0x0131])
def test_after_a_passing_failure_the_archive_is_asked_again(delivered, reason):
    delivered.committer.step()
    delivered.report(failed=reason)
    assert delivered.states()["sr.dcm"] == "committing"
    delivered.clock.pass_s(60)
    assert delivered.committer.step()
    assert delivered.archive.sent.count("sr.dcm") == 1


@pytest.mark.parametrize("reason", [0x0119, 0x0122])
def test_what_the_archive_will_never_keep_is_parked(delivered, reason):
    delivered.committer.step()
    delivered.report(failed=reason)
    assert delivered.states()["sr.dcm"] == "parked"
    assert delivered.study() == "parked"


def test_a_report_of_a_transaction_that_is_not_ours_changes_nothing(delivered):
    delivered.committer.step()
    delivered.report(uid="2.25.1")
    assert delivered.states()["sr.dcm"] == "committing"
    note_report(delivered.places, delivered.clock, Dataset())


def test_an_archive_that_cannot_be_asked_now_is_asked_soon(delivered):
    delivered.archive.answer = ConnectionError("nobody listens")
    delivered.committer.step()
    assert not delivered.committer.step()
    assert delivered.message() == "out cannot be asked to confirm it: nobody listens"
    delivered.archive.answer = SENT
    delivered.clock.pass_s(61)
    assert delivered.committer.step()
    delivered.report()
    assert delivered.study() == "delivered"


def test_an_archive_that_confirms_nothing_is_named(delivered):
    delivered.archive.answer = Outcome("refused", "it takes no Storage Commitment; set commitment = false")
    delivered.committer.step()
    assert delivered.study() == "parked"
    message = delivered.index.one("SELECT message FROM studies")["message"]
    assert "set commitment = false" in message


def test_after_seven_days_without_a_report_the_study_is_parked(delivered):
    delivered.committer.step()
    delivered.clock.pass_s(8 * 24 * HOUR_S)
    assert delivered.committer.step()
    assert delivered.study() == "parked"
    assert delivered.index.one("SELECT code FROM studies")["code"] == "delivery-expired"


def test_an_archive_that_takes_a_file_late_has_seven_days_to_confirm_it(delivered):
    with delivered.index.transaction():
        delivered.index.change("UPDATE deliveries SET first_s = first_s - ?", 7 * 24 * HOUR_S - 60)
    delivered.committer.step()
    delivered.clock.pass_s(HOUR_S + 1)
    delivered.committer.step()
    assert len(delivered.archive.asked) == 2
    delivered.report()
    assert delivered.study() == "delivered"


def test_an_archive_that_loses_every_copy_gets_few_of_them(delivered):
    steps = 0
    with delivered.index.transaction():  # for six days it has done so
        delivered.index.change("UPDATE deliveries SET first_s = first_s - ?", 6 * 24 * HOUR_S)
    while delivered.study() == "delivering":
        delivered.clock.pass_s(1800.0)
        delivered.deliverer.step()
        if delivered.committer.step():
            delivered.report(failed=0x0112)
        steps += 1
        assert steps < 2 * 24 * 2
    assert delivered.study() == "parked"
    assert 10 < delivered.archive.sent.count("sr.dcm") <= 25
    faults = {row["code"] for row in delivered.index.rows("SELECT code FROM faults")}
    assert faults == {"delivery-not-kept", "delivery-expired"}


def test_a_failure_from_before_a_copy_was_sent_brings_no_other_copy(delivered):
    delivered.committer.step()
    delivered.clock.pass_s(HOUR_S + 1)
    delivered.committer.step()
    delivered.report(delivered.archive.asked[0], failed=0x0112)
    delivered.clock.pass_s(HOUR_S + 1)
    delivered.deliverer.step()
    delivered.report(delivered.archive.asked[1], failed=0x0112)  # what it did not have then
    assert delivered.states()["sr.dcm"] == "committing"
    delivered.report(delivered.archive.asked[1])
    assert delivered.study() == "delivered"


@pytest.mark.parametrize("reason", [None, [1, 2]])
def test_a_failure_without_a_reason_is_asked_for_again(delivered, reason):
    delivered.committer.step()
    told = Dataset()
    told.TransactionUID = delivered.archive.asked[0][0]
    item = Dataset()
    item.ReferencedSOPInstanceUID = delivered.archive.asked[0][1][0]
    if reason is not None:
        item.FailureReason = reason
    told.FailedSOPSequence = [item]
    note_report(delivered.places, delivered.clock, told)
    assert delivered.states()["sr.dcm"] == "committing"
    assert "failure reason 0x0000" in delivered.message()


def test_an_archive_that_is_asked_to_confirm_no_more_leaves_nothing_open(delivered):
    delivered.committer.step()
    deliverer = Deliverer(delivered.index, delivered.clock, delivered.places, delivered.archive)
    assert not deliverer.step()
    assert delivered.states()["sr.dcm"] == "sent"
    assert delivered.study() == "delivered"
    delivered.report()  # too late, and no matter
    assert delivered.states()["sr.dcm"] == "sent"


def test_a_report_about_an_earlier_revision_does_not_touch_the_study(delivered, files):
    delivered.committer.step()
    with delivered.index.transaction():
        delivered.index.change("UPDATE studies SET state = 'collecting', input_key = NULL, revision = 2")
    delivered.report()
    assert delivered.states()["sr.dcm"] == "committed"
    assert delivered.study() == "collecting"


def to_an_archive(make, tmp_path, *datasets, **settings):
    """Deliver the results of one study to an archive; return the appliance and the archive."""
    settings = {"host": "127.0.0.1", "port": 104, "ae_title": "PACS", **settings}
    one, archive = make(destination=(Destination("out", "dicom", **settings),)), Archive()
    for number, ds in enumerate(datasets):
        one.receive(dicom_files.write(ds, tmp_path / f"{number}.dcm"))
    one.deliverers = [Deliverer(one.index, one.clock, one.places, archive)]
    one.run(15)
    return one, archive


def test_an_archive_gets_the_report_of_a_study_that_was_not_scored(make, tmp_path):
    one, archive = to_an_archive(make, tmp_path, dicom_files.radiograph_dataset())
    assert archive.sent == ["sr.dcm"]
    assert one.study()["state"] == "delivered"


def test_an_archive_that_does_not_want_it_gets_nothing(make, tmp_path):
    one, archive = to_an_archive(make, tmp_path, dicom_files.radiograph_dataset(), results=("sr",))
    assert archive.sent == []
    assert one.study()["state"] == "scored"


def test_a_study_of_which_no_dicom_object_can_be_made_waits_for_a_person(make, tmp_path):
    datasets = [dicom_files.radiograph_dataset(PatientID=name) for name in ("A", "B")]
    one, archive = to_an_archive(make, tmp_path, *datasets)
    assert archive.sent == []
    assert (one.study()["state"], one.study()["code"]) == ("parked", "two-patients")
