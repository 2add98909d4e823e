"""Follow-up of reports that readers corrected: the corrected grades count, and are never the network's."""

from __future__ import annotations

import pytest

from helpers.made_reports import NORMAL, changed, made_report, write_report
from spinescore.benchmarks.agreement import ReadingsError, evaluate, read_readings
from spinescore.runtime import Correction, correct
from spinescore.runtime.followup import compare, read_cohort
from spinescore.runtime.followup.tables import tables_of

AT = "2026-11-29T15:04:05+00:00"


def made(uid="1.2.3", day="20240110", **regions):
    return made_report({"cervical": NORMAL, "lumbar": NORMAL, **regions}, uid, day)


def corrected(report, **grades):
    by_site = {site.replace("_", "-"): grade for site, grade in grades.items()}
    return correct(report, [Correction("AB", AT, grades=by_site)])


BASELINE, FOLLOWUP = made(), made("1.2.4", "20260110", cervical=changed(NORMAL, at1=1))


def test_the_corrected_grade_counts():
    change = compare(BASELINE, corrected(FOLLOWUP, C3_superior=2))
    assert compare(BASELINE, FOLLOWUP).total.change == 1
    assert (change.total.change, change.corners.new_syndesmophytes) == (2, 1)


def test_a_corner_that_a_reader_could_not_read_is_not_comparable():
    change = compare(BASELINE, corrected(FOLLOWUP, C3_superior=None))
    assert (change.corners.comparable, change.total.change) == (23, 0)


def test_a_corrected_grade_is_certain_in_the_expected_change():
    sites = [corner.site for region in BASELINE.regions.values() for disc in region.discs for corner in disc.corners]
    every = {site.replace("-", "_"): 0 for site in sites}
    expected = compare(corrected(BASELINE, **every), corrected(FOLLOWUP, **{**every, "C3_superior": 2})).total.expected
    assert (expected.mean, expected.sd, expected.interval) == (2, 0, (2, 2))
    before, after = (
        compare(BASELINE, FOLLOWUP).total.expected,
        compare(BASELINE, corrected(FOLLOWUP, C3_superior=2)).total,
    )
    assert after.expected.sd < before.sd
    assert after.expected.mean > before.mean


def test_one_comparable_corner_of_a_corrected_disc():
    gap = made(cervical=changed(NORMAL, at0=None))
    expected = compare(gap, corrected(FOLLOWUP, C3_superior=3)).regions["cervical"].total.expected
    assert expected is not None
    assert expected.mean > compare(gap, FOLLOWUP).regions["cervical"].total.expected.mean


@pytest.mark.parametrize("names", [("a.json", "b.json"), ("b.json", "a.json")])
def test_a_cohort_keeps_the_corrected_report_of_a_study(tmp_path, names):
    plain, right = names
    write_report(tmp_path / plain, FOLLOWUP)
    write_report(tmp_path / right, corrected(FOLLOWUP, C3_superior=2))
    cohort = read_cohort(tmp_path)
    assert [entry.name for entry in cohort.entries] == [right]
    (note,) = cohort.notices
    assert (note.code, note.source, note.values["kept"]) == ("report-repeated", plain, right)
    rows = {row["site"]: row for row in tables_of(cohort)["corners"]}
    assert (rows["C3-superior"]["grade"], rows["C3-superior"]["grade_from"]) == (2, "reader")
    assert rows["C4-superior"]["grade_from"] is None  # an older report


def test_evaluate_does_not_take_corrected_grades_for_the_networks(tmp_path):
    plain = read_readings(write_report(tmp_path / "plain.json", BASELINE))
    right = read_readings(write_report(tmp_path / "right.json", corrected(BASELINE, C3_superior=1)))
    with pytest.raises(ReadingsError, match=r"right\.json: readers corrected 1 report, .*give the reports before"):
        evaluate(right, plain, resamples=0)
    document = evaluate(plain, right, resamples=0)
    assert [document["inputs"][side]["corrected"] for side in ("predicted", "reference")] == [0, 1]
    assert any("agreement is overestimated" in note for note in document["notes"])
    assert not any("overestimated" in note for note in evaluate(plain, plain, resamples=0)["notes"])
