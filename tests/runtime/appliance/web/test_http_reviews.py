"""Readers' verdicts over HTTP: corrections, "cannot be read", "accepted", and previews of them."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path

import pytest
from pydicom import dcmread

from helpers.appliance import tiny_files
from helpers.http_calls import TCP, acall
from helpers.served import CLIENTS, serve
from spinescore.runtime import StudyReport
from spinescore.runtime.appliance.configuration.config import Score, SpoolPart
from spinescore.runtime.appliance.configuration.httpconfig import Http, HttpToken
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.recovery import clean
from spinescore.runtime.appliance.seen.audit import files_of, record_of
from spinescore.runtime.appliance.store.studies import park
from spinescore.runtime.appliance.web.access import Client, read_access

GRADES = {"C3-superior": 2, "L1-inferior": None}
POINTS = {"cervical": {"C2/C3": [[30.0, 40.0], [50.0, 41.0]]}}


@pytest.fixture
def tmp_path():
    """A folder in memory if there is one: nothing here is about the disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def served(make, score, files):
    """An appliance whose study 1 was delivered."""
    one = serve(make(), score)
    one.appliance.receive(*files)
    one.appliance.run(10)
    assert one.appliance.states() == {"1.2.3.4": "delivered"}
    return one


def report_of(served, number=1):
    return served.get(served.get(f"/v1/studies/{number}")["report_url"])


def corner(report, site):
    corners = (one for region in report["regions"].values() for disc in region["discs"] for one in disc["corners"])
    return next(one for one in corners if one["site"] == site)


def moved(report, by=1.0):
    """Points of the report's first cervical disc, a pixel lower."""
    disc = report["regions"]["cervical"]["discs"][0]
    return {"cervical": {"C2/C3": [[x, y + by] for x, y in (disc["centre_px"], disc["anterior_px"])]}}


def records(served):
    return [record_of(line) for path in files_of(served.appliance.places.root / "audit")
            for line in path.read_bytes().splitlines()]  # fmt: skip


def test_a_correction_of_grades_is_a_revision_that_is_delivered_with_its_predecessor(served):
    before = report_of(served)
    sr = dcmread(next((served.appliance.root / "out").glob("*/revision-1/sr.dcm")))
    answer = served.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": GRADES, "comment": "low"})
    assert (answer.status, answer.headers["cache-control"]) == (202, "private, no-store")
    study = answer.json()["study"]
    assert (study["revision"], study["state"], study["reviewed"]) == (2, "due", "corrected")
    assert study["report_url"] == study["revisions"][0]["report_url"]
    assert [(one["by"], one["made_at"] is None) for one in study["revisions"]] == [("spinescore", False), ("AB", True)]
    served.appliance.run(10)
    report = report_of(served)
    assert (corner(report, "C3-superior")["grade"], corner(report, "L1-inferior")["grade"]) == (2, None)
    assert [one["reader"] for one in report["corrections"]] == ["AB"]
    assert report["corrections"][0]["grades"][0]["before"] == corner(before, "C3-superior")["grade"]
    assert list(served.appliance.delivered()) == ["revision-1", "revision-2"]
    corrected = dcmread(next((served.appliance.root / "out").glob("*/revision-2/sr.dcm")))
    reference = corrected.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == sr.SOPInstanceUID != corrected.SOPInstanceUID
    study = served.get("/v1/studies/1")
    assert [(one["by"], one["verdict"], one["comment"]) for one in study["revisions"]] == [
        ("spinescore", None, None), ("AB", "corrected", "low"),
    ]  # fmt: skip
    assert study["total"]["value"] == report["total"]["value"] == study["revisions"][1]["total"]["value"]
    record = next(one for one in records(served) if one["event"] == "corrected")
    assert (record["reader"], record["grades"], record["revision"], "points" in record) == ("AB", 2, 2, False)


def test_corrections_add_up_and_points_are_scored(served, score):
    points = moved(report_of(served))
    served.post("/v1/studies/1/points", {"revision": 1, "reader": "AB", "points": points, "grades": GRADES})
    served.appliance.run(10)
    served.post("/v1/studies/1/grades", {"revision": 2, "reader": "CD", "grades": {"C3-superior": 3}})
    served.appliance.run(10)
    report = report_of(served)
    assert [one["reader"] for one in report["corrections"]] == ["AB", "CD"]
    disc = report["regions"]["cervical"]["discs"][0]
    assert ([disc["centre_px"], disc["anterior_px"]], disc["points"]) == (points["cervical"]["C2/C3"], "given")
    assert (corner(report, "C3-superior")["grade"], corner(report, "L1-inferior")["grade"]) == (3, None)
    assert report["corrections"][1]["grades"][0]["before"] == 2
    assert StudyReport.from_json(json.dumps(report)).corrections[0].points[0].before is not None
    metrics = served.ask("GET", "/metrics").body.decode()
    assert 'spinescore_reviews_total{verdict="corrected"} 2.0' in metrics


def test_regions_that_cannot_be_read_are_taken_out_and_that_is_delivered(served):
    served.post("/v1/studies/1/unreadable", {"revision": 1, "reader": "AB", "regions": ["lumbar"]})
    served.appliance.run(10)
    report = report_of(served)
    assert (report["regions"]["lumbar"]["reject"]["code"], report["total"]["status"]) == (
        "reader-unreadable", "incomplete",
    )  # fmt: skip
    points = {"lumbar": {"L1/L2": [[30.0, 40.0], [50.0, 41.0]]}}
    refused = served.post("/v1/studies/1/points", {"revision": 2, "reader": "AB", "points": points})
    assert (refused.status, "could not read" in refused.json()["detail"]) == (400, True)
    served.post("/v1/studies/1/unreadable", {"revision": 2, "reader": "AB", "regions": ["cervical"]})
    served.appliance.run(10)
    assert served.get("/v1/studies/1")["reviewed"] == "unreadable"
    assert "not-scored.json" in served.appliance.delivered()["revision-3"]
    assert {"sr.dcm", "report.json"} <= set(served.appliance.delivered()["revision-3"])


def test_of_two_readers_at_once_one_is_told_to_look_again(served):
    call = {"revision": 1, "reader": "AB", "grades": GRADES}
    assert served.post("/v1/studies/1/grades", call).status == 202
    for path, more in (
        ("grades", {"grades": GRADES}),
        ("accept", {}),
        ("preview", {}),
        ("unreadable", {"regions": ["lumbar"]}),
    ):
        late = served.post(f"/v1/studies/1/{path}", {"revision": 1, "reader": "CD", **more})
        assert (late.status, late.code) == (409, "review-conflict"), path
    served.appliance.run(10)
    assert served.post("/v1/studies/1/accept", {"revision": 1, "reader": "CD"}).status == 409
    assert served.post("/v1/studies/1/accept", {"revision": 2, "reader": "CD"}).status == 200
    assert len(served.get("/v1/studies/1")["revisions"]) == 2


def test_of_two_corrections_at_the_same_moment_one_counts(served):
    async def both():
        body = json.dumps({"revision": 1, "reader": "AB", "grades": GRADES}).encode()
        ask = [acall(served.app, "POST", "/v1/studies/1/grades", body, "application/json") for _ in range(4)]
        return sorted(answer.status for answer in await asyncio.gather(*ask))

    assert asyncio.run(both()) == [202, 409, 409, 409]
    served.appliance.run(10)
    assert list(served.appliance.delivered()) == ["revision-1", "revision-2"]


def test_a_study_that_collects_is_scored_or_is_parked_is_not_corrected(served, tmp_path):
    index, clock = served.appliance.index, served.appliance.clock
    served.appliance.receive(*tiny_files(tmp_path / "other", "1.2.9"))
    for state in ("collecting", "due", "scoring"):
        with index.transaction():
            index.change("UPDATE studies SET state = ? WHERE id = 2", state)
        answer = served.post("/v1/studies/2/accept", {"revision": 1, "reader": "AB"})
        assert (answer.status, state in answer.json()["detail"]) == (409, True)
    with index.transaction():
        park(index, clock, 2, Fault("worker-crashed", "it crashed"))
    assert served.post("/v1/studies/2/accept", {"revision": 1, "reader": "AB"}).status == 409


@pytest.mark.parametrize("state", ["delivering", "parked"])
def test_a_study_whose_delivery_goes_on_or_failed_is_corrected(served, state):
    index = served.appliance.index
    with index.transaction():
        index.change("UPDATE deliveries SET state = ? WHERE kind = 'sr'", "parked" if state == "parked" else "waiting")
        index.change("UPDATE studies SET state = ?", state)
    assert served.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": GRADES}).status == 202
    served.appliance.run(10)
    assert served.appliance.states() == {"1.2.3.4": "delivered"}
    rows = index.rows("SELECT r.revision, d.state FROM deliveries d JOIN results r USING (input_key) WHERE kind = 'sr'")
    assert [tuple(row) for row in rows] == [(1, "cancelled"), (2, "sent")]


def test_a_radiograph_that_comes_after_a_correction_leaves_it_behind(make, score, tmp_path):
    served = serve(make(), score)
    files = tiny_files(tmp_path / "study")
    served.appliance.receive(files[0])
    served.appliance.run(20)
    served.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": {"C3-superior": 2}})
    served.appliance.run(10)
    assert corner(report_of(served), "C3-superior")["grade"] == 2
    served.appliance.receive(files[1])
    served.appliance.run(20)
    study, report = served.get("/v1/studies/1"), report_of(served)
    assert (study["revision"], study["reviewed"], report["corrections"]) == (3, None, [])
    assert "corrections-left-behind" in study["findings"]
    assert "corrections-left-behind" in [one["code"] for one in report["notices"]]
    served.post("/v1/studies/1/grades", {"revision": 3, "reader": "AB", "grades": {"C3-superior": 1}})
    served.appliance.run(10)
    assert [one["grades"][0]["after"] for one in report_of(served)["corrections"]] == [1]
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


def test_a_correction_without_its_radiographs_waits_until_they_are_sent_again(served, files):
    served.appliance.clock.pass_s(90000.0)
    clean(served.appliance.places, served.appliance.index, served.appliance.clock, SpoolPart("x"))
    assert not list(served.appliance.places.objects.glob("*/*"))
    points = moved(report_of(served))
    preview = served.post("/v1/studies/1/preview", {"revision": 1, "points": points})
    assert (preview.status, preview.code) == (409, "object-missing")
    assert served.post("/v1/studies/1/points", {"revision": 1, "reader": "AB", "points": points}).status == 202
    served.appliance.run(10)
    study = served.get("/v1/studies/1")
    assert (study["state"], study["code"], "sent again" in study["message"]) == ("parked", "object-missing", True)
    again = served.post("/v1/studies/1/accept", {"revision": 1, "reader": "AB"})
    assert (again.status, "sent again" in again.json()["detail"]) == (409, True)
    served.appliance.receive(*files)
    served.appliance.run(20)
    assert (served.get("/v1/studies/1")["revision"], served.appliance.states()) == (2, {"1.2.3.4": "delivered"})
    assert [one["reader"] for one in report_of(served)["corrections"]] == ["AB"]


def test_a_correction_that_cannot_be_scored_is_replaced_by_another_one(served):
    index, clock = served.appliance.index, served.appliance.clock
    served.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": GRADES})
    with index.transaction():
        park(index, clock, 1, Fault("worker-crashed", "it crashed"))
    assert served.post("/v1/studies/1/accept", {"revision": 1, "reader": "AB"}).status == 409
    assert (
        served.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": {"C3-superior": 1}}).status == 202
    )
    served.appliance.run(10)
    assert (served.get("/v1/studies/1")["revision"], len(report_of(served)["corrections"])) == (3, 1)


def test_a_correction_is_scored_by_the_bundle_of_today(served):
    served.appliance.queue._bundle_sha256 = "another"
    served.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": GRADES})
    served.appliance.run(10)
    assert corner(report_of(served), "C3-superior")["grade"] == 2


def test_a_grade_that_does_not_fit_the_new_points_parks_the_study_and_is_corrected_anew(served):
    far = {
        "cervical": {
            level: [[1.0 + n, 1.0], [1.5 + n, 1.0]] for n, level in enumerate(("C2/C3", "C3/C4", "C4/C5", "C5/C6"))
        }
    }
    served.post("/v1/studies/1/points", {"revision": 1, "reader": "AB", "points": far, "grades": {"C3-superior": 1}})
    served.appliance.run(10)
    study = served.get("/v1/studies/1")
    assert (study["state"], study["code"]) == ("parked", "correction-refused")
    served.post("/v1/studies/1/grades", {"revision": 1, "reader": "AB", "grades": {"C3-superior": 1}})
    served.appliance.run(10)
    assert served.appliance.states() == {"1.2.3.4": "delivered"}


def test_a_preview_of_grades_is_computed_without_the_worker_and_keeps_nothing(served):
    answer = served.post("/v1/studies/1/preview", {"revision": 1, "grades": GRADES})
    assert (answer.status, corner(answer.json()["report"], "C3-superior")["grade"]) == (200, 2)
    assert served.supervisor.jobs() == []
    assert served.post("/v1/studies/1/preview", {"revision": 1}).json()["report"] == report_of(served)
    assert (served.get("/v1/studies/1")["revision"], served.get("/v1/studies/1")["reviewed"]) == (1, None)


def test_a_preview_of_points_is_what_the_correction_gives(served):
    points = moved(report_of(served), 2.0)
    call = {"revision": 1, "reader": "AB", "points": points, "grades": GRADES}
    preview = served.post("/v1/studies/1/preview", call).json()["report"]
    assert served.supervisor.jobs() == ["review"]
    served.post("/v1/studies/1/points", call)
    served.appliance.run(10)
    report = report_of(served)
    assert (preview["regions"], preview["total"], preview["corrections"]) == (
        report["regions"], report["total"], report["corrections"],
    )  # fmt: skip
    served.supervisor.fault = ("worker-timeout", "the worker was silent")
    late = served.post("/v1/studies/1/preview", {"revision": 2, "points": points})
    assert (late.status, late.code) == (504, "worker-timeout")


def test_a_preview_is_cancelled_when_its_caller_leaves(served):
    served.supervisor.holds = True
    body = json.dumps({"revision": 1, "points": POINTS}).encode()

    async def leave():
        gone = asyncio.Event()
        calling = asyncio.ensure_future(
            acall(served.app, "POST", "/v1/studies/1/preview", body, "application/json", gone=gone)
        )
        while served.supervisor.jobs() == []:
            await asyncio.sleep(0.01)
        gone.set()
        await calling
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(leave())
    assert "cancel" in served.supervisor.said[-1]
    assert not list(served.appliance.places.incoming.iterdir())


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


def test_who_may_and_in_whose_name(make, score, files):
    clients = {**CLIENTS, "berg-token": Client("reader", "Dr A. Berg")}
    served = serve(make(), score, clients)
    served.appliance.receive(*files)
    served.appliance.run(10)
    call = {"revision": 1, "grades": GRADES}
    for path in ("grades", "points", "unreadable", "accept", "preview"):
        assert served.post(f"/v1/studies/1/{path}", call, token="console-token").status == 403
        assert served.post(f"/v1/studies/1/{path}", call, token="none").status == 401
    assert served.post("/v1/studies/1/grades", call, token="reader-token").status == 400  # without a reader
    other = served.post("/v1/studies/1/grades", {**call, "reader": "CD"}, token="berg-token")
    assert (other.status, "Dr A. Berg" in other.json()["detail"]) == (403, True)
    study = served.post("/v1/studies/1/grades", call, token="berg-token").json()["study"]
    assert study["revisions"][1]["by"] == "Dr A. Berg"
    served.appliance.run(10)
    assert served.post("/v1/studies/1/accept", {"revision": 2, "reader": "AB"}).status == 200  # the unix socket
    assert served.post("/v1/studies/1/retry", {}, token="berg-token").status == 403


def test_pages_of_other_sites_change_nothing(served):
    body = json.dumps({"revision": 1, "reader": "AB"}).encode()

    def status(origin, host="scores.example:8080", kind="application/json", path="accept"):
        headers = [("authorization", "Bearer admin-token"), ("origin", origin), *([("host", host)] if host else [])]
        return served.ask("POST", f"/v1/studies/1/{path}", body, kind, headers=headers, server=TCP).status

    for origin in (
        "https://evil.example",
        "null",
        "",
        "http://scores.example",
        "http://scores.example:8080.evil",
        "http://[",
    ):
        assert status(origin) == status(origin, path="retry") == 403, origin
    assert status("https://scores.example:8080", host="") == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert status("https://scores.example:8080", kind=kind) == 415
    assert served.get("/v1/studies/1")["reviewed"] is None
    assert status("https://scores.example:8080", kind="Application/JSON; charset=utf-8") == 200


HOSTILE = [
    b"", b"{", b"[]", b"null", b"1", b'"a"', b"\xff\xfe\x00", b"[" * 60000, b'{"a":' * 10000, b"{}",
    b'{"revision": NaN}', b'{"revision": 1e999}', b'{"revision": 1, "revision": 1}', b'{"revision": "1"}',
    b'{"revision": 1.0}', b'{"revision": true}', b'{"revision": 0}', b'{"revision": -1}',
    b'{"revision": ' + b"9" * 400 + b"}",
    b'{"revision": 99999999999999999999}', b'{"revision": 1, "reader": 5}', b'{"revision": 1, "reader": []}',
    b'{"revision": 1, "reader": "\\u0000"}', b'{"revision": 1, "reader": "\\ud800"}', b'{"revision": 1, "other": 1}',
]  # fmt: skip
WRONG = {
    "grades": [None, [], {}, 3, "x", {"X": 1}, {"": 1},
               *({"C3-superior": one} for one in (4, -1, 1.5, True, "2", [1]))],
    "points": [None, [], {}, {"cervical": None}, {"cervical": {}}, {"thoracic": {}},
               {"cervical": {"L1/L2": [[1, 2], [3, 4]]}},
               *({"cervical": {"C2/C3": one}} for one in (None, [[1, 2]], [[1, 2], [1, 2]], [[1, 2], [3, "4"]],
                                                          [[1, 2], [3, 1e300]], [[1, 2, 3], [3, 4, 5]]))],
    "unreadable": [None, [], {}, "lumbar", ["thoracic"], ["lumbar", "lumbar"], [None], [["lumbar"]]],
}  # fmt: skip


def test_hostile_bodies_are_problems(served):
    for path in ("grades", "points", "unreadable", "accept", "preview"):
        for body in HOSTILE:
            answer = served.ask("POST", f"/v1/studies/1/{path}", body, "application/json", piece=70000)
            assert answer.status == 400, (path, body[:40], answer.body)
        assert served.ask("POST", f"/v1/studies/1/{path}", b"1" * 70000, "application/json").status == 413
        assert served.post(f"/v1/studies/1/{path}", {"revision": 1, "reader": "A" * 65}).status == 400
        assert served.post(f"/v1/studies/1/{path}", {"revision": 1, "reader": "A", "comment": "a" * 1001}).status == 400
        for number in ("9", "x", "1e3", "-1", "9" * 30):
            call = {"revision": 1, "reader": "A", "grades": GRADES, "points": POINTS, "regions": ["lumbar"]}
            fields = {
                "points": ("grades",),
                "grades": (),
                "unreadable": (),
                "accept": (),
                "preview": ("points", "grades"),
            }
            own = {"unreadable": "regions", "accept": "revision"}.get(path, path)
            call = {name: call[name] for name in ("revision", "reader", own, *fields[path]) if name in call}
            assert served.post(f"/v1/studies/{number}/{path}", call).status == 404
    for path, values in WRONG.items():
        for value in values:
            name = "regions" if path == "unreadable" else path
            answer = served.post(f"/v1/studies/1/{path}", {"revision": 1, "reader": "A", name: value})
            assert answer.status == 400, (path, value)
    assert served.get("/v1/studies/1")["revision"] == 1


def test_what_does_not_fit_the_study_is_refused(make, score, tmp_path):
    served = serve(make(), score)
    served.appliance.receive(*tiny_files(tmp_path / "study", regions=("cervical",)))
    served.appliance.run(20)
    for path, more in (("grades", {"grades": {"L1-inferior": 1}}), ("unreadable", {"regions": ["lumbar"]}),
                       ("points", {"points": {"lumbar": {"L1/L2": [[1, 2], [3, 4]]}}}),
                       ("preview", {"grades": {"L1-inferior": 1}})):  # fmt: skip
        answer = served.post(f"/v1/studies/1/{path}", {"revision": 1, "reader": "AB", **more})
        assert (answer.status, "lumbar" in answer.json()["detail"]) == (400, True), path


def test_a_full_disk_or_a_log_that_cannot_be_written_takes_no_verdict(served):
    for path in files_of(served.appliance.places.root / "audit"):
        path.unlink()
    (served.appliance.places.root / "audit").rmdir()
    (served.appliance.places.root / "audit").write_text("a file where the folder of the log would be")
    answer = served.post("/v1/studies/1/accept", {"revision": 1, "reader": "AB"})
    assert (answer.status, answer.code) == (503, "audit-not-written")
    assert served.get("/v1/studies/1")["reviewed"] is None


def test_names_of_readers_are_of_tokens(tmp_path):
    files = [tmp_path / name for name in ("one", "two")]
    for path in files:
        path.write_text("a" * 32)
    tokens = (HttpToken("reader", str(files[0]), "AB"), HttpToken("reader", str(files[1]), "AB"))
    scope = {"server": TCP, "headers": [(b"authorization", b"Bearer " + b"a" * 32)]}
    assert read_access(Http(tcp="127.0.0.1:1", token=tokens)).client(scope) == Client("reader", "AB")
