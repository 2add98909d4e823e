"""Corrections in reports: several readers, points, refusals, and older reports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from helpers.made_corrections import as_scored, corners, correction, moved, of_grades
from helpers.made_reports import NORMAL, changed, made_report
from helpers.scoring import VALIDATOR, checked
from spinescore.runtime import Correction, StudyReport, correct, keypoints_of
from spinescore.runtime.documents import document_of, read
from spinescore.runtime.scoring.correction import corrections_of, left_behind
from spinescore.runtime.scoring.expected import (
    Expected,
)

LATER = "2026-11-29T16:00:00+00:00"


PAIR = ((100.0, 200.0), (50.0, 210.0))  # of every disc of a made report


FIRST = correction(grades={"C3-superior": 2, "L1-inferior": None}, comment="Osteophyte.\nNo bridge.")


SECOND = correction(LATER, "CD", grades={"S1-superior": 3}, unreadable=("cervical",))


def test_in_pieces_twice_and_at_once_are_the_same():
    report = of_grades(changed(NORMAL, at4=None))
    at_once = checked(correct(report, [FIRST, SECOND]))
    assert correct(correct(report, [FIRST]), [SECOND]) == at_once
    assert correct(correct(report, [FIRST]), [FIRST, SECOND]) == at_once
    assert correct(at_once, [FIRST, SECOND]) == correct(at_once, [SECOND]) == correct(at_once, [FIRST]) == at_once
    assert correct(report, []) == report
    assert correct(report, [FIRST, FIRST, SECOND, FIRST]) == at_once
    assert corrections_of(at_once) == (FIRST, SECOND)
    assert correct(report, corrections_of(at_once)) == at_once


def test_a_later_grade_counts_and_both_changes_are_kept():
    corrected = correct(of_grades(), [FIRST, correction(LATER, "CD", grades={"C3-superior": 1})])
    assert corners(corrected)["C3-superior"].grade == 1
    changes = [change for one in corrected.corrections for change in one.grades if change.where == "C3-superior"]
    assert [(change.before, change.after) for change in changes] == [(0, 2), (2, 1)]


def test_what_a_reader_saw_of_another_study_is_refused():
    report = of_grades()
    other = replace(report, study=replace(report.study, study_instance_uid="1.2.4"))
    with pytest.raises(ValueError, match="before is a report of another study"):
        correct(report, [FIRST], before=other)


def test_a_region_without_a_correction_stays_as_it_is():
    report = of_grades()
    odd = replace(report.regions["lumbar"], expected=Expected(1.0, 1.0, (0, 3)))
    corrected = correct(
        replace(report, regions={**report.regions, "lumbar": odd}), [correction(grades={"C3-superior": 1})]
    )
    assert corrected.regions["lumbar"] == odd


NEW = ((101.0004, 201.0), (52.0, 212.0))


NEWER = ((102.0, 202.0), (53.0, 213.0))


WITH_POINTS = correction(points={"cervical": {"C2/C3": NEW}}, grades={"C3-superior": 2})


WITH_MORE = correction(LATER, "CD", points={"cervical": {"C2/C3": NEWER}, "lumbar": {"L5/S1": NEW}})


def test_points_of_a_report_that_was_scored_with_them():
    seen = of_grades()
    corrected = checked(correct(moved(seen, "C2/C3", ((101.0, 201.0), NEW[1])), [WITH_POINTS], before=seen))
    (change,) = corrected.corrections[0].points
    assert (change.where, change.before, change.after) == ("C2/C3", PAIR, NEW)
    assert correct(moved(seen, "C2/C3", NEW), [WITH_POINTS]).corrections[0].points[0].before is None


def test_points_of_one_revision_after_another():
    seen = of_grades()
    first = correct(moved(seen, "C2/C3", NEW), [WITH_POINTS], before=seen)
    again = moved(moved(seen, "C2/C3", NEWER), "L5/S1", NEW)
    second = checked(correct(again, [*corrections_of(first), WITH_MORE], before=first))
    assert second.corrections[0] == first.corrections[0]
    assert [(one.where, one.before) for one in second.corrections[1].points] == [("C2/C3", NEW), ("L5/S1", PAIR)]
    assert corners(second)["C3-superior"].grade == 2


def test_keypoints_are_those_that_count():
    assert keypoints_of([WITH_POINTS, WITH_MORE]) == {"cervical": {"C2/C3": NEWER}, "lumbar": {"L5/S1": NEW}}
    assert keypoints_of([FIRST]) == keypoints_of([]) == {}


def test_points_that_led_to_a_reject_are_known():
    region = made_report({"cervical": None, "lumbar": NORMAL}).regions["cervical"]
    taken_out = correct(of_grades(), [correction(unreadable=("cervical",))]).regions["cervical"]
    report = replace(of_grades(), regions={**of_grades().regions, "cervical": replace(taken_out, reject=region.reject)})
    report = as_scored(replace(report, total=made_report({"cervical": None, "lumbar": NORMAL}).total))
    corrected = checked(correct(report, [correction(points={"cervical": {"C2/C3": PAIR}})]))
    assert corrected.regions["cervical"].status == "rejected"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "corrections[0]: it changes nothing; give points, grades, unreadable or readable regions"),
        ({"comment": "Fine."}, "it changes nothing"),
        ({"points": {"cervical": {}}}, "it changes nothing"),
        ({"grades": {"C3-superio": 1}}, "corrections[0].grades.C3-superio: no such field is known"),
        (
            {"grades": {"C3-superior": 4}},
            "corrections[0].grades.C3-superior: expected a whole number in [0, 3], found 4",
        ),
        ({"grades": {"C3-superior": True}}, "corrections[0].grades.C3-superior"),
        ({"grades": {"C3-superior": 1.0}}, "corrections[0].grades.C3-superior"),
        ({"points": {"thoracic": {"T1/T2": PAIR}}}, "corrections[0].points.thoracic"),
        ({"points": {"cervical": {"C1/C2": PAIR}}}, "corrections[0].points.cervical.C1/C2"),
        ({"points": {"cervical": {"L1/L2": PAIR}}}, "points.cervical.L1/L2: the cervical region has no such level"),
        ({"points": {"cervical": {"C2/C3": (PAIR[0], PAIR[0])}}}, "in the same place"),
        ({"points": {"cervical": {"C2/C3": (PAIR[0],)}}}, "points.cervical.C2/C3: expected 2 entries"),
        ({"points": {"cervical": {"C2/C3": ((float("nan"), 1.0), PAIR[1])}}}, "points.cervical.C2/C3[0][0]"),
        ({"points": {"cervical": {"C2/C3": ((1e9, 1.0), PAIR[1])}}}, "points.cervical.C2/C3[0][0]"),
        ({"points": {"cervical": {"C2/C3": NEW}}}, "score the study again with keypoints=keypoints_of(corrections)"),
        ({"unreadable": ("neck",)}, "corrections[0].unreadable[0]"),
        ({"unreadable": ("cervical", "cervical")}, "corrections[0].unreadable: a region stands there twice"),
        ({"readable": ("neck",)}, "corrections[0].readable[0]"),
        ({"readable": ("cervical", "cervical")}, "corrections[0].readable: a region stands there twice"),
        ({"readable": ("cervical",)}, "corrections[0].readable: no correction before this one says that the cervical"),
        (
            {"unreadable": ("lumbar", "cervical"), "readable": ("cervical",)},
            "corrections[0].readable: the cervical region is said to be unreadable, too; leave one of them out",
        ),
        (
            {"grades": {"C3-superior": 1}, "unreadable": ("cervical",)},
            "corrections[0].grades.C3-superior: the cervical",
        ),
        ({"grades": {"C3-superior": 1}, "comment": ""}, "corrections[0].comment"),
        ({"grades": {"C3-superior": 1}, "comment": "x" * 1001}, "corrections[0].comment: expected at most 1000"),
        ({"grades": {"C3-superior": 1}, "comment": "\x1b[2J"}, "corrections[0].comment: expected printable"),
        ({"grades": {"C3-superior": 1}, "reader": ""}, "corrections[0].reader"),
        ({"grades": {"C3-superior": 1}, "reader": "A\nB"}, "corrections[0].reader: expected printable"),
        ({"grades": {"C3-superior": 1}, "reader": "A" * 65}, "corrections[0].reader: expected at most 64"),
        ({"grades": {"C3-superior": 1}, "at": "2026-11-29 15:04"}, "corrections[0].at: expected a time in UTC"),
        ({"grades": {"C3-superior": 1}, "at": "2026-13-29T15:04:05+00:00"}, "corrections[0].at"),
        ({"grades": {"C3-superior": 1}, "at": "2026-11-29T15:04:05+01:00"}, "corrections[0].at"),
    ],
)
def test_a_wrong_correction_is_refused_with_its_place(changes, words):
    with pytest.raises(ValueError, match="corrections") as refusal:
        correct(of_grades(), [correction(**changes)])
    assert words in str(refusal.value)


@pytest.mark.parametrize("status", ["rejected", "missing"])
def test_a_region_that_was_not_scored_gets_no_grade(status):
    report = as_scored(made_report({"cervical": None, "lumbar": NORMAL}))
    lost = replace(report.regions["cervical"], status=status)
    report = replace(report, regions={**report.regions, "cervical": lost})
    with pytest.raises(ValueError, match=rf"corrections\[1\]\.grades\.C3-superior: the cervical region is {status}"):
        correct(report, [correction(grades={"S1-superior": 1}), correction(LATER, grades={"C3-superior": 1})])
    if status == "missing":
        with pytest.raises(ValueError, match=r"corrections\[0\]\.unreadable: the study has no cervical radiograph"):
            correct(report, [correction(unreadable=("cervical",))])


@pytest.mark.parametrize("arguments", [(None, []), (1, [FIRST]), ("report", FIRST), ("report", "x"), ("report", [1])])
def test_arguments_of_other_types_are_refused(arguments):
    report, corrections = arguments
    with pytest.raises(TypeError):
        correct(of_grades() if report == "report" else report, corrections)


def test_a_correction_is_read_strictly():
    document = json.loads(json.dumps(document_of(WITH_POINTS)))
    assert read(Correction, document) == WITH_POINTS
    for name in document:
        with pytest.raises(ValueError, match=rf"^{name}: this field is missing"):
            read(Correction, {key: value for key, value in document.items() if key != name})
    with pytest.raises(ValueError, match=r"^more: no such field is known"):
        read(Correction, {**document, "more": 1})


def test_an_older_report_is_read_and_corrected():
    document = of_grades(changed(NORMAL, at0=None)).to_dict()
    del document["corrections"], document["max_imputed_per_region"]
    for region in document["regions"].values():
        for disc in region["discs"]:
            for corner in disc["corners"]:
                del corner["grade_from"], corner["missing_because"]
    VALIDATOR.validate(json.loads(json.dumps(document)))
    report = StudyReport.from_json(json.dumps(document))
    assert not report.corrections
    corrected = checked(correct(report, [correction(grades={"C3-superior": 1})]))
    assert (corrected.total.value, corrected.total.status) == (round(12 / 11, 3), "imputed")


def test_an_older_report_shows_how_many_corners_were_imputed():
    lost = changed(NORMAL, at0=None)
    report = correct(replace(of_grades(lost, lost), max_imputed_per_region=0), [correction(grades={"C3-superior": 1})])
    older = replace(report, max_imputed_per_region=None, corrections=())
    regions = {**older.regions, "lumbar": replace(older.regions["lumbar"], total=None)}
    corrected = correct(replace(older, regions=regions), [correction(grades={"C3-superior": 1})])
    assert (corrected.regions["cervical"].total, corrected.total.value) == (None, None)
    checked(corrected)
    many = of_grades([None] * 5 + [1] * 7)
    imputed = replace(many.regions["cervical"], total=12)
    many = replace(many, max_imputed_per_region=None, regions={**many.regions, "cervical": imputed})
    assert correct(many, [correction(grades={"T1-superior": 1})]).regions["cervical"].total == 12


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: d["corrections"].clear(), "no correction has its grade"),
        (lambda d: d["corrections"][0]["grades"][0].update(after=3), "the last correction set 3"),
        (lambda d: corner_of(d).update(grade_from="network"), "a correction has its grade"),
        (lambda d: corner_of(d).update(grade_from="nobody"), "grade_from"),
        (lambda d: d["corrections"][0]["points"][0].update(after=[[1, 2], [3, 4]]), "points of C2/C3 are not those"),
        (lambda d: d["corrections"][0].update(unreadable=["cervical"]), "could not read the region, but it is scored"),
        (lambda d: d["corrections"][0].update(reader=""), "corrections[0].reader"),
        (lambda d: d["corrections"][0].update(at="now"), "corrections[0].at"),
        (lambda d: d["corrections"][0]["grades"][0].update(where="C1-superior"), "corrections[0].grades[0].where"),
        (lambda d: d.update(max_imputed_per_region=13), "max_imputed_per_region"),
        (lambda d: corner_of(d, 0).update(missing_because="abstained"), "missing_because: C2-inferior is scored"),
    ],
)
def test_a_report_whose_corrections_do_not_fit_is_damaged(spoil, words):
    report = correct(moved(of_grades(), "C2/C3", NEW), [WITH_POINTS])
    document = json.loads(report.to_json())
    assert StudyReport.from_json(json.dumps(document)) == report
    spoil(document)
    with pytest.raises(ValueError, match="damaged") as refusal:
        StudyReport.from_json(json.dumps(document))
    assert words in str(refusal.value)


def corner_of(document, side=1):
    return document["regions"]["cervical"]["discs"][0]["corners"][side]


def test_no_repr_names_the_reader():
    named = correction(reader="Dr Berg", grades={"C3-superior": 1}, comment="Secret.")
    corrected = correct(of_grades(), [named, correction(LATER, "Dr Berg", unreadable=("lumbar",))])
    for thing in (named, corrected, corrected.corrections, corrected.regions, corrected.rejects, corrected.findings):
        assert "Berg" not in repr(thing)
        assert "Secret" not in repr(thing)
    assert "corrected by a reader" in repr(corrected)


def test_corrections_that_were_left_behind_are_a_warning():
    report = checked(left_behind(of_grades(), [FIRST, SECOND]))
    (warning,) = report.notices
    assert (warning.code, warning.values) == ("corrections-left-behind", {"corrections": 2})
    assert report.warnings == (warning.message,)
    assert not report.corrections


def test_correcting_needs_neither_pictures_nor_an_engine():
    code = (
        "import sys; import spinescore.runtime.scoring.correction; "
        "print([n for n in ('cv2', 'onnx', 'onnxruntime', 'openvino', 'pydicom', 'PIL') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
