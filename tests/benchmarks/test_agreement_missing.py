"""Missing corners and half points: totals by the rule on both sides, what is left out, and the ICC's interval."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.agreement_cases import drawn_readings
from spinescore.benchmarks.agreement import Reading, Readings, evaluate
from spinescore.benchmarks.agreement.tables import markdown
from spinescore.benchmarks.agreement.totals import scaled_sum, whole_grades
from spinescore.runtime.scoring.msasss import score_region, score_study
from spinescore.runtime.study import ALL_SITES, REGIONS

C7_T1 = ("C7-inferior", "T1-superior")


def blank(readings: Readings, sites: tuple[str, ...], studies: list[str] | None = None) -> None:
    for study in studies or list(readings.corners):
        readings.corners[study].update(dict.fromkeys(sites, Reading(None)))


def test_totals_are_those_of_reports() -> None:
    """The rule is the one by which the runtime gives a total."""
    rng = np.random.default_rng(0)
    for most in (0, 2, 3):
        for _ in range(200):
            grades = rng.integers(0, 4, 24).astype(float)
            grades[rng.random(24) < rng.random() * 0.5] = np.nan
            whole = [None if np.isnan(grade) else int(grade) for grade in grades]
            regions = {r: score_region(r, whole[12 * i : 12 * i + 12], most) for i, r in enumerate(REGIONS)}
            expected = score_study(regions).value
            found = scaled_sum(grades, most)
            assert (np.isnan(found) and expected is None) or found == pytest.approx(expected, abs=1e-6)


def test_a_region_without_any_corner_has_no_total() -> None:
    grades = np.zeros(24)
    grades[:12] = np.nan
    assert np.isnan(scaled_sum(grades, 11))


def test_a_reader_who_leaves_out_c7_t1_has_all_figures() -> None:
    predicted, reference = drawn_readings(10)
    blank(reference, C7_T1)
    document = evaluate(predicted, reference, resamples=0)
    counts = document["counts"]
    assert (counts["complete_totals"], counts["imputed_totals"], counts["left_out_totals"]) == (0, 10, 0)
    assert document["icc"]["studies"] == document["bland_altman"]["studies"] == 10
    assert document["icc"]["one_way"]["value"] is not None
    assert document["sdc"]["from_change"]["patients"] == 5
    assert document["sdc"]["from_change"]["value"] is not None
    corners = reference.corners["study-00"]
    grades = [corners[site].grade for site in ALL_SITES]
    assert document["totals"][0]["reference"] == pytest.approx(sum(grades[:10]) * 12 / 10 + sum(grades[12:]), abs=1e-3)
    assert "In the totals of 10 of 10 studies, up to 3 missing" in "\n".join(document["notes"])
    assert evaluate(predicted, reference, resamples=0, max_imputed=1)["counts"]["left_out_totals"] == 10


def test_more_than_the_rule_allows_is_left_out_and_named() -> None:
    predicted, reference = drawn_readings(4)
    blank(reference, (*C7_T1, "C6-inferior", "C7-superior"), ["study-02"])
    document = evaluate(predicted, reference, resamples=0)
    assert document["totals_left_out"] == [{"study": "study-02", "reason": "reference lacks cervical 4 of 12"}]
    assert document["counts"]["complete_totals"] == 3
    assert "study-02 | reference lacks cervical 4 of 12" in markdown(document)
    assert any("Without a total on both sides: 1 study;" in note for note in document["notes"])


@pytest.mark.parametrize("written", [True, False])
def test_a_site_that_both_sides_lack_is_listed(written: bool) -> None:
    """Whether as an empty grade or not at all."""
    predicted, reference = drawn_readings(2)
    for side in (predicted, reference):
        blank(side, C7_T1, ["study-00"])
        if not written:
            for site in C7_T1:
                del side.corners["study-00"][site]
    document = evaluate(predicted, reference, resamples=0)
    entry = {"study": "study-00", "sites": list(C7_T1)}
    assert document["missing_corners"] == {side: [entry] for side in ("predicted", "reference", "both")}
    assert document["counts"]["missing"]["both"] == 2
    rows = [line for line in markdown(document).splitlines() if "C7-inferior, T1-superior" in line and "|" in line]
    assert len(rows) == 1
    assert "| both " in rows[0]


def test_half_points_are_exact_in_totals_and_rounded_up_in_kappa() -> None:
    assert whole_grades(np.array([0, 0.5, 1, 1.5, 2, 2.5, 3])).tolist() == [0, 1, 1, 2, 2, 3, 3]
    predicted, reference = drawn_readings(4)
    reference.corners["study-00"].update({"L1-superior": Reading(1.5), "L1-inferior": Reading(0.5)})
    predicted.corners["study-00"].update({"L1-superior": Reading(2), "L1-inferior": Reading(0)})
    document = evaluate(predicted, reference, resamples=0)
    grades = [reading.grade or 0 for reading in reference.corners["study-00"].values()]
    assert document["totals"][0]["reference"] == sum(grades)
    assert document["inputs"]["reference"]["half_points"] == 2
    reference.corners["study-00"].update({"L1-superior": Reading(2), "L1-inferior": Reading(1)})
    rounded = evaluate(predicted, reference, resamples=0)
    assert rounded["confusion"] == document["confusion"]
    assert rounded["totals"] != document["totals"]
    assert any("2 grades of the reference side are half points" in note for note in document["notes"])


def test_the_interval_of_the_icc_is_by_patient_where_patients_have_several_studies() -> None:
    predicted, reference = drawn_readings(20)
    document = evaluate(predicted, reference, resamples=60)
    low, high = document["intervals"]["figures"]["icc.two_way_absolute.value"]
    (row,) = [line for line in markdown(document).splitlines() if line.startswith("| ICC(A,1)")][:1]
    assert f"{low:.3f} to {high:.3f}" in row
    assert "bootstrap by patient" in row
    unasked = [line for line in markdown(evaluate(predicted, reference, 0)).splitlines() if line.startswith("| ICC(A,")]
    assert "| - " in unasked[0]  # not the F distribution's
    for study in list(reference.corners)[1::2]:
        del predicted.corners[study], reference.corners[study]
    alone = evaluate(predicted, reference, resamples=60)
    assert alone["icc"]["independent"]
    icc = alone["icc"]["two_way_absolute"]
    (row,) = [line for line in markdown(alone).splitlines() if line.startswith("| ICC(A,1)")]
    assert f"{icc['low']:.3f} to {icc['high']:.3f}" in row
    assert "F distribution" in row


def test_sdc_is_shown_with_its_n() -> None:
    predicted, reference = drawn_readings(8)
    rows = [line for line in markdown(evaluate(predicted, reference, 0)).splitlines() if "smallest detectable" in line]
    assert "4 patients" in rows[0]
    assert "8 studies" in rows[1]
