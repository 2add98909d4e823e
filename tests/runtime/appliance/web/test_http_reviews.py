"""Readers' verdicts over HTTP: corrections, "cannot be read", "accepted", and previews of them."""

from __future__ import annotations

import asyncio
import json

import pytest
from pydicom import dcmread

from helpers.appliance import tiny_files
from helpers.http_calls import acall
from helpers.served import corner, moved, serve
from spinescore.runtime import StudyReport
from spinescore.runtime.appliance.configuration.config import Score, SpoolPart
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.recovery import clean
from spinescore.runtime.appliance.seen.audit import files_of, record_of
from spinescore.runtime.appliance.store.studies import park

GRADES = {"C3-superior": 2, "L1-inferior": None}
POINTS = {"cervical": {"C2/C3": [[30.0, 40.0], [50.0, 41.0]]}}


def records(delivered):
    return [record_of(line) for path in files_of(delivered.appliance.places.root / "audit")
            for line in path.read_bytes().splitlines()]  # fmt: skip


def test_a_correction_of_grades_is_a_revision_that_is_delivered_with_its_predecessor(delivered):
    before = delivered.report()
    sr = dcmread(next((delivered.appliance.root / "out").glob("*/revision-1/sr.dcm")))
    answer = delivered.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": GRADES, "comment": "low"})
    assert (answer.status, answer.headers["cache-control"]) == (202, "private, no-store")
    study = answer.json()["study"]
    assert (study["revision"], study["state"], study["reviewed"]) == (2, "due", "corrected")
    assert study["report_url"] == study["revisions"][0]["report_url"]
    assert [(one["by"], one["made_at"] is None) for one in study["revisions"]] == [("spinescore", False), ("AB", True)]
    delivered.appliance.run(10)
    report = delivered.report()
    assert (corner(report, "C3-superior")["grade"], corner(report, "L1-inferior")["grade"]) == (2, None)
    assert [one["reader"] for one in report["corrections"]] == ["AB"]
    assert report["corrections"][0]["grades"][0]["before"] == corner(before, "C3-superior")["grade"]
    assert list(delivered.appliance.delivered()) == ["revision-1", "revision-2"]
    corrected = dcmread(next((delivered.appliance.root / "out").glob("*/revision-2/sr.dcm")))
    reference = corrected.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == sr.SOPInstanceUID != corrected.SOPInstanceUID
    study = delivered.get("/v1/studies/1")
    assert [(one["by"], one["verdict"], one["comment"]) for one in study["revisions"]] == [
        ("spinescore", None, None), ("AB", "corrected", "low"),
    ]  # fmt: skip
    assert study["total"]["value"] == report["total"]["value"] == study["revisions"][1]["total"]["value"]
    record = next(one for one in records(delivered) if one["event"] == "corrected")
    assert (record["reader"], record["grades"], record["revision"], "points" in record) == ("AB", 2, 2, False)


def test_corrections_add_up_and_points_are_scored(delivered, score):
    points = moved(delivered.report())
    delivered.post("/v1/studies/1/points", {"revision": 1, "reader": "AB", "points": points, "grades": GRADES})
    delivered.appliance.run(10)
    delivered.post("/v1/studies/1/grades", {"revision": 2, "reader": "CD", "grades": {"C3-superior": 3}})
    delivered.appliance.run(10)
    report = delivered.report()
    assert [one["reader"] for one in report["corrections"]] == ["AB", "CD"]
    disc = report["regions"]["cervical"]["discs"][0]
    assert ([disc["centre_px"], disc["anterior_px"]], disc["points"]) == (points["cervical"]["C2/C3"], "given")
    assert (corner(report, "C3-superior")["grade"], corner(report, "L1-inferior")["grade"]) == (3, None)
    assert report["corrections"][1]["grades"][0]["before"] == 2
    assert StudyReport.from_json(json.dumps(report)).corrections[0].points[0].before is not None
    metrics = delivered.ask("GET", "/metrics").body.decode()
    assert 'spinescore_reviews_total{verdict="corrected"} 2.0' in metrics


def test_regions_that_cannot_be_read_are_taken_out_and_that_is_delivered(delivered):
    delivered.post("/v1/studies/1/unreadable", {"revision": 1, "reader": "AB", "regions": ["lumbar"]})
    delivered.appliance.run(10)
    report = delivered.report()
    assert (report["regions"]["lumbar"]["reject"]["code"], report["total"]["status"]) == (
        "reader-unreadable", "incomplete",
    )  # fmt: skip
    points = {"lumbar": {"L1/L2": [[30.0, 40.0], [50.0, 41.0]]}}
    refused = delivered.post("/v1/studies/1/points", {"revision": 2, "reader": "AB", "points": points})
    assert (refused.status, "could not read" in refused.json()["detail"]) == (400, True)
    delivered.post("/v1/studies/1/unreadable", {"revision": 2, "reader": "AB", "regions": ["cervical"]})
    delivered.appliance.run(10)
    assert delivered.get("/v1/studies/1")["reviewed"] == "unreadable"
    assert "not-scored.json" in delivered.appliance.delivered()["revision-3"]
    assert {"sr.dcm", "report.json"} <= set(delivered.appliance.delivered()["revision-3"])


def test_of_two_readers_at_once_one_is_told_to_look_again(delivered):
    call = {"revision": 1, "reader": "AB", "grades": GRADES}
    assert delivered.post("/v1/studies/1/grades", call).status == 202
    for path, more in (
        ("grades", {"grades": GRADES}),
        ("accept", {}),
        ("preview", {}),
        ("unreadable", {"regions": ["lumbar"]}),
    ):
        late = delivered.post(f"/v1/studies/1/{path}", {"revision": 1, "reader": "CD", **more})
        assert (late.status, late.code) == (409, "review-conflict"), path
    delivered.appliance.run(10)
    assert delivered.post("/v1/studies/1/accept", {"revision": 1, "reader": "CD"}).status == 409
    assert delivered.post("/v1/studies/1/accept", {"revision": 2, "reader": "CD"}).status == 200
    assert len(delivered.get("/v1/studies/1")["revisions"]) == 2


def test_of_two_corrections_at_the_same_moment_one_counts(delivered):
    async def both():
        body = json.dumps({"revision": 1, "reader": "AB", "grades": GRADES}).encode()
        ask = [acall(delivered.app, "POST", "/v1/studies/1/grades", body, "application/json") for _ in range(4)]
        return sorted(answer.status for answer in await asyncio.gather(*ask))

    assert asyncio.run(both()) == [202, 409, 409, 409]
    delivered.appliance.run(10)
    assert list(delivered.appliance.delivered()) == ["revision-1", "revision-2"]


def test_a_study_that_collects_is_scored_or_is_parked_is_not_corrected(delivered, tmp_path):
    index, clock = delivered.appliance.index, delivered.appliance.clock
    delivered.appliance.receive(*tiny_files(tmp_path / "other", "1.2.9"))
    for state in ("collecting", "due", "scoring"):
        with index.transaction():
            index.change("UPDATE studies SET state = ? WHERE id = 2", state)
        answer = delivered.post("/v1/studies/2/accept", {"revision": 1, "reader": "AB"})
        assert (answer.status, state in answer.json()["detail"]) == (409, True)
    with index.transaction():
        park(index, clock, 2, Fault("worker-crashed", "it crashed"))
    assert delivered.post("/v1/studies/2/accept", {"revision": 1, "reader": "AB"}).status == 409


@pytest.mark.parametrize("state", ["delivering", "parked"])
def test_a_study_whose_delivery_goes_on_or_failed_is_corrected(delivered, state):
    index = delivered.appliance.index
    with index.transaction():
        index.change("UPDATE deliveries SET state = ? WHERE kind = 'sr'", "parked" if state == "parked" else "waiting")
        index.change("UPDATE studies SET state = ?", state)
    assert delivered.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": GRADES}).status == 202
    delivered.appliance.run(10)
    assert delivered.appliance.states() == {"1.2.3.4": "delivered"}
    rows = index.rows("SELECT r.revision, d.state FROM deliveries d JOIN results r USING (input_key) WHERE kind = 'sr'")
    assert [tuple(row) for row in rows] == [(1, "cancelled"), (2, "sent")]


def test_a_radiograph_that_comes_after_a_correction_leaves_it_behind(make, score, tmp_path):
    served = serve(make(), score)
    files = tiny_files(tmp_path / "study")
    served.appliance.receive(files[0])
    served.appliance.run(20)
    served.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": {"C3-superior": 2}})
    served.appliance.run(10)
    assert corner(served.report(), "C3-superior")["grade"] == 2
    served.appliance.receive(files[1])
    served.appliance.run(20)
    study, report = served.get("/v1/studies/1"), served.report()
    assert (study["revision"], study["reviewed"], report["corrections"]) == (3, None, [])
    assert "corrections-left-behind" in study["findings"]
    assert "corrections-left-behind" in [one["code"] for one in report["notices"]]
    served.post("/v1/studies/1/grades", {"revision": 3, "reader": "AB", "grades": {"C3-superior": 1}})
    served.appliance.run(10)
    assert [one["grades"][0]["after"] for one in served.report()["corrections"]] == [1]
    assert "corrections-left-behind" not in served.get("/v1/studies/1")["findings"]


def test_a_radiograph_that_comes_before_a_correction_is_scored_leaves_it_behind(make, score, tmp_path):
    """The reader did not see it."""
    served = serve(make(), score)
    files = tiny_files(tmp_path / "study")
    served.appliance.receive(files[0])
    served.appliance.run(20)
    served.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": {"C3-superior": 2}})
    served.appliance.receive(files[1])
    served.appliance.run(20)
    study = served.get("/v1/studies/1")
    assert (study["revision"], study["state"], "corrections-left-behind" in study["findings"]) == (3, "delivered", True)
    assert list(served.appliance.delivered()) == ["revision-1", "revision-3"]


def test_a_correction_without_its_radiographs_waits_until_they_are_sent_again(delivered, files):
    delivered.appliance.clock.pass_s(90000.0)
    clean(delivered.appliance.places, delivered.appliance.index, delivered.appliance.clock, SpoolPart("x"))
    assert not list(delivered.appliance.places.objects.glob("*/*"))
    points = moved(delivered.report())
    preview = delivered.post("/v1/studies/1/preview", {"revision": 1, "points": points})
    assert (preview.status, preview.code) == (409, "object-missing")
    assert delivered.post("/v1/studies/1/points", {"revision": 1, "reader": "AB", "points": points}).status == 202
    delivered.appliance.run(10)
    study = delivered.get("/v1/studies/1")
    assert (study["state"], study["code"], "sent again" in study["message"]) == ("parked", "object-missing", True)
    again = delivered.post("/v1/studies/1/accept", {"revision": 1, "reader": "AB"})
    assert (again.status, "sent again" in again.json()["detail"]) == (409, True)
    delivered.appliance.receive(*files)
    delivered.appliance.run(20)
    assert (delivered.get("/v1/studies/1")["revision"], delivered.appliance.states()) == (2, {"1.2.3.4": "delivered"})
    assert [one["reader"] for one in delivered.report()["corrections"]] == ["AB"]


def test_a_correction_that_cannot_be_scored_is_replaced_by_another_one(delivered):
    index, clock = delivered.appliance.index, delivered.appliance.clock
    delivered.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": GRADES})
    with index.transaction():
        park(index, clock, 1, Fault("worker-crashed", "it crashed"))
    assert delivered.post("/v1/studies/1/accept", {"revision": 1, "reader": "AB"}).status == 409
    assert (
        delivered.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": {"C3-superior": 1}}).status
        == 202
    )
    delivered.appliance.run(10)
    assert (delivered.get("/v1/studies/1")["revision"], len(delivered.report()["corrections"])) == (3, 1)


def test_a_correction_is_scored_by_the_bundle_of_today(delivered):
    delivered.appliance.queue._bundle_sha256 = "another"
    delivered.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": GRADES})
    delivered.appliance.run(10)
    assert corner(delivered.report(), "C3-superior")["grade"] == 2


def test_a_grade_that_does_not_fit_the_new_points_parks_the_study_and_is_corrected_anew(delivered):
    far = {
        "cervical": {
            level: [[1.0 + n, 1.0], [1.5 + n, 1.0]] for n, level in enumerate(("C2/C3", "C3/C4", "C4/C5", "C5/C6"))
        }
    }
    delivered.post("/v1/studies/1/points", {"revision": 1, "reader": "AB", "points": far, "grades": {"C3-superior": 1}})
    delivered.appliance.run(10)
    study = delivered.get("/v1/studies/1")
    assert (study["state"], study["code"]) == ("parked", "correction-refused")
    delivered.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": {"C3-superior": 1}})
    delivered.appliance.run(10)
    assert delivered.appliance.states() == {"1.2.3.4": "delivered"}


def test_results_are_held_until_a_reader_has_judged_them(make, score, bundle, tmp_path):
    held = Score(str(bundle), hold_for_review=True)
    served = serve(make(settings=held), score)
    for number in (1, 2, 3):
        served.appliance.receive(*tiny_files(tmp_path / f"study-{number}", f"1.2.{number}"))
    served.appliance.run(20)
    assert set(served.appliance.states().values()) == {"scored"}
    served.appliance.clock.pass_s(40 * 86400.0)  # nothing that is held is removed after its time
    clean(served.appliance.places, served.appliance.index, served.appliance.clock, SpoolPart("x"))
    served.appliance.close()
    again = make(settings=held)
    again.clock.now_s = served.appliance.clock.now_s
    served = serve(again, score)
    served.appliance.run(10)
    assert served.appliance.delivered("1.2.1") == served.appliance.delivered("1.2.2") == {}
    assert served.post("/v1/studies/1/accept", {"revision": 1, "reader": "AB", "comment": None}).status == 200
    assert served.get("/v1/studies/1")["state"] == "delivering"
    served.post("/v1/studies/2/grades", {"revision": 1, "reader": "AB", "grades": GRADES})
    served.post("/v1/studies/3/unreadable", {"revision": 1, "reader": "AB", "regions": ["lumbar"]})
    served.appliance.run(10)
    assert set(served.appliance.states().values()) == {"delivered"}
    assert [list(served.appliance.delivered(f"1.2.{number}")) for number in (1, 2, 3)] == [
        ["revision-1"], ["revision-2"], ["revision-2"],
    ]  # fmt: skip
    assert [one["reviewed"] for one in served.get("/v1/studies")["studies"]] == ["unreadable", "corrected", "accepted"]
