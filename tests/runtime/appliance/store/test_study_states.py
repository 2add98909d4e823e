"""The states of a study: when it is due, late images, and its results."""

from __future__ import annotations

import json

from pydicom import dcmread

from helpers import dicom_files
from helpers.appliance import OUT, tiny_files
from spinescore.runtime.appliance.configuration.config import Destination, Score
from spinescore.runtime.appliance.recovery import recover
from spinescore.runtime.appliance.seen.status import show_study
from spinescore.runtime.appliance.sending.delivery import Outcome
from spinescore.runtime.appliance.store.resultset import read_results
from spinescore.runtime.appliance.store.studies import input_key


def state_after(appliance, *seconds):
    found = []
    for passed in seconds:
        appliance.clock.pass_s(passed)
        appliance.queue.advance()
        found.append(appliance.study()["state"])
    return found


def test_a_complete_study_is_due_after_a_short_while(make, files):
    appliance = make()
    appliance.receive(*files)
    assert state_after(appliance, 1.9, 0.2) == ["collecting", "due"]


def test_half_a_study_waits_for_the_other_half(make, files):
    appliance = make()
    appliance.receive(files[0])
    assert state_after(appliance, 9.9) == ["collecting"]
    appliance.receive(files[1])
    assert state_after(appliance, 1.9, 0.2) == ["collecting", "due"]


def test_half_a_study_is_due_when_nothing_comes(make, files):
    appliance = make()
    appliance.receive(files[0])
    assert state_after(appliance, 9.9, 0.2) == ["collecting", "due"]


def test_an_open_association_holds_its_studies_but_not_for_ever(make, files, tmp_path):
    appliance = make()
    with appliance.spool.association("modality") as association:
        for path in files:
            appliance.spool.receive([path.read_bytes()], association)
        assert state_after(appliance, 50.0, 49.0) == ["collecting", "collecting"]
        assert state_after(appliance, 2.0) == ["due"]
    appliance.receive(*tiny_files(tmp_path / "b", "1.2.9"))
    with appliance.spool.association("modality") as association:
        appliance.spool.receive([tiny_files(tmp_path / "c", "1.2.7", ("lumbar",))[0].read_bytes()], association)
        appliance.clock.pass_s(3.0)
        appliance.queue.advance()
        assert appliance.states() == {"1.2.3.4": "due", "1.2.9": "due", "1.2.7": "collecting"}


def test_associations_of_a_service_that_ended_hold_nothing(make, files):
    appliance = make()
    with appliance.spool.association("modality") as association:
        for path in files:
            appliance.spool.receive([path.read_bytes()], association)
        recover(appliance.places, appliance.index, appliance.clock)
        assert state_after(appliance, 2.1) == ["due"]


def test_the_key_depends_on_everything_but_the_order():
    objects = [("1.2", "a"), ("1.3", "b")]
    key = input_key("bundle", {"strict": False}, objects)
    assert key == input_key("bundle", {"strict": False}, reversed(objects))
    others = [input_key("other", {"strict": False}, objects), input_key("bundle", {"strict": True}, objects),
              input_key("bundle", {"strict": False}, objects[:1]),
              input_key("bundle", {"strict": False}, [("1.2", "a"), ("1.3", "c")])]  # fmt: skip
    assert len({key, *others}) == 5


def test_a_study_is_scored_once_and_delivered_once(make, files):
    appliance = make()
    appliance.receive(*files)
    appliance.run(5)
    assert appliance.states() == {"1.2.3.4": "delivered"}
    assert appliance.delivered() == {"revision-1": ["report.json", "set.json", "sr.dcm"]}
    results = read_results(appliance.places.results / appliance.study()["input_key"])
    assert (results.scored, results.code, results.predecessor) == (True, None, None)
    report = json.loads((appliance.root / OUT / "1.2.3.4/revision-1/report.json").read_text())
    assert report["total"]["value"] == 26
    appliance.receive(*files)
    appliance.run(30)
    assert len(appliance.worker.jobs) == 1


def test_a_late_second_view_makes_a_revision_that_names_its_predecessor(make, files):
    appliance = make()
    appliance.receive(files[0])
    appliance.run(15)
    appliance.receive(files[1])
    appliance.run(15)
    assert list(appliance.delivered()) == ["revision-1", "revision-2"]
    first, second = (dcmread(appliance.root / OUT / "1.2.3.4" / f"revision-{n}" / "sr.dcm") for n in (1, 2))
    (item,) = second.PredecessorDocumentsSequence
    (series,) = item.ReferencedSeriesSequence
    (reference,) = series.ReferencedSOPSequence
    assert item.StudyInstanceUID == "1.2.3.4"
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID != second.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == first.SOPClassUID
    assert "PredecessorDocumentsSequence" not in first
    document = json.loads((appliance.root / OUT / "1.2.3.4/revision-2/set.json").read_text())
    assert document["predecessor"]["sop_instance_uid"] == first.SOPInstanceUID


def test_a_late_image_that_changes_nothing_sends_the_same_document(make, files, tmp_path):
    appliance = make()
    appliance.receive(*files)
    appliance.run(5)
    path = dicom_files.write(dicom_files.radiograph_dataset(), tmp_path / "small.dcm")  # too small to be scored
    appliance.receive(path)
    appliance.run(15)
    assert list(appliance.delivered()) == ["revision-1", "revision-2"]
    folder = appliance.root / OUT / "1.2.3.4"
    assert (folder / "revision-1/sr.dcm").read_bytes() == (folder / "revision-2/sr.dcm").read_bytes()


def test_a_late_image_cancels_what_was_not_sent(make, files):
    appliance = make()
    appliance.destinations[0].send = lambda parcel: Outcome("later", "no network")
    appliance.receive(files[0])
    appliance.run(12)
    assert appliance.study()["state"] == "delivering"
    del appliance.destinations[0].send
    appliance.receive(files[1])
    appliance.clock.pass_s(1000.0)
    appliance.run(5)
    assert list(appliance.delivered()) == ["revision-2"]
    states = appliance.index.rows("SELECT state, count(*) FROM deliveries GROUP BY state ORDER BY state")
    assert [tuple(row) for row in states] == [("cancelled", 3), ("sent", 3)]


def test_an_image_that_arrives_while_its_study_is_scored_begins_a_revision(make, files):
    appliance = make()
    appliance.receive(files[0])
    act = appliance.worker.act

    def late(job):
        appliance.worker.act = act
        appliance.receive(files[1])
        return act(job)

    appliance.worker.act = late
    appliance.run(30)
    assert list(appliance.delivered()) == ["revision-2"]
    revisions = appliance.index.rows("SELECT revision FROM results ORDER BY revision")
    assert [row["revision"] for row in revisions] == [1, 2]


def test_a_study_that_cannot_be_scored_has_a_result_that_says_so(make, tmp_path):
    path = dicom_files.write(dicom_files.radiograph_dataset(), tmp_path / "small.dcm")
    appliance = make()
    appliance.receive(path)
    appliance.run(15)
    assert appliance.study()["state"] == "delivered"
    assert appliance.delivered() == {"revision-1": ["not-scored.json", "report.json", "set.json", "sr.dcm"]}
    document = json.loads((appliance.root / OUT / "1.2.3.4/revision-1/not-scored.json").read_text())
    assert (document["code"], document["study_instance_uid"]) == ("too-small", "1.2.3.4")
    assert document["next_step"]


def test_a_study_of_two_patients_is_not_scored(make, tmp_path):
    appliance = make()
    for name in ("A", "B"):
        ds = dicom_files.radiograph_dataset(PatientID=name)
        appliance.receive(dicom_files.write(ds, tmp_path / f"{name}.dcm"))
    appliance.run(15)
    assert appliance.delivered() == {"revision-1": ["not-scored.json", "set.json"]}
    assert show_study(appliance.index, 1)["results"][0]["code"] == "two-patients"


def test_a_destination_that_does_not_want_them_gets_no_unscored_studies(make, tmp_path):
    destination = Destination(OUT, "folder", str(tmp_path / OUT), results=("json",))
    appliance = make(destination=(destination,))
    appliance.receive(dicom_files.write(dicom_files.radiograph_dataset(), tmp_path / "small.dcm"))
    appliance.run(15)
    assert (appliance.study()["state"], appliance.delivered()) == ("scored", {})


def test_in_the_shadow_everything_is_scored_and_nothing_delivered(make, bundle, files):
    appliance = make(settings=Score(str(bundle), shadow=True))
    appliance.receive(*files)
    appliance.run(5)
    assert (appliance.study()["state"], appliance.delivered()) == ("scored", {})
    assert (appliance.places.results / appliance.study()["input_key"] / "report.json").exists()


def test_a_format_that_cannot_be_made_parks_the_study_and_the_others_are_delivered(make, files, monkeypatch):
    from spinescore.runtime.appliance.store import resultset
    from spinescore.runtime.errors import OutputError

    def refuse(*arguments, **more):
        raise OutputError("no valid UID")

    monkeypatch.setattr(resultset, "structured_report", refuse)
    appliance = make()
    appliance.receive(*files)
    appliance.run(5)
    assert appliance.delivered() == {"revision-1": ["report.json", "set.json"]}
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "output")


def test_damaged_results_that_were_not_noted_are_made_again(make, files):
    appliance = make()
    appliance.receive(*files)
    appliance.clock.pass_s(20.0)
    appliance.queue.advance()
    job, is_done = appliance.queue.take()
    assert not is_done
    appliance.worker.act(job)
    (appliance.places.results / job.input_key / "set.json").write_text("{")
    appliance.close()
    again = make(appliance.clock)  # the service ended before the index had the results
    again.run(5)
    assert again.delivered() == {"revision-1": ["report.json", "set.json", "sr.dcm"]}


def test_a_changed_date_changes_no_time(make, files, monkeypatch):
    from spinescore.runtime.appliance.clock import read_clock, start_clock

    appliance = make()
    first = start_clock(appliance.index)
    assert start_clock(appliance.index).now() - first.now() < 1.0
    with appliance.index.transaction():
        appliance.index.keep("boot", "an earlier start of the machine")
        appliance.index.keep("latest_s", "5000000.0")
    by_hand = read_clock(appliance.index)  # of a command, while the service is not running
    assert 5000000.0 <= by_hand.now() < 5000010.0
    later = start_clock(appliance.index)
    assert 5000000.0 <= later.now() < 5000010.0
    assert abs(read_clock(appliance.index).now() - later.now()) < 1.0
