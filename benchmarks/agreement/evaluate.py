"""The comparison as one document (`spinescore.agreement/1`): what `spinescore evaluate` writes as `evaluate.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.benchmarks.agreement import measures
from spinescore.benchmarks.agreement.figures import Figures, bootstrap
from spinescore.benchmarks.agreement.measures import GRADE_FIGURES, Ranking
from spinescore.benchmarks.agreement.notes import notes
from spinescore.benchmarks.agreement.pairs import Pairs, pair_up
from spinescore.benchmarks.agreement.readings import Readings

__all__ = ["ICC_NAMES", "SCHEMA", "agreement_schema", "evaluate"]

SCHEMA = "spinescore.agreement/1"

ICC_NAMES = {"one_way": "ICC(1)", "two_way_absolute": "ICC(A,1)", "two_way_consistency": "ICC(C,1)"}


def evaluate(predicted: Readings, reference: Readings, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Compare two sources' grades; returns the document, which `agreement_schema()` describes.

    `resamples` of the bootstrap (0: no intervals). The same readings, resamples and seed give the same document,
    whatever their order. Undefined figures are None, and `notes` says why. Needs the extra `agreement`. Raises
    NothingToCompare where no corner has two grades.
    """
    pairs = pair_up(predicted, reference)
    figures = Figures(pairs)
    point = figures()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "inputs": {"predicted": _source(predicted), "reference": _source(reference)},
        "counts": _counts(figures),
        "missing_corners": {
            side: [{"study": study, "sites": list(sites)} for study, sites in lacking.items()]
            for side, lacking in pairs.missing.items()
        },
        "confusion": measures.confusion_matrix(pairs.reference, pairs.predicted).tolist(),
        "accuracy": point["accuracy"],
        "kappa_quadratic": point["kappa_quadratic"],
        "per_grade": [{name: point[f"per_grade.{grade}.{name}"] for name in GRADE_FIGURES} for grade in range(4)],
        "mean": {name: point[f"mean.{name}"] for name in GRADE_FIGURES},
        "roc": _roc(figures, point),
        "totals": _totals(pairs),
        "icc": _icc(pairs, point),
        "bland_altman": {"studies": len(pairs.totals.study), **_part(point, "bland_altman.")},
        "sdc": {
            "from_status": {"studies": len(pairs.totals.study), "value": point["sdc.from_status.value"]},
            "from_change": {"patients": len(figures.changed), "value": point["sdc.from_change.value"]},
        },
        "intervals": _intervals(figures, resamples, seed),
    }
    document = _plain(document)
    document["notes"] = notes(document)
    return document


def agreement_schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of the document."""
    schema: dict[str, Any] = json.loads((Path(__file__).parent / "evaluate.schema.json").read_text(encoding="utf-8"))
    return schema


def _source(readings: Readings) -> dict[str, Any]:
    corners = [reading for sites in readings.corners.values() for reading in sites.values()]
    graded = sum(reading.grade is not None for reading in corners)
    return {
        "name": readings.name,
        "format": readings.format,
        "studies": len(readings.corners),
        "corners": len(corners),
        "graded": graded,
    }


def _counts(figures: Figures) -> dict[str, Any]:
    pairs = figures.pairs
    return {
        "studies": len(pairs.studies),
        "pairs": len(pairs.study),
        "pairs_with_probabilities": len(figures.known),
        "complete_totals": len(pairs.totals.study),
        "missing": {side: sum(map(len, lacking.values())) for side, lacking in pairs.missing.items()},
    }


def _totals(pairs: Pairs) -> list[dict[str, Any]]:
    totals = pairs.totals
    return [
        {"study": pairs.studies[study], "predicted": int(predicted), "reference": int(reference)}
        for study, predicted, reference in zip(totals.study, totals.predicted, totals.reference, strict=True)
    ]


def _roc(figures: Figures, point: Mapping[str, float]) -> dict[str, Any] | None:
    if not figures.rankings:
        return None
    areas = [point[f"roc.per_grade.{grade}.auc"] for grade in range(4)]
    per_grade = [{"auc": area, **_curve(ranking)} for area, ranking in zip(areas, figures.rankings, strict=True)]
    return {"corners": len(figures.known), "mean_auc": point["roc.mean_auc"], "per_grade": per_grade}


def _curve(ranking: Ranking) -> dict[str, Any]:
    """The curve's corners: points on a straight line between their neighbours are left out."""
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


def _icc(pairs: Pairs, point: Mapping[str, float]) -> dict[str, Any]:
    bounds = measures.icc_intervals(pairs.totals.predicted, pairs.totals.reference)
    found: dict[str, Any] = {"studies": len(pairs.totals.study)}
    for name, label in ICC_NAMES.items():
        low, high = bounds[name]
        found[name] = {"name": label, "value": point[f"icc.{name}.value"], "low": low, "high": high}
    return found


def _intervals(figures: Figures, resamples: int, seed: int) -> dict[str, Any]:
    pairs = figures.pairs
    named = pairs.patients
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
    """What JSON can hold: NaN becomes None, tuples lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
