"""Sentences that explain missing figures: every null of the document has one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spinescore.runtime.text import number_of

__all__ = ["figure_at", "notes"]

_FEW_CLUSTERS = 20  # below it, percentile intervals are known to be too narrow


def notes(document: Mapping[str, Any]) -> list[str]:
    """Return the sentences for a document (`spinescore.agreement/1`, without its `notes`)."""
    parts = (_of_inputs, _of_grades, _of_scores, _of_totals, _of_change, _of_intervals)
    return [note for part in parts for note in part(document)]


def _of_inputs(document: Mapping[str, Any]) -> Iterator[str]:
    for side, source in document["inputs"].items():
        if source["half_points"]:
            yield (
                f"{source['half_points']} grades of the {side} side are half points or other means of readers: "
                "kappa, figures of grades, ROC curves and syndesmophytes take them rounded (1.5 as 2); "
                "totals and changes are exact."
            )
    corrected = document["inputs"]["reference"].get("corrected", 0)
    if corrected:
        yield (
            f"The reference has {number_of(corrected, 'report')} that a reader corrected: corners that the reader left "
            "as they were count as the reader's, who saw the network's grades; agreement is overestimated."
        )
    contradictions = document["contradictions"]
    for studies in contradictions["patients"]:
        yield (
            f"One side takes {_listed(studies)} for one patient's, the other for several patients': they count as one "
            "patient in the intervals and in no change; correct the patient's name in one of the files."
        )
    if contradictions["dates"]:
        yield (
            f"The two sides date {_listed(contradictions['dates'])} differently: no change is taken from there; "
            "correct study_date in one of the files."
        )


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
    sites = [site["site"] for site in document["per_site"] if site["kappa_quadratic"] is None]
    if sites:
        places = "all 24 sites" if len(sites) == 24 else ", ".join(sites)
        yield f"No corner has two grades, or all have the same one, at {places}: no kappa there."


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
    if len(undefined) == len(roc["per_grade"]):
        yield "No ROC curve exists, so there is no picture of them: all corners with probabilities have one grade."


def _of_totals(document: Mapping[str, Any]) -> Iterator[str]:
    counts, most = document["counts"], document["missing_rule"]["max_imputed_per_region"]
    studies = counts["complete_totals"] + counts["imputed_totals"]
    if counts["imputed_totals"]:
        yield (
            f"In the totals of {counts['imputed_totals']} of {number_of(studies, 'study')}, up to {most} missing of a "
            "region's 12 corners take the mean of its scored ones."
        )
    if counts["left_out_totals"]:
        without = number_of(counts["left_out_totals"], "study")
        yield f"Without a total on both sides: {without}; totals_left_out has the names and the reasons."
    if studies < 2:
        has = "One study has" if studies else "No study has"
        yield f"{has} a total on both sides: ICC, limits of agreement and SDC need two studies."
        return
    yield from _of_icc(document["icc"], "totals", "studies")
    if not document["icc"]["independent"]:
        yield (
            "Several studies are one patient's: the ICC's intervals by the F distribution (icc, low and high) are too "
            "narrow; those of intervals.figures are by patient."
        )


def _of_icc(icc: Mapping[str, Any], values: str, of: str) -> Iterator[str]:
    entries = [icc[name] for name in ("one_way", "two_way_absolute", "two_way_consistency")]
    if any(entry["value"] is None for entry in entries):
        yield f"The {values} do not vary between {of}: ICCs that are not given are undefined."
    if any(entry["value"] is not None and entry["low"] is None for entry in entries):
        yield f"The {values} leave no residual variance: ICCs without an interval have none by the F distribution."


def _of_change(document: Mapping[str, Any]) -> Iterator[str]:
    change = document["change"]
    for entry in change["left_out"]:
        yield f"No change is taken from {_listed(entry['studies'])}: {entry['reason']}."
    if change["patients"] < 2:
        yield (
            "Fewer than two patients have two dated studies with enough comparable corners on both sides (columns "
            "patient and study_date): agreement on change is not given, and the smallest detectable change from single "
            "studies alone."
        )
    else:
        yield from _of_icc(change["icc"], "changes", "patients")
    progression = change["progression"]
    if progression["outside"]:
        low, high = progression["years"]
        yield (
            f"Without two studies {low:g} to {high:g} years apart: {number_of(progression['outside'], 'patient')}; "
            "progression is not judged there."
        )
    if progression["incomplete"]:
        yield (
            f"The progression of {progression['incomplete']} of {number_of(progression['patients'], 'patient')} is "
            "judged by the change of the comparable corners; the change of the other corners is not known."
        )
    if change["patients"]:
        yield from _of_events(change)


def _of_events(change: Mapping[str, Any]) -> Iterator[str]:
    places = change["new_syndesmophytes"]
    events = {"progression": change["progression"]}
    events |= {f"new syndesmophytes ({place}s)": event for place, event in places.items()}
    undefined = [name for name, event in events.items() if event["kappa"] is None]
    if undefined:
        yield f"Both sides say the same of every case, or there is none: kappa of {', '.join(undefined)} is undefined."


def _of_intervals(document: Mapping[str, Any]) -> Iterator[str]:
    intervals = document["intervals"]
    if intervals["resamples"] == 0:
        yield "Bootstrap intervals were not asked for."
        return
    if intervals["clusters"] < 2:
        yield "There is one patient or study alone: bootstrap intervals need two."
        return
    if intervals["unit"] == "patient, or study":
        yield "Some studies name no patient: each of them counts as a patient of its own in the intervals."
    if intervals["clusters"] < _FEW_CLUSTERS:
        yield f"Bootstrap intervals from {intervals['clusters']} patients or studies are too narrow: they are a hint."
    lacking = [name for name, bounds in intervals["figures"].items() if bounds is None]
    if lacking := [name for name in lacking if figure_at(document, name) is not None]:
        yield f"More than a tenth of the resamples leave these undefined, hence no interval: {', '.join(lacking)}."


def _listed(studies: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(studies[:most])
    return f"studies {shown}" + (f" and {len(studies) - most} more" if len(studies) > most else "")


def figure_at(document: Mapping[str, Any], path: str) -> float | None:
    """Return the figure at a name of `intervals.figures`, as `per_grade.2.f1`."""
    value: Any = document
    for key in path.split("."):
        value = value[int(key)] if key.isdecimal() else value[key]
    return None if value is None else float(value)
