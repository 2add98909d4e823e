"""Corrections that say that a region can be read, after others said that it cannot."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from helpers.made_corrections import as_scored, corners, correction, moved, of_grades
from helpers.made_reports import NORMAL, changed, made_report
from helpers.scoring import VALIDATOR, checked
from spinescore.runtime import Correction, StudyReport, correct, keypoints_of
from spinescore.runtime.documents import document_of, read
from spinescore.runtime.scoring.correction import corrections_of
from spinescore.runtime.study import REGIONS

NEW = ((101.0, 201.0), (52.0, 212.0))
NEWER = ((102.0, 202.0), (53.0, 213.0))


def at(hour, reader="AB", **changes):
    return correction(f"2026-11-29T{hour:02}:00:00+00:00", reader, **changes)


GRADED = at(8, grades={"C3-superior": 2}, points={"cervical": {"C2/C3": NEW}})
OUT = at(9, "CD", unreadable=("cervical",), comment="Blurred.")
BACK = at(10, "EF", readable=("cervical",))


def fresh(pair=NEW):
    """A report that was scored with points of the disc C2/C3."""
    return moved(of_grades(changed(NORMAL, at3=1)), "C2/C3", pair)


def test_a_region_that_can_be_read_again_has_its_earlier_grades_and_points():
    graded = correct(fresh(), [GRADED])
    report = checked(correct(fresh(), [GRADED, OUT, BACK]))
    assert (report.regions, report.total, report.rejects) == (graded.regions, graded.total, ())
    assert report.findings == graded.findings
    assert corners(report)["C3-superior"].grade == 2
    assert [one.reader for one in report.corrections] == ["AB", "CD", "EF"]
    assert [(one.unreadable, one.readable) for one in report.corrections] == [
        ((), ()), (("cervical",), ()), ((), ("cervical",)),
    ]  # fmt: skip
    assert corrections_of(report) == (GRADED, OUT, BACK)
    assert "EF" not in repr(BACK) + repr(report) + repr(report.corrections)


@pytest.mark.parametrize(
    ("said", "is_out"),
    [
        ([OUT, BACK], False),
        ([OUT, BACK, at(11, unreadable=("cervical",))], True),
        ([OUT, BACK, at(11, unreadable=REGIONS), at(12, readable=("cervical",))], False),
        ([OUT, at(10, unreadable=("cervical",)), at(11, readable=("cervical",))], False),
        ([at(9, unreadable=REGIONS), BACK], False),
    ],
)
def test_the_last_correction_that_speaks_of_a_region_counts(said, is_out):
    report = checked(correct(fresh(), [GRADED, *said]))
    assert (report.regions["cervical"].status == "rejected") is is_out
    lumbar = "lumbar" in {region for one in said for region in one.unreadable}
    assert [one.region for one in report.rejects] == ["cervical"] * is_out + ["lumbar"] * lumbar
    assert len(report.corrections) == 1 + len(said)
    assert correct(report, [GRADED, *said]) == report


def test_a_region_is_taken_out_after_it_was_read_again_in_pieces_too():
    whole = [GRADED, OUT, BACK, at(11, unreadable=REGIONS)]
    in_pieces = correct(correct(fresh(), whole[:3]), whole)
    assert in_pieces == correct(fresh(), whole)


def test_grades_and_points_come_with_the_word_that_the_region_can_be_read():
    again = at(10, "EF", readable=("cervical",), grades={"C3-superior": 3}, points={"cervical": {"C2/C3": NEWER}})
    seen = correct(fresh(), [GRADED, OUT])
    report = checked(correct(fresh(NEWER), [GRADED, OUT, again], before=seen))
    assert corners(report)["C3-superior"].grade == 3
    assert report.corrections[:2] == seen.corrections
    (grade,), (points,) = report.corrections[2].grades, report.corrections[2].points
    assert (grade.before, grade.after) == (2, 3)
    assert (points.before, points.after) == (NEW, NEWER)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"grades": {"C3-superior": 1}}, "grades.C3-superior"),
        ({"points": {"cervical": {"C2/C3": NEW}}}, "points.cervi"),
    ],
)
@pytest.mark.parametrize("more", [[], [BACK]])
def test_a_region_that_is_taken_out_gets_nothing_without_that_word(changes, place, more):
    with pytest.raises(
        ValueError, match=r"a reader could not read the cervical region.* name it in readable, too"
    ) as no:
        correct(fresh(), [OUT, at(9, **changes), *more])
    assert f"corrections[1].{place}" in str(no.value)


def test_a_report_that_lost_the_region_has_to_be_scored_again():
    old = correct(fresh(), [GRADED, OUT])
    again = at(10, "EF", readable=("cervical",), points={"cervical": {"C2/C3": NEWER}})
    for given in ([GRADED, OUT, again], [again]):
        with pytest.raises(
            ValueError, match=rf"^corrections\[{len(given) - 1}\]\.readable: the report has no discs"
        ) as no:
            correct(old, given)
        for words in ("keypoints=keypoints_of(corrections)", "corrections_of(report) first"):
            assert words in str(no.value)
    whole = [*corrections_of(old), again]
    assert keypoints_of(whole) == {"cervical": {"C2/C3": NEWER}}
    assert correct(fresh(NEWER), whole, before=old).regions["cervical"].status == "scored"


@pytest.mark.parametrize("said", [[], [at(9, unreadable=("lumbar",))], [OUT, at(9, readable=("cervical",))]])
def test_what_nobody_said_cannot_be_taken_back(said):
    with pytest.raises(
        ValueError, match=rf"^corrections\[{len(said)}\]\.readable: no correction before .*leave it out"
    ):
        correct(fresh(), [*said, BACK])


def test_a_region_that_was_rejected_before_is_rejected_again():
    report = as_scored(made_report({"cervical": None, "lumbar": NORMAL}))
    restored = checked(correct(report, [OUT, BACK]))
    assert restored.regions == report.regions
    with pytest.raises(ValueError, match="the cervical region is rejected and has no grades"):
        correct(report, [OUT, at(10, readable=("cervical",), grades={"C3-superior": 1})])


def test_the_new_field_is_in_documents_that_need_it_alone():
    documents = [json.loads(correct(fresh(), said).to_json()) for said in ([GRADED, OUT], [GRADED, OUT, BACK])]
    fields = [["readable" in one for one in document["corrections"]] for document in documents]
    assert fields == [[False, False], [False, False, True]]
    for document, said in zip(documents, ([GRADED, OUT], [GRADED, OUT, BACK]), strict=True):
        VALIDATOR.validate(document)
        assert StudyReport.from_json(json.dumps(document)) == correct(fresh(), said)
    document = json.loads(json.dumps(document_of(BACK)))
    assert read(Correction, document) == BACK
    assert "readable" not in document_of(OUT)
    documents[1]["corrections"][2]["readable"] = ["neck"]
    assert not VALIDATOR.is_valid(documents[1])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda said: said[2].update(readable=[]), "a reader could not read the region, but it is scored"),
        (lambda said: said[2].update(readable=["lumbar"]), "a reader could not read the region, but it is scored"),
        (lambda said: said[2].update(readable=["neck"]), "corrections[2].readable[0]"),
        (lambda said: said.reverse(), "regions.cervical.status: a reader could not read the region"),
    ],
)
def test_a_report_that_does_not_fit_its_last_correction_is_damaged(spoil, words):
    document = json.loads(correct(fresh(), [GRADED, OUT, BACK]).to_json())
    spoil(document["corrections"])
    with pytest.raises(ValueError, match="damaged") as refusal:
        StudyReport.from_json(json.dumps(document))
    assert words in str(refusal.value)


def test_a_region_that_is_out_needs_a_correction_that_says_so():
    report = correct(fresh(), [GRADED, OUT])
    document = json.loads(replace(report, corrections=report.corrections[:1]).to_json())
    with pytest.raises(ValueError, match="no correction says that the region cannot be read"):
        StudyReport.from_json(json.dumps(document))
