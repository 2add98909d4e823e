"""The comparison as one document (`spinescore.agreement/1`), which `spinescore evaluate` writes as `evaluate.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.benchmarks.agreement import measures
from spinescore.benchmarks.agreement.changes import Changes, Rules
from spinescore.benchmarks.agreement.figures import Figures, bootstrap
from spinescore.benchmarks.agreement.measures import GRADE_FIGURES, Ranking
from spinescore.benchmarks.agreement.notes import notes
from spinescore.benchmarks.agreement.pairs import Pairs, Totals, pair_up
from spinescore.runtime.followup.readings import Readings, ReadingsError
from spinescore.runtime.scoring.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.study import ALL_SITES
from spinescore.runtime.text import number_of

__all__ = ["ICC_NAMES", "SCHEMA", "agreement_schema", "evaluate"]

SCHEMA = "spinescore.agreement/1"

ICC_NAMES = {"one_way": "ICC(1)", "two_way_absolute": "ICC(A,1)", "two_way_consistency": "ICC(C,1)"}


def evaluate(
    predicted: Readings,
    reference: Readings,
    resamples: int = 1000,
    seed: int = 0,
    max_imputed: int = DEFAULT_MAX_IMPUTED,
    rules: Rules | None = None,
) -> dict[str, Any]:
    """Compare two sources' grades; returns the document that `agreement_schema()` describes.

    `resamples` is the size of the bootstrap (0: no intervals). Up to `max_imputed` of a region's 12 corners may be
    missing in a total or a change. The same readings, resamples and seed give the same document, in any order of the
    readings. Undefined figures are None, and `notes` gives the reason. Needs the extra `agreement`. Raises
    NothingToCompare if no corner has two grades, ReadingsError if `predicted` has reports that a reader corrected:
    their grades are not the network's.
    """
    if predicted.corrected:
        raise ReadingsError(
            f"{predicted.name}: readers corrected {number_of(len(predicted.corrected), 'report')}, the first of study "
            f"{predicted.corrected[0]}, so the grades are not the network's; give the reports before the corrections"
        )
    pairs = pair_up(predicted, reference, max_imputed)
    figures = Figures(pairs, rules)
    point = figures()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "inputs": {"predicted": _source(predicted), "reference": _source(reference)},
        "counts": _counts(figures),
        "missing_corners": {
            side: [{"study": study, "sites": list(sites)} for study, sites in lacking.items()]
            for side, lacking in pairs.missing.items()
        },
        "missing_rule": {"max_imputed_per_region": max_imputed},
        "contradictions": _contradictions(pairs),
        "confusion": measures.confusion_matrix(pairs.reference, pairs.predicted).tolist(),
        "accuracy": point["accuracy"],
        "kappa_quadratic": point["kappa_quadratic"],
        "per_grade": [{name: point[f"per_grade.{grade}.{name}"] for name in GRADE_FIGURES} for grade in range(4)],
        "mean": {name: point[f"mean.{name}"] for name in GRADE_FIGURES},
        "per_site": _per_site(pairs),
        "roc": _roc(figures, point),
        "totals": _totals(pairs),
        "totals_left_out": [{"study": study, "reason": why} for study, why in pairs.totals.left_out.items()],
        "icc": _icc(pairs.totals, point, "icc.") | {"independent": _independent(pairs)},
        "bland_altman": {"studies": len(pairs.totals.study), **_part(point, "bland_altman.")},
        "sdc": {
            "from_status": {"studies": len(pairs.totals.study), "value": point["sdc.from_status.value"]},
            "from_change": {"patients": len(figures.changes.longest), "value": point["sdc.from_change.value"]},
            "readers": figures.rules.readers,
        },
        "change": _change(figures, point),
        "intervals": _intervals(figures, resamples, seed),
    }
    document = _plain(document)
    document["notes"] = notes(document)
    return document


def agreement_schema() -> dict[str, Any]:
    """Return the published JSON Schema (2020-12) of the document."""
    schema: dict[str, Any] = json.loads((Path(__file__).parent / "evaluate.schema.json").read_text(encoding="utf-8"))
    return schema


def _source(readings: Readings) -> dict[str, Any]:
    corners = [reading for sites in readings.corners.values() for reading in sites.values()]
    grades = [reading.grade for reading in corners if reading.grade is not None]
    return {
        "name": readings.name,
        "format": readings.format,
        "studies": len(readings.corners),
        "corners": len(corners),
        "graded": len(grades),
        "half_points": sum(grade % 1 != 0 for grade in grades),
        "corrected": len(readings.corrected),
    }


def _counts(figures: Figures) -> dict[str, Any]:
    pairs = figures.pairs
    complete = int(pairs.totals.complete.sum())
    return {
        "studies": len(pairs.studies),
        "pairs": len(pairs.study),
        "pairs_with_probabilities": len(figures.known),
        "complete_totals": complete,
        "imputed_totals": len(pairs.totals.study) - complete,
        "left_out_totals": len(pairs.totals.left_out),
        "missing": {side: sum(map(len, lacking.values())) for side, lacking in pairs.missing.items()},
    }


def _contradictions(pairs: Pairs) -> dict[str, Any]:
    """Return contradictions by their studies: no result may contain a patient's name."""
    groups = [np.flatnonzero(pairs.cluster == cluster) for cluster in sorted(pairs.patients.contradictory)]
    return {"patients": [[pairs.studies[study] for study in group] for group in groups], "dates": list(pairs.two_dates)}


def _independent(pairs: Pairs) -> bool:
    """Return whether all totals are of different patients, as the F distribution assumes."""
    return len(np.unique(pairs.cluster[pairs.totals.study])) == len(pairs.totals.study)


def _per_site(pairs: Pairs) -> list[dict[str, Any]]:
    sites = []
    for number, site in enumerate(ALL_SITES):
        here = pairs.site == number
        confusion = measures.confusion_matrix(pairs.reference[here], pairs.predicted[here])
        kappa, accuracy = measures.quadratic_kappa(confusion), measures.accuracy(confusion)
        sites.append({"site": site, "corners": int(here.sum()), "accuracy": accuracy, "kappa_quadratic": kappa})
    return sites


def _totals(pairs: Pairs) -> list[dict[str, Any]]:
    totals = pairs.totals
    names = (pairs.studies[study] for study in totals.study)
    units = (map(_unit, side) for side in (totals.predicted, totals.reference))
    rows = zip(names, *units, totals.complete.tolist(), strict=True)
    return [dict(zip(("study", "predicted", "reference", "complete"), row, strict=True)) for row in rows]


def _unit(value: float) -> float:
    """Return a whole total as an integer, as documents have always had it."""
    return int(value) if value == int(value) else round(float(value), 3)


def _roc(figures: Figures, point: Mapping[str, float]) -> dict[str, Any] | None:
    if not figures.rankings:
        return None
    areas = [point[f"roc.per_grade.{grade}.auc"] for grade in range(4)]
    per_grade = [{"auc": area, **_curve(ranking)} for area, ranking in zip(areas, figures.rankings, strict=True)]
    return {"corners": len(figures.known), "mean_auc": point["roc.mean_auc"], "per_grade": per_grade}


def _curve(ranking: Ranking) -> dict[str, Any]:
    """Return the curve without the points on a straight line between their neighbours."""
    false, true = ranking.curve()
    if math.isnan(false[-1] + true[-1]):
        return {"false_positive_rate": None, "true_positive_rate": None, "threshold": None}
    steps = np.diff(np.stack([false, true]))
    turns = np.abs(steps[0, 1:] * steps[1, :-1] - steps[1, 1:] * steps[0, :-1]) > 1e-12
    keep = np.concatenate([[True], turns, [True]])
    thresholds = np.concatenate([[np.nan], ranking.thresholds])
    return {
        "false_positive_rate": np.round(false[keep], 6).tolist(),
        "true_positive_rate": np.round(true[keep], 6).tolist(),
        "threshold": np.round(thresholds[keep], 6).tolist(),
    }


def _icc(sides: Totals | Changes, point: Mapping[str, float], path: str) -> dict[str, Any]:
    bounds = measures.icc_intervals(sides.predicted, sides.reference)
    document: dict[str, Any] = {"studies" if isinstance(sides, Totals) else "patients": len(sides.predicted)}
    for name, label in ICC_NAMES.items():
        low, high = bounds[name]
        document[name] = {"name": label, "value": point[f"{path}{name}.value"], "low": low, "high": high}
    return document


def _change(figures: Figures, point: Mapping[str, float]) -> dict[str, Any]:
    changes, rules, studies = figures.changes, figures.rules, figures.pairs.studies
    intervals = [
        {
            "baseline": studies[interval.first],
            "followup": studies[interval.last],
            "days": interval.days,
            "predicted": _unit(interval.predicted),
            "reference": _unit(interval.reference),
            "complete": interval.complete,
        }
        for interval in changes.longest
    ]
    judged = len(changes.two_years)
    return {
        "patients": len(intervals),
        "intervals": intervals,
        "left_out": [{"studies": list(names), "reason": why} for names, why in changes.left_out],
        "icc": _icc(changes, point, "change.icc."),
        "bland_altman": {"patients": len(intervals), **_part(point, "change.bland_altman.")},
        "progression": {
            "units": rules.progression_units,
            "years": list(rules.window_years),
            "patients": judged,
            "outside": len(intervals) - judged,
            "incomplete": sum(not interval.complete for interval in changes.two_years),
            **_event(figures, point, "progression"),
        },
        "new_syndesmophytes": {
            place: {f"{place}s": len(events), **_event(figures, point, f"new_syndesmophytes.{place}")}
            for place, events in (("corner", changes.corner_events), ("unit", changes.unit_events))
        },
    }


def _event(figures: Figures, point: Mapping[str, float], name: str) -> dict[str, Any]:
    table = figures.event_table(name).tolist()
    return {"table": table, "kappa": point[f"change.{name}.kappa"], "agreement": point[f"change.{name}.agreement"]}


def _intervals(figures: Figures, resamples: int, seed: int) -> dict[str, Any]:
    pairs = figures.pairs
    named = pairs.patients.named
    return {
        "method": "cluster bootstrap, percentile",
        "level": measures.LEVEL,
        "unit": "patient" if named == len(pairs.studies) else "study" if not named else "patient, or study",
        "clusters": pairs.clusters,
        "resamples": resamples,
        "seed": seed,
        "figures": bootstrap(figures, resamples, seed),
    }


def _part(point: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in point.items() if name.startswith(prefix)}


def _plain(value: Any) -> Any:
    """Return the value as JSON can hold it: NaN becomes None, tuples become lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
