"""The whole comparison: schema, missing corners, undefined figures with their notes, determinism."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import jsonschema
import numpy as np
import pytest

from helpers.agreement_cases import KOO_TABLE_1, constant_readings, drawn_readings, koo_readings
from spinescore.benchmarks.agreement import (
    NothingToCompare,
    Reading,
    Readings,
    agreement_schema,
    evaluate,
)
from spinescore.benchmarks.agreement.notes import figure_at
from spinescore.benchmarks.agreement.tables import markdown, to_json

SCHEMA = jsonschema.Draft202012Validator(agreement_schema())


def check(document: dict[str, Any]) -> dict[str, Any]:
    """The document fits its schema, survives JSON, and has a table for people."""
    SCHEMA.validate(document)
    assert json.loads(to_json(document)) == document
    assert "nan" not in markdown(document).lower()
    return document


def nulls(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in nulls(item, f"{path}.{key}")]
    if isinstance(value, list):
        return [found for i, item in enumerate(value) for found in nulls(item, f"{path}.{i}")]
    return [path] if value is None else []


def test_schema_is_a_schema_and_strict_enough() -> None:
    jsonschema.Draft202012Validator.check_schema(agreement_schema())
    document = evaluate(*drawn_readings(4), resamples=0)
    for wrong in ({"confusion": [[1]]}, {"accuracy": 1.1}, {"per_grade": []}, {"schema": "other"}):
        assert list(SCHEMA.iter_errors({**document, **wrong})), wrong


def test_koo_from_corner_to_document() -> None:
    document = check(evaluate(*koo_readings(), resamples=3))
    assert document["confusion"] == KOO_TABLE_1.tolist()
    assert document["mean"]["accuracy"] == pytest.approx(0.91604, abs=5e-6)
    assert document["mean"]["sensitivity"] == pytest.approx(0.80288, abs=5e-6)
    assert document["mean"]["specificity"] == pytest.approx(0.94244, abs=5e-6)
    assert document["accuracy"] == pytest.approx(0.8321, abs=5e-5)
    assert document["kappa_quadratic"] == pytest.approx(0.9004, abs=5e-5)
    assert [set(figures) for figures in document["per_grade"]] == [set(document["mean"])] * 4
    assert document["counts"]["pairs"] == 9326
    assert document["intervals"]["unit"] == "study"
    assert "The predictions have no probabilities (p0 .. p3): there are no ROC curves." in document["notes"]


def test_complete_comparison_has_every_figure() -> None:
    document = check(evaluate(*drawn_readings(40), resamples=50))
    first = [f".roc.per_grade.{grade}.threshold.0" for grade in range(4)]
    assert nulls(document) == first  # above every probability
    (only,) = document["notes"]
    assert "F distribution (icc, low and high) are too narrow" in only
    assert document["intervals"]["unit"] == "patient"
    assert document["intervals"]["clusters"] == document["sdc"]["from_change"]["patients"] == 20
    for name, (low, high) in document["intervals"]["figures"].items():
        assert low <= (figure_at(document, name) or 0) <= high, name


def test_curves_keep_their_area_and_start_above_all() -> None:
    roc = evaluate(*drawn_readings(), resamples=0)["roc"]
    for curve in roc["per_grade"]:
        area = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
        assert area == pytest.approx(curve["auc"], abs=1e-5)
        assert curve["threshold"][0] is None
        assert curve["threshold"][1:] == sorted(curve["threshold"][1:], reverse=True)
        assert (curve["false_positive_rate"][-1], curve["true_positive_rate"][-1]) == (1, 1)


def test_change_is_from_the_first_dated_study_to_the_last() -> None:
    predicted, reference = drawn_readings(8)
    document = evaluate(predicted, reference, resamples=0)
    totals = {entry["study"]: entry["predicted"] - entry["reference"] for entry in document["totals"]}
    grown = [totals[f"study-{2 * i + 1:02}"] - totals[f"study-{2 * i:02}"] for i in range(4)]
    assert document["sdc"]["from_change"] == {
        "patients": 4,
        "value": pytest.approx(1.96 * np.std(grown, ddof=1) / math.sqrt(2)),
    }
    reference.dates = dict.fromkeys(reference.dates, "20260101")
    undated = check(evaluate(predicted, reference, resamples=0))
    assert undated["sdc"]["from_change"] == {"patients": 0, "value": None}
    assert any("smallest detectable change" in note for note in undated["notes"])


def test_missing_corners_are_counted_listed_and_left_out() -> None:
    predicted, reference = drawn_readings(3)
    predicted.corners["study-00"]["C4-superior"] = Reading(None, (0.25,) * 4)
    del reference.corners["study-00"]["L1-superior"]
    del predicted.corners["study-01"]
    predicted.corners["stranger"] = {"S1-superior": Reading(0)}
    document = check(evaluate(predicted, reference, resamples=0))
    assert document["missing_corners"]["predicted"][0] == {"study": "study-00", "sites": ["C4-superior"]}
    assert [entry["study"] for entry in document["missing_corners"]["predicted"]] == ["study-00", "study-01"]
    assert document["missing_corners"]["reference"] == [
        {"study": "stranger", "sites": ["S1-superior"]},
        {"study": "study-00", "sites": ["L1-superior"]},
    ]
    assert document["counts"]["missing"] == {"predicted": 25, "reference": 2, "both": 0}
    assert document["counts"]["pairs"] == 22 + 24
    assert [(entry["study"], entry["complete"]) for entry in document["totals"]] == [
        ("study-00", False),
        ("study-02", True),
    ]
    assert document["totals_left_out"] == [
        {"study": "stranger", "reason": "predicted lacks cervical 12 of 12, lumbar 11 of 12; not in reference"},
        {"study": "study-01", "reason": "not in predicted"},
    ]
    assert "| study-01 | predicted" in markdown(document)


def test_no_rule_is_applied_to_the_grades() -> None:
    """A grade 3 beside a grade 0 stays as it is: here the reader decides on bridges."""
    predicted, reference = Readings("p"), Readings("r")
    for site, grade in (("C2-inferior", 3), ("C3-superior", 0)):
        predicted.add("s", site, Reading(grade))
        reference.add("s", site, Reading(grade))
    document = check(evaluate(predicted, reference))
    assert document["confusion"] == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert document["kappa_quadratic"] == 1


def test_notes_say_where_intervals_cannot_be_trusted() -> None:
    predicted, reference = drawn_readings(6)
    for corners in reference.corners.values():  # but for one patient, no bridge
        corners.update({site: Reading(min(reading.grade or 0, 2)) for site, reading in corners.items()})
    reference.corners["study-00"]["L1-superior"] = Reading(3)
    document = check(evaluate(predicted, reference, resamples=40))
    assert document["intervals"]["figures"]["per_grade.3.sensitivity"] is None
    assert document["per_grade"][3]["sensitivity"] is not None
    assert "Bootstrap intervals from 3 patients or studies are too narrow: they are a hint." in document["notes"]
    (lacking,) = [note for note in document["notes"] if "hence no interval" in note]
    assert "per_grade.3.sensitivity" in lacking
    unasked = evaluate(predicted, reference, resamples=0)
    assert set(unasked["intervals"]["figures"].values()) == {None}
    assert "Bootstrap intervals were not asked for." in unasked["notes"]


def test_one_study_alone() -> None:
    document = check(evaluate(*drawn_readings(1), resamples=20))
    assert document["bland_altman"]["bias"] is not None
    assert document["bland_altman"]["sd"] is document["sdc"]["from_status"]["value"] is None
    assert set(document["intervals"]["figures"].values()) == {None}
    assert any("one patient or study alone" in note for note in document["notes"])
    assert any("ICC, limits of agreement and SDC need two studies" in note for note in document["notes"])


@pytest.mark.parametrize("other", [1, 2])
def test_all_the_same_grade(other: int) -> None:
    document = check(evaluate(*constant_readings(1, other), resamples=20))
    notes = "\n".join(document["notes"])
    assert document["per_grade"][other]["specificity"] is None
    assert f"All corners have grade {other} in the reference" in notes
    assert "Grade 0 does not occur" in notes
    assert document["mean"]["sensitivity"] is None
    assert "that of sensitivity, specificity" in notes
    assert (document["kappa_quadratic"] is None) == (other == 1)
    assert document["kappa_quadratic"] in (None, 0)
    assert document["icc"]["two_way_consistency"]["value"] is None
    assert "The totals do not vary" in notes
    assert document["bland_altman"]["bias"] == 24 * (1 - other)


def test_part_of_the_pairs_has_probabilities() -> None:
    predicted, reference = drawn_readings(4)
    for site, reading in predicted.corners["study-00"].items():
        predicted.corners["study-00"][site] = Reading(reading.grade)
    document = check(evaluate(predicted, reference, resamples=0))
    assert document["roc"]["corners"] == document["counts"]["pairs_with_probabilities"] == 72
    assert "ROC curves are of the 72 of 96 pairs that have probabilities." in document["notes"]


def test_a_grade_without_example_has_no_curve() -> None:
    predicted, reference = drawn_readings(4)
    for corners in reference.corners.values():
        corners.update({site: Reading(min(reading.grade or 0, 2)) for site, reading in corners.items()})
    document = check(evaluate(predicted, reference, resamples=10))
    assert document["roc"]["per_grade"][3]["auc"] is document["roc"]["per_grade"][3]["threshold"] is None
    assert document["roc"]["mean_auc"] is document["per_grade"][3]["sensitivity"] is None
    assert document["per_grade"][3]["specificity"] is not None
    assert document["intervals"]["figures"]["per_grade.3.sensitivity"] is None
    assert any("No corner has grade 3 in the reference" in note for note in document["notes"])


def test_nothing_in_common_is_refused() -> None:
    predicted, _ = drawn_readings(1)
    stranger = Readings("reader.csv", corners={"other": {"C2-inferior": Reading(1)}})
    with pytest.raises(NothingToCompare, match=r"no study is in both \('study-00' against 'other'\)"):
        evaluate(predicted, stranger)
    empty = Readings("reader.csv", corners={"study-00": {"C2-inferior": Reading(None)}})
    with pytest.raises(NothingToCompare, match="no corner of the 1 study in both has two grades"):
        evaluate(predicted, empty)
    tables = Readings("tables", corners={"2.25.7": {"C2-inferior": Reading(1)}})
    with pytest.raises(NothingToCompare, match=r"alike \(tables of spinescore archive .* only with --identifiers\)$"):
        evaluate(tables, stranger)


def test_the_same_document_in_any_order() -> None:
    first = evaluate(*drawn_readings(6), resamples=20, seed=5)
    predicted, reference = drawn_readings(6)
    shuffled = random.Random(0)
    for readings in (predicted, reference):
        studies = [(name, list(corners.items())) for name, corners in readings.corners.items()]
        shuffled.shuffle(studies)
        for _, corners in studies:
            shuffled.shuffle(corners)
        readings.corners = {name: dict(corners) for name, corners in studies}
    assert to_json(evaluate(predicted, reference, resamples=20, seed=5)) == to_json(first)
    other = evaluate(predicted, reference, resamples=20, seed=6)
    assert other["intervals"]["figures"] != first["intervals"]["figures"]
