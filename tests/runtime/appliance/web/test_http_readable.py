"""Readers' word over HTTP that a region can be read, after one of them said that it cannot."""

from __future__ import annotations

import pytest

from helpers.appliance import tiny_files
from helpers.served import corner, moved, serve
from spinescore.runtime.appliance.seen.audit import files_of, record_of

OUT = {"reader": "AB", "regions": ["cervical"]}
BACK = {"reader": "CD", "readable": ["cervical"]}
GRADES = {"C3-superior": 3}


def said(served, revision, path, **call):
    """Give a verdict, and score the revision that it begins. Equal ones count once, and the clock stands still."""
    answer = served.post(f"/v1/studies/1/{path}", {"revision": revision, **call})
    assert answer.status == 202, answer.body
    served.appliance.run(10)
    return served.report()


@pytest.fixture
def corrected(delivered):
    """Study 1 with points and a grade by a reader; then the region could not be read."""
    points = moved(delivered.report())
    before = said(delivered, 1, "points", reader="AB", points=points, grades={"C3-superior": 2})
    assert said(delivered, 2, "unreadable", **OUT)["total"]["status"] == "incomplete"
    return delivered, before


def test_a_region_that_can_be_read_again_has_its_points_and_grades(corrected):
    served, before = corrected
    report = said(served, 3, "readable", **BACK, comment="a better screen")
    assert (report["regions"], report["total"]) == (before["regions"], before["total"])
    assert [(one["reader"], one.get("readable")) for one in report["corrections"]] == [
        ("AB", None), ("AB", None), ("CD", ["cervical"]),
    ]  # fmt: skip
    study = served.get("/v1/studies/1")
    assert study["reviewed"] == "readable"
    assert [(one["by"], one["verdict"], one["unreadable"], one["readable"]) for one in study["revisions"]] == [
        ("spinescore", None, [], []), ("AB", "corrected", [], []),
        ("AB", "unreadable", ["cervical"], []), ("CD", "readable", [], ["cervical"]),
    ]  # fmt: skip
    assert list(served.appliance.delivered())[-1] == "revision-4"
    records = [record_of(line) for path in files_of(served.appliance.places.root / "audit")
               for line in path.read_bytes().splitlines()]  # fmt: skip
    (record,) = (one for one in records if one["event"] == "readable")
    assert (record["reader"], record["revision"], record["regions"]) == ("CD", 4, 1)
    assert 'spinescore_reviews_total{verdict="readable"} 1.0' in served.ask("GET", "/metrics").body.decode()


def test_the_preview_is_what_the_word_gives_and_grades_may_come_with_it(corrected):
    served, before = corrected
    preview = served.post("/v1/studies/1/preview", {"revision": 3, **BACK, "grades": GRADES})
    assert preview.status == 200
    for path, revision in (("readable", 3), ("grades", 5)):
        report = said(served, revision, path, **BACK | {"reader": path}, grades=GRADES)
        assert report["regions"] == preview.json()["report"]["regions"]
        assert (corner(report, "C3-superior")["grade"], corner(before, "C3-superior")["grade"]) == (3, 2)
        said(served, revision + 1, "unreadable", **OUT | {"reader": path})
    points = moved(before, 2.0)
    report = said(served, 7, "points", **BACK, points=points)
    disc = report["regions"]["cervical"]["discs"][0]
    assert [disc["centre_px"], disc["anterior_px"]] == points["cervical"]["C2/C3"]


def test_the_word_does_not_fit_every_study(corrected, tmp_path):
    served, before = corrected
    points = {"points": moved(before)}
    for path, more, words in (
        ("readable", {"readable": ["lumbar"]}, "no correction before this one says that the lumbar region cannot"),
        ("preview", {"readable": ["lumbar"]}, "no correction before this one"),
        ("readable", {"readable": ["cervical", "lumbar"]}, "no correction before this one"),
        ("grades", {"grades": GRADES}, "name it in readable, too"),
        ("preview", {"grades": GRADES}, "name it in readable, too"),
        ("points", points, "name it in readable, too"),
        ("preview", points, "name it in readable, too"),
        ("readable", {}, "readable: expected at least one"),
        ("points", {"points": {"lumbar": points["points"]["cervical"]}}, "points.lumbar"),
        ("unreadable", {"regions": ["lumbar"], "readable": ["cervical"]}, "readable: no such field"),
    ):
        answer = served.post(f"/v1/studies/1/{path}", {"revision": 3, "reader": "EF", **more})
        assert (answer.status, words in answer.json()["detail"]) == (400, True), (path, more, answer.body)
        assert not answer.json()["detail"].startswith("corrections[")
    late = served.post("/v1/studies/1/readable", {"revision": 2, **BACK})
    assert (late.status, late.code) == (409, "review-conflict")
    assert served.get("/v1/studies/1")["revision"] == 3


def test_a_study_of_which_nothing_could_be_read_is_restored(delivered):
    said(delivered, 1, "unreadable", reader="AB", regions=["cervical", "lumbar"])
    assert "not-scored.json" in delivered.appliance.delivered()["revision-2"]
    assert said(delivered, 2, "readable", **BACK)["regions"]["lumbar"]["status"] == "rejected"
    assert said(delivered, 3, "readable", reader="CD", readable=["lumbar"])["total"]["value"] is not None


def test_a_radiograph_that_comes_later_leaves_both_behind(make, score, tmp_path):
    served = serve(make(), score)
    files = tiny_files(tmp_path / "study")
    served.appliance.receive(files[0])
    served.appliance.run(20)
    region = next(name for name, one in served.report()["regions"].items() if one["radiograph"])
    said(served, 1, "unreadable", reader="AB", regions=[region])
    served.post("/v1/studies/1/readable", {"revision": 2, "reader": "AB", "readable": [region]})
    served.appliance.receive(files[1])
    served.appliance.run(20)
    report = served.report()
    assert ([one["status"] for one in report["regions"].values()], report["corrections"]) == (["scored"] * 2, [])
    assert "corrections-left-behind" in served.get("/v1/studies/1")["findings"]
    answer = served.post("/v1/studies/1/readable", {"revision": 4, "reader": "AB", "readable": [region]})
    assert (answer.status, "no correction before this one" in answer.json()["detail"]) == (400, True)
