"""Agreement on change: the studies of each patient, the intervals that count, and the events between them."""

from __future__ import annotations

import math
import random

import jsonschema
import numpy as np
import pytest

from helpers.agreement_cases import drawn_readings
from spinescore.benchmarks.agreement import Reading, Readings, Rules, agreement_schema, evaluate
from spinescore.benchmarks.agreement.pairs import link_patients
from spinescore.benchmarks.agreement.tables import markdown
from spinescore.runtime.study import ALL_SITES

SCHEMA = jsonschema.Draft202012Validator(agreement_schema())


def groups(studies: list[str], predicted: dict[str, str], reference: dict[str, str]) -> tuple[list[int], list[int]]:
    found = link_patients(studies, predicted, reference)
    return found.cluster.tolist(), sorted(found.contradictory)


@pytest.mark.parametrize(
    ("predicted", "reference", "clusters", "contradictory"),
    [
        ({}, {}, [0, 1, 2], []),
        ({"a": "P", "b": "P"}, {}, [0, 0, 1], []),
        ({"a": "hash", "b": "hash"}, {"a": "12"}, [0, 0, 1], []),  # the reader named one visit alone
        ({"a": "hash"}, {"a": "12", "b": "12"}, [0, 0, 1], []),
        ({"a": "hash", "b": "hash"}, {"b": "12", "c": "12"}, [0, 0, 0], []),  # over the middle visit
        ({"a": "P"}, {"b": "P"}, [0, 0, 1], []),  # each side named another visit
        ({"a": "1", "b": "2"}, {"a": "2", "b": "1"}, [0, 1, 2], []),  # numbers that mean others on the other side
        ({"a": "P", "b": "P"}, {"a": "P", "b": "Q"}, [0, 0, 1], [0]),
        ({"a": "h", "b": "h"}, {"a": "1", "b": "2", "c": "2"}, [0, 0, 0], [0]),
        ({"a": "h", "b": "g"}, {"a": "1", "b": "1"}, [0, 0, 1], [0]),
    ],
)
def test_studies_are_linked_over_all_names(predicted, reference, clusters, contradictory) -> None:
    assert groups(["a", "b", "c"], predicted, reference) == (clusters, contradictory)


def test_links_need_not_be_among_the_compared_studies() -> None:
    assert groups(["a", "c"], {"a": "h", "b": "h"}, {"b": "1", "c": "1"}) == ([0, 0], [])


def study(readings: Readings, name: str, grades: list[float | None], patient: str, date: str) -> None:
    for site, grade in zip(ALL_SITES, grades, strict=True):
        readings.add(name, site, Reading(grade))
    readings.describe(name, patient, date)


def visits(*cases: tuple[str, str, list[float | None], list[float | None]]) -> tuple[Readings, Readings]:
    """(patient, date, predicted, reference) of each study."""
    predicted, reference = Readings("p"), Readings("r")
    for number, (patient, date, found, true) in enumerate(cases):
        study(predicted, f"{number}", found, patient, date)
        study(reference, f"{number}", true, patient, date)
    return predicted, reference


def with_corners(**changed: float | None) -> list[float | None]:
    return [changed.get(site.replace("-", "_"), 0) for site in ALL_SITES]


NORMAL = with_corners()


def change_of(*cases, **options) -> dict:
    document = evaluate(*visits(*cases), resamples=0, **options)
    SCHEMA.validate(document)
    assert "nan" not in markdown(document).lower()
    return document["change"]


def test_a_change_is_that_of_the_comparable_corners() -> None:
    """One disc that cannot be seen at follow-up makes no change; each visit imputed by its own mean would."""
    before = [3.0] * 24
    after: list[float | None] = [None, None, *before[2:]]
    found = change_of(("A", "20200101", before, before), ("A", "20220101", after, before))
    (interval,) = found["intervals"]
    assert (interval["predicted"], interval["reference"], interval["days"]) == (0, 0, 731)
    assert (interval["complete"], found["progression"]["incomplete"]) == (False, 1)
    after[2] = 2.5
    (interval,) = change_of(("A", "20200101", before, before), ("A", "20220101", after, before))["intervals"]
    assert interval["predicted"] == pytest.approx(-0.5 * 12 / 10)


def test_more_than_three_corners_that_are_not_comparable_leave_no_change() -> None:
    """Two are missing at each visit, so that both have totals; four of 12 cannot be compared."""
    before = with_corners(C2_inferior=None, C3_superior=None)
    after = with_corners(C7_inferior=None, T1_superior=None)
    found = change_of(("A", "20200101", before, NORMAL), ("A", "20220101", after, NORMAL))
    assert found["patients"] == 0
    assert found["left_out"] == [
        {
            "studies": ["0", "1"],
            "reason": "no two of them have enough corners that are graded in both, on both sides",
        }
    ]


def test_the_longest_interval_with_a_change_counts() -> None:
    """The last study has no total: the patient stays, with the interval to the one before."""
    unseen: list[float | None] = [None] * 24
    unseen[0] = 1
    cases = [("A", f"20{year}0101", NORMAL, NORMAL) for year in (20, 21, 22)]
    cases.append(("A", "20240101", unseen, NORMAL))
    (interval,) = change_of(*cases)["intervals"]
    assert (interval["baseline"], interval["followup"]) == ("0", "2")


@pytest.mark.parametrize("dates", [("20200101", "20200101"), ("20200101", "20209999")])
def test_no_change_without_time_between(dates: tuple[str, str]) -> None:
    predicted, reference = visits(*(("A", "", NORMAL, NORMAL) for _ in dates))
    predicted.dates = dict(zip("01", dates, strict=True))
    change = evaluate(predicted, reference, resamples=0)["change"]
    assert change["patients"] == 0
    assert change["left_out"][0]["reason"] == "no two of them have different, undisputed dates"


def test_dates_that_the_sides_dispute_are_noted_and_give_no_change() -> None:
    predicted, reference = drawn_readings(4)
    predicted.describe("study-01", None, "20250101")
    document = evaluate(predicted, reference, resamples=0)
    assert document["contradictions"]["dates"] == ["study-01"]
    assert document["change"]["left_out"][0]["studies"] == ["study-00", "study-01"]
    assert any("date studies study-01 differently" in note for note in document["notes"])


def test_patients_that_the_sides_dispute_are_noted_and_give_no_change() -> None:
    predicted, reference = drawn_readings(6)
    predicted.patients = {**reference.patients, "study-01": "patient-1"}
    document = evaluate(predicted, reference, resamples=10)
    assert document["contradictions"]["patients"] == [["study-00", "study-01", "study-02", "study-03"]]
    assert document["change"]["patients"] == 1
    assert document["intervals"]["clusters"] == 2
    text = markdown(document)
    assert "several patients': they count as one patient in the intervals" in text
    assert "patient-1" not in text


def test_a_patient_named_at_one_visit_alone_keeps_the_change() -> None:
    predicted, reference = drawn_readings(8)
    whole = evaluate(predicted, reference, resamples=20)
    predicted.patients = {name: f"hash of {patient}" for name, patient in reference.patients.items()}
    reference.patients = {name: patient for name, patient in reference.patients.items() if int(name[-2:]) % 2}
    linked = evaluate(predicted, reference, resamples=20)
    assert linked == whole
    assert linked["sdc"]["from_change"]["patients"] == 4


def test_progression_is_two_units_within_two_years_or_so() -> None:
    from sklearn import metrics

    two = with_corners(L1_superior=2)
    one_and_a_half = with_corners(L1_superior=1.5)
    cases = [
        ("both", "20200101", NORMAL, NORMAL),
        ("both", "20220101", two, two),
        ("predicted", "20200101", NORMAL, NORMAL),
        ("predicted", "20220101", two, one_and_a_half),
        ("neither", "20200101", NORMAL, NORMAL),
        ("neither", "20220101", NORMAL, one_and_a_half),
        ("late", "20000101", NORMAL, NORMAL),
        ("late", "20140101", two, two),
        ("nine days", "20200101", NORMAL, NORMAL),
        ("nine days", "20200110", two, two),
    ]
    found = change_of(*cases)["progression"]
    assert (found["patients"], found["outside"]) == (3, 2)
    assert found["table"] == [[1, 1], [0, 1]]
    truth, said = [1, 0, 0], [1, 1, 0]
    assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(truth, said))
    assert change_of(*cases, rules=Rules(progression_units=1.5))["progression"]["table"] == [[0, 0], [1, 2]]
    assert change_of(*cases, rules=Rules(window_years=(0, 20)))["progression"]["table"] == [[1, 1], [0, 3]]


def test_progression_takes_the_interval_nearest_to_two_years() -> None:
    one, two = with_corners(L1_superior=1), with_corners(L1_superior=2)
    cases = [("A", date, found, found) for date, found in (("20200101", NORMAL), ("20220101", one), ("20290101", two))]
    found = change_of(*cases)
    assert found["intervals"][0]["days"] > 3000
    assert found["progression"]["table"] == [[1, 0], [0, 0]]


def test_new_syndesmophytes_of_corners_and_units() -> None:
    """L1/L2 on both sides at other corners: the unit agrees, its corners do not. From 2, or 1.5, it is no new one."""
    before = with_corners(C3_superior=2, L3_superior=1.5)
    predicted = with_corners(C3_superior=3, L3_superior=2, L1_inferior=2, L5_inferior=2, S1_superior=None)
    reference = with_corners(C3_superior=3, L3_superior=2, L2_superior=2, L5_inferior=2, T12_inferior=None)
    found = change_of(("A", "20200101", before, before), ("A", "20210101", predicted, reference))["new_syndesmophytes"]
    assert found["corner"]["table"] == [[19, 1], [1, 1]]
    assert found["corner"]["corners"] == 22
    assert found["unit"]["table"] == [[9, 0], [0, 2]]  # T12/L1 is not known on the reader's side
    assert found["unit"]["kappa"] == 1


def test_change_figures_are_those_of_the_changes() -> None:
    predicted, reference = drawn_readings(30)
    document = evaluate(predicted, reference, resamples=30, rules=Rules(readers=2))
    SCHEMA.validate(document)
    change = document["change"]
    difference = np.array([i["predicted"] - i["reference"] for i in change["intervals"]])
    assert len(difference) == change["patients"] == 15
    assert change["bland_altman"]["bias"] == pytest.approx(difference.mean())
    assert document["sdc"]["from_change"]["value"] == pytest.approx(1.96 * difference.std(ddof=1) / math.sqrt(2 * 2))
    assert document["sdc"]["readers"] == 2
    assert document["intervals"]["figures"]["change.icc.one_way.value"] is not None
    icc = change["icc"]["one_way"]
    assert icc["low"] < icc["value"] < icc["high"]


def test_change_is_the_same_in_any_order() -> None:
    predicted, reference = drawn_readings(8)
    first = evaluate(predicted, reference, resamples=10)
    shuffled = list(predicted.corners.items())
    random.Random(1).shuffle(shuffled)
    predicted.corners = dict(shuffled)
    assert evaluate(predicted, reference, resamples=10) == first
