"""The states of a study: when it is due, late images, faults of the worker, and its results."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from pydicom import dcmread

from helpers import dicom_files
from helpers.appliance import OUT, tiny_files
from spinescore.runtime.appliance.config import Destination, Score
from spinescore.runtime.appliance.delivery import Outcome
from spinescore.runtime.appliance.recovery import recover
from spinescore.runtime.appliance.resultset import read_results
from spinescore.runtime.appliance.status import deliver_again, retry, show_study, status
from spinescore.runtime.appliance.studies import input_key
from spinescore.runtime.errors import EngineError, InputRejected


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
    from spinescore.runtime.appliance import resultset
    from spinescore.runtime.errors import OutputError

    def refuse(*arguments, **more):
        raise OutputError("no valid UID")

    monkeypatch.setattr(resultset, "structured_report", refuse)
    appliance = make()
    appliance.receive(*files)
    appliance.run(5)
    assert appliance.delivered() == {"revision-1": ["report.json", "set.json"]}
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "output")


def fails(appliance, fault):
    """Have the worker fail with this study's jobs, and score all others."""
    act = appliance.worker.act
    appliance.worker.act = lambda job: fault(job) if job.study_instance_uid == "1.2.3.4" else act(job)


def crash(appliance):
    def act(job):
        appliance.worker.end = "SIGSEGV"
        return []

    return act


def hang(appliance):
    def act(job):
        appliance.worker.silent = True
        return []

    return act


def leak(appliance):
    def act(job):
        appliance.worker.memory = 9000 << 20
        return []

    return act


@pytest.mark.parametrize(
    ("fault", "code"), [(crash, "worker-crashed"), (hang, "worker-timeout"), (leak, "worker-memory")]
)
def test_a_worker_that_fails_is_ended_and_its_study_tried_once_more(make, files, tmp_path, fault, code):
    appliance = make()
    fails(appliance, fault(appliance))
    appliance.receive(*files)
    appliance.receive(*tiny_files(tmp_path / "other", "1.2.9"))
    appliance.run(200)
    assert appliance.states() == {"1.2.3.4": "parked", "1.2.9": "delivered"}
    assert appliance.study()["code"] == code
    assert [job.study_instance_uid for job in appliance.worker.jobs].count("1.2.3.4") == 2
    assert (appliance.worker.killed, appliance.worker.starts) == (2, 3)
    state = status(appliance.places, appliance.index, appliance.clock)
    assert (state["parked"], state["last_faults"][0]["code"]) == ({code: 1}, code)
    del appliance.worker.act
    assert retry(appliance.index, appliance.clock, 1) == "study 1 is due again"
    appliance.run(5)
    assert appliance.states()["1.2.3.4"] == "delivered"
    assert "not parked" in retry(appliance.index, appliance.clock, 1)


def test_an_engine_that_fails_is_a_fault_of_the_worker(make, files):
    def score(study):
        raise EngineError("it computes nonsense")

    appliance = make(score=score)
    appliance.receive(*files)
    appliance.run(10)
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "worker-crashed")
    assert appliance.delivered() == {}


def test_a_reject_is_a_result(make, files):
    def score(study):
        raise InputRejected("two-patients", "two")

    appliance = make(score=score)
    appliance.receive(*files)
    appliance.run(10)
    assert appliance.delivered() == {"revision-1": ["not-scored.json", "set.json"]}


def test_a_worker_that_cannot_open_its_bundle_blames_no_study(make, files):
    appliance = make()

    def start():
        appliance.worker.starts, appliance.worker.silent = appliance.worker.starts + 1, True
        appliance.worker.said, appliance.worker.end = [{"refused": "the bundle is altered"}], "exit status 1"

    appliance.worker.open = start
    appliance.receive(*files)
    appliance.run(60)
    assert appliance.study()["state"] == "due"
    assert 5 <= appliance.worker.starts <= 7  # after 1, 2, 4, 8 .. seconds
    assert status(appliance.places, appliance.index, appliance.clock)["worker"]["state"] == "not running"
    assert appliance.dispatcher.shown["message"] == "the bundle is altered"


def test_the_check_of_faster_engines_is_shown_until_it_is_done(make):
    appliance = make()
    appliance.step()
    appliance.step()
    appliance.worker.said = [{"check": "OpenVINO int8 is being checked"}]
    appliance.step()
    appliance.step()
    assert appliance.dispatcher.shown["check"] == "OpenVINO int8 is being checked"
    appliance.worker.said = [{"beat": "idle", "checking": False}]
    appliance.step()
    assert "check" not in appliance.dispatcher.shown


def test_a_damaged_object_parks_its_study(make, files):
    appliance = make()
    received = appliance.receive(*files)
    path = appliance.places.object(received[0].sha256)
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    appliance.run(5)
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "object-damaged")


def test_an_interrupted_study_is_due_again_after_the_others(make, files, tmp_path):
    appliance = make()
    appliance.receive(*files)
    appliance.clock.pass_s(3.0)
    appliance.queue.advance()
    appliance.queue.take()
    assert appliance.study()["state"] == "scoring"
    appliance.receive(*tiny_files(tmp_path / "other", "1.2.9"))
    again = make(appliance.clock)
    again.run(6)
    assert set(again.states().values()) == {"delivered"}


def test_a_destination_is_tried_again_later_and_later_and_then_parked(make, files):
    appliance = make()
    tries = []

    def send(parcel):
        tries.append(appliance.clock.now())
        return Outcome("later", "no network")

    appliance.destinations[0].send = send
    appliance.receive(*files)
    appliance.run(60)
    gaps = [after - before for before, after in pairwise(tries)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= 5.0
    for _ in range(40):
        appliance.clock.pass_s(450.0)
        appliance.step()
    assert appliance.study()["state"] == "delivering"
    assert all(after - before == 900.0 for before, after in pairwise(tries[-5:]))
    appliance.clock.pass_s(7 * 86400.0)
    for _ in range(5):
        appliance.clock.pass_s(1000.0)
        appliance.step()
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "delivery-expired")
    del appliance.destinations[0].send
    assert "has its results" in retry(appliance.index, appliance.clock, 1)
    appliance.clock.pass_s(1000.0)
    assert deliver_again(appliance.index, appliance.clock, 1).startswith("3 files")
    appliance.run(5)
    assert appliance.study()["state"] == "delivered"


def test_a_refusal_parks_at_once_and_costs_the_other_files_nothing(make, files):
    appliance = make()
    send = appliance.destinations[0].send
    appliance.destinations[0].send = lambda parcel: (
        Outcome("refused", "0x0122") if parcel.kind == "sr" else send(parcel)
    )
    appliance.receive(*files)
    appliance.run(5)
    assert appliance.delivered() == {"revision-1": ["report.json", "set.json"]}
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "delivery-refused")


def test_an_unclear_outcome_is_asked_before_anything_is_sent_again(make, files):
    appliance = make()
    appliance.receive(*files)
    appliance.run(5)
    sent, asked = [], []
    with appliance.index.transaction():
        appliance.index.change("UPDATE deliveries SET state = 'sending'")
    again = make(appliance.clock)
    send, holds = again.destinations[0].send, again.destinations[0].holds
    (again.root / OUT / "1.2.3.4/revision-1/sr.dcm").unlink()
    again.destinations[0].send = lambda parcel: (sent.append(parcel.kind), send(parcel))[1]
    again.destinations[0].holds = lambda parcel: (asked.append(parcel.kind), holds(parcel))[1]
    again.run(3)
    assert (sorted(asked), sent) == (["json", "set", "sr"], ["sr"])
    assert again.delivered() == {"revision-1": ["report.json", "set.json", "sr.dcm"]}


def test_results_are_as_open_as_their_folder(make, files):
    appliance = make()
    (appliance.root / OUT).chmod(0o750)
    appliance.receive(*files)
    appliance.run(5)
    folder = appliance.root / OUT / "1.2.3.4" / "revision-1"
    assert folder.stat().st_mode & 0o777 == 0o750
    assert (folder / "sr.dcm").stat().st_mode & 0o777 == 0o640


def test_results_wait_for_a_folder_that_is_not_mounted(make, files):
    appliance = make()
    (appliance.root / OUT).rmdir()
    appliance.receive(*files)
    appliance.run(5)
    assert appliance.study()["state"] == "delivering"
    assert not (appliance.root / OUT).exists()
    (appliance.root / OUT).mkdir()
    appliance.clock.pass_s(60.0)
    appliance.run(5)
    assert appliance.delivered() == {"revision-1": ["report.json", "set.json", "sr.dcm"]}


def test_a_changed_date_changes_no_time(make, files, monkeypatch):
    from spinescore.runtime.appliance.clock import read_clock, start_clock

    appliance = make()
    first = start_clock(appliance.index)
    assert start_clock(appliance.index).now() - first.now() < 1.0
    with appliance.index.transaction():
        appliance.index.keep("boot", "an earlier start of the machine")
        appliance.index.keep("latest_s", "5000000.0")
    later = start_clock(appliance.index)
    assert 5000000.0 <= later.now() < 5000010.0
    assert abs(read_clock(appliance.index).now() - later.now()) < 1.0
