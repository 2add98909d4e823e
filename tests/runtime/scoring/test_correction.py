"""Corrections by readers: totals follow from the report alone, and no wrong correction is applied."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.made_corrections import as_scored, corners, correction, of_grades
from helpers.made_reports import NORMAL, changed, made_report
from helpers.scoring import checked
from spinescore.runtime import correct
from spinescore.runtime.scoring.expected import (
    disc_distribution,
    expected_score,
)
from spinescore.runtime.study import LEVELS, REGIONS, SITES

ALL_SITES = [*SITES["cervical"], *SITES["lumbar"]]
GRADE = st.integers(0, 3)


def without_provenance(report):
    """The report without what says that, and how surely, a reader set a grade."""
    document = report.to_dict()
    del document["corrections"], document["total"]["expected"]
    for region in document["regions"].values():
        del region["expected"]
        for disc in region["discs"]:
            for corner in disc["corners"]:
                del corner["grade_from"]
    return document


REGION = st.lists(st.one_of(GRADE, st.none()), min_size=12, max_size=12)


@settings(max_examples=25, deadline=None)
@given(REGION, REGION)
def test_correcting_a_report_with_its_own_grades_changes_the_provenance_alone(cervical, lumbar):
    report = of_grades(cervical, lumbar)
    own = {site: corner.grade for site, corner in corners(report).items()}
    corrected = correct(report, [correction(grades=own)])
    assert without_provenance(corrected) == without_provenance(report)
    assert {corner.grade_from for corner in corners(corrected).values()} == {"reader"}
    assert {change.where: (change.before, change.after) for change in corrected.corrections[0].grades} == {
        site: (grade, grade) for site, grade in own.items()
    }


@settings(max_examples=25, deadline=None)
@given(REGION, st.lists(GRADE, min_size=24, max_size=24))
def test_correcting_all_corners_gives_their_plain_and_certain_sum(before, grades):
    corrected = correct(of_grades(before, before), [correction(grades=dict(zip(ALL_SITES, grades, strict=True)))])
    total = sum(grades)
    assert corrected.total.value == total
    assert (corrected.total.range, corrected.total.status) == ((total, total), "complete")
    assert (corrected.total.expected.mean, corrected.total.expected.interval) == (total, (total, total))
    assert corrected.total.expected.sd == 0
    assert not corrected.total.imputed_sites


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(ALL_SITES), GRADE)
def test_a_corrected_corner_is_certain_and_the_other_corner_has_its_own_probabilities(site, grade):
    report = of_grades()
    corrected = correct(report, [correction(grades={site: grade})])
    assert corrected.total.value == grade
    p = np.array([[0.7, 0.1, 0.1, 0.1]] * 2)  # of a made corner with grade 0
    disc = expected_score(disc_distribution(p)).mean
    expected = report.total.expected.mean if report.total.expected else 12 * disc
    alone = p[0] @ np.arange(4)
    assert corrected.total.expected.mean == pytest.approx(expected - disc + grade + alone, abs=0.002)


@settings(max_examples=25, deadline=None)
@given(st.lists(GRADE, min_size=12, max_size=12), st.sets(st.sampled_from(SITES["cervical"]), min_size=1))
def test_a_corner_that_cannot_be_read_is_as_one_that_the_pipeline_could_not_read(grades, lost):
    corrected = correct(of_grades(grades), [correction(grades=dict.fromkeys(lost))])
    made = of_grades([None if site in lost else grade for site, grade in zip(SITES["cervical"], grades, strict=True)])
    for ours, theirs in (
        (corrected.total, replace(made.total, expected=corrected.total.expected)),
        (corrected.regions["cervical"].range, made.regions["cervical"].range),
        (corrected.regions["cervical"].missing, made.regions["cervical"].missing),
        (corrected.regions["cervical"].total, made.regions["cervical"].total),
        ([c.status for c in corners(corrected).values()], [c.status for c in corners(made).values()]),
        ([c.imputed for c in corners(corrected).values()], [c.imputed for c in corners(made).values()]),
    ):
        assert ours == theirs
    ours, theirs = corrected.regions["cervical"].expected, made.regions["cervical"].expected
    assert ours.mean == pytest.approx(theirs.mean, abs=0.01)  # the network's corners share bridges


def test_no_more_corners_are_imputed_than_the_scorer_allowed():
    report = replace(of_grades(), max_imputed_per_region=0)
    corrected = correct(report, [correction(grades={"C2-inferior": None})])
    assert (corrected.regions["cervical"].total, corrected.total.status) == (None, "incomplete")
    assert corners(corrected)["C2-inferior"].status == "unreadable"


def test_a_grade_for_a_corner_that_was_imputed_ends_the_imputation():
    report = of_grades(changed(NORMAL, at0=None, at1=2))
    assert report.total.status == "imputed"
    corrected = correct(report, [correction(grades={"C2-inferior": 1})])
    assert (corrected.total.value, corrected.total.status) == (3, "complete")
    assert corners(corrected)["C2-inferior"].missing_because is None


def test_an_abstained_corner_keeps_its_probabilities_in_the_expected_score_of_its_region():
    report = of_grades(changed(NORMAL, at0=None, at5=1))
    discs = list(report.regions["cervical"].discs)
    sure = replace(discs[0].corners[0], probabilities=(0.0, 0.0, 1.0, 0.0), missing_because="abstained")
    discs[0] = replace(discs[0], corners=(sure, discs[0].corners[1]))
    regions = {**report.regions, "cervical": replace(report.regions["cervical"], discs=tuple(discs))}
    abstained = correct(replace(report, regions=regions), [correction(grades={"T1-superior": 0})])
    unread = correct(report, [correction(grades={"T1-superior": 0})])
    assert abstained.regions["cervical"].expected.mean > unread.regions["cervical"].expected.mean + 0.5


def test_an_unreadable_region_is_rejected_as_other_regions_are():
    report = of_grades(changed(NORMAL, at3=2), changed(NORMAL, at1=1))
    corrected = checked(correct(report, [correction(unreadable=("cervical",))]))
    region = corrected.regions["cervical"]
    assert (region.status, region.reject.code, region.discs, region.total) == (
        "rejected",
        "reader-unreadable",
        (),
        None,
    )
    assert (region.range, region.missing, region.expected) == ((0, 36), 12, None)
    assert [one.level for one in region.untrusted_points] == list(LEVELS["cervical"])
    assert corrected.rejects == (region.reject,)
    (finding,) = corrected.findings
    assert (finding.code, finding.severity, finding.region) == ("reader-unreadable", "reject", "cervical")
    assert corrected.regions["lumbar"] == report.regions["lumbar"]
    assert (corrected.total.value, corrected.total.range, corrected.total.expected) == (None, (1, 37), None)


def test_two_unreadable_regions_leave_nothing_scored():
    corrected = checked(correct(of_grades(), [correction(unreadable=REGIONS)]))
    assert {region.status for region in corrected.regions.values()} == {"rejected"}
    assert (corrected.total.value, corrected.total.range, corrected.total.status) == (None, (0, 72), "incomplete")
    assert len(corrected.rejects) == len(corrected.findings) == 2


def test_a_rejected_region_can_be_said_to_be_unreadable():
    report = as_scored(made_report({"cervical": None, "lumbar": NORMAL}))
    corrected = checked(correct(report, [correction(unreadable=("cervical",))]))
    assert corrected.regions["cervical"].reject.code == "reader-unreadable"


# ---- points


# ---- refusals


# ---- documents
