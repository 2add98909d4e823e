"""Why a figure is missing, in sentences: no null of the document stands without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["figure_at", "notes"]

_FEW_CLUSTERS = 20  # below it, percentile intervals are known to be too narrow


def notes(document: Mapping[str, Any]) -> list[str]:
    """The sentences that go with a document (`spinescore.agreement/1`, without its `notes`)."""
    return [*_of_grades(document), *_of_scores(document), *_of_totals(document), *_of_intervals(document)]


def _of_grades(document: Mapping[str, Any]) -> Iterator[str]:
    confusion: Sequence[Sequence[int]] = document["confusion"]
    pairs = document["counts"]["pairs"]
    for grade in range(4):
        examples, given = sum(confusion[grade]), sum(row[grade] for row in confusion)
        if not examples and not given:
            yield f"Grade {grade} does not occur: its sensitivity, PPV and F1 are undefined."
        elif not examples:
            yield f"No corner has grade {grade} in the reference: its sensitivity is undefined."
        elif not given:
            yield f"Grade {grade} was never predicted: its PPV is undefined."
        if examples == pairs:
            yield f"All corners have grade {grade} in the reference: its specificity is undefined."
    undefined = [name for name, value in document["mean"].items() if value is None]
    if undefined:
        yield f"A mean is over all four grades: that of {', '.join(undefined)} is undefined."
    if document["kappa_quadratic"] is None:
        yield "Both sides give every corner the same grade: kappa is undefined."


def _of_scores(document: Mapping[str, Any]) -> Iterator[str]:
    roc, counts = document["roc"], document["counts"]
    if roc is None:
        yield "The predictions have no probabilities (p0 .. p3): there are no ROC curves."
        return
    if roc["corners"] < counts["pairs"]:
        yield f"ROC curves are of the {roc['corners']} of {counts['pairs']} pairs that have probabilities."
    undefined = [str(grade) for grade, curve in enumerate(roc["per_grade"]) if curve["auc"] is None]
    if undefined:
        yield f"Grade {', '.join(undefined)} has no example, or no counterexample: no ROC curve, and no mean area."


def _of_totals(document: Mapping[str, Any]) -> Iterator[str]:
    studies = document["counts"]["complete_totals"]
    if studies < 2:
        yield f"All 24 corners have two grades in {studies} studies: ICC, limits of agreement and SDC need two studies."
    else:
        values = [document["icc"][name] for name in ("one_way", "two_way_absolute", "two_way_consistency")]
        if any(icc["value"] is None for icc in values):
            yield "The totals do not vary between studies: ICCs that are not given are undefined."
        if any(icc["value"] is not None and icc["low"] is None for icc in values):
            yield "The totals leave no residual variance: ICCs without an interval have none by the F distribution."
    if document["sdc"]["from_change"]["value"] is None:
        yield (
            "Fewer than two patients have two dated studies with complete totals (columns patient and study_date): "
            "the smallest detectable change is given from single studies alone."
        )


def _of_intervals(document: Mapping[str, Any]) -> Iterator[str]:
    intervals = document["intervals"]
    if intervals["resamples"] == 0:
        yield "Bootstrap intervals were not asked for."
        return
    if intervals["clusters"] < 2:
        yield "There is one patient or study alone: bootstrap intervals need two."
        return
    if intervals["clusters"] < _FEW_CLUSTERS:
        yield f"Bootstrap intervals from {intervals['clusters']} patients or studies are too narrow: they are a hint."
    lacking = [name for name, bounds in intervals["figures"].items() if bounds is None]
    if lacking := [name for name in lacking if figure_at(document, name) is not None]:
        yield f"More than a tenth of the resamples leave these undefined, hence no interval: {', '.join(lacking)}."


def figure_at(document: Mapping[str, Any], path: str) -> float | None:
    """The figure that `intervals.figures` names: `per_grade.2.f1`."""
    value: Any = document
    for key in path.split("."):
        value = value[int(key)] if key.isdecimal() else value[key]
    return None if value is None else float(value)
