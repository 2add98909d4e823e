"""All figures of one comparison as a flat table of names, and their bootstrap intervals.

A name is the figure's path in the document: `per_grade.2.sensitivity`, `icc.one_way.value`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.agreement import measures
from spinescore.benchmarks.agreement.measures import Floats, Ranking
from spinescore.benchmarks.agreement.pairs import Pairs

__all__ = ["Figures", "bootstrap"]

Weights = NDArray[np.intp]

_DEFINED = 0.9  # the share of resamples that must define a figure for its interval to be given


class Figures:
    """The figures of `pairs`, for any multiplicities of its clusters (patients)."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.known = np.flatnonzero(np.isfinite(pairs.probabilities).all(axis=1))  # corners with probabilities
        self.rankings = [
            Ranking(pairs.reference[self.known] == grade, pairs.probabilities[self.known, grade])
            for grade in range(4)
            if len(self.known)
        ]
        self.changed, self.predicted_change, self.reference_change = _changes(pairs)

    def __call__(self, weights: Weights | None = None) -> dict[str, float]:
        """Name -> value, NaN where undefined. `weights`: how often each cluster counts, once where None."""
        pairs = self.pairs
        weight = np.ones(pairs.clusters, np.intp) if weights is None else weights
        corner = weight[pairs.cluster[pairs.study]]
        confusion = measures.confusion_matrix(pairs.reference, pairs.predicted, corner)
        found = {"accuracy": measures.accuracy(confusion), "kappa_quadratic": measures.quadratic_kappa(confusion)}
        for name, values in measures.grade_figures(confusion).items():
            found |= {f"per_grade.{grade}.{name}": float(value) for grade, value in enumerate(values)}
            found[f"mean.{name}"] = float(values.mean())
        if self.rankings:
            areas = [ranking.auc(corner[self.known]) for ranking in self.rankings]
            found |= {f"roc.per_grade.{grade}.auc": area for grade, area in enumerate(areas)}
            found["roc.mean_auc"] = float(np.mean(areas))
        often = weight[pairs.cluster[pairs.totals.study]]
        predicted, reference = (np.repeat(x, often) for x in (pairs.totals.predicted, pairs.totals.reference))
        found |= {f"icc.{name}.value": value for name, value in measures.icc(predicted, reference).items()}
        found |= {f"bland_altman.{name}": x for name, x in measures.bland_altman(predicted, reference).items()}
        found["sdc.from_status.value"] = measures.sdc_of_status(predicted, reference)
        often = weight[self.changed]
        predicted, reference = (np.repeat(x, often) for x in (self.predicted_change, self.reference_change))
        found["sdc.from_change.value"] = measures.sdc_of_change(predicted, reference)
        return found


def _changes(pairs: Pairs) -> tuple[Weights, Floats, Floats]:
    """Patients with two or more dated studies with complete totals: cluster, change on both sides, first to last."""
    totals = pairs.totals
    dated: dict[int, list[tuple[str, int]]] = {}
    for i, study in enumerate(totals.study):
        if date := pairs.dates.get(pairs.studies[study]):
            dated.setdefault(int(pairs.cluster[study]), []).append((date, i))
    ends = {cluster: (min(found), max(found)) for cluster, found in dated.items()}
    spans = [(cluster, first[1], last[1]) for cluster, (first, last) in ends.items() if first[0] < last[0]]
    cluster, first, last = np.array(spans, np.intp).reshape(-1, 3).T
    predicted, reference = (side[last] - side[first] for side in (totals.predicted, totals.reference))
    return cluster, predicted, reference


def bootstrap(figures: Figures, resamples: int, seed: int) -> Mapping[str, tuple[float, float] | None]:
    """Percentile intervals of all figures, over resampled clusters.

    Whole patients are drawn with replacement, so that the corners of one stay together (Davison and Hinkley 1997,
    Bootstrap Methods and their Application, section 3.8). A figure that more than a
    tenth of the resamples leave undefined has no interval, nor has any where there is but one cluster.
    """
    clusters, names = figures.pairs.clusters, list(figures())
    if resamples == 0 or clusters < 2:
        return dict.fromkeys(names)
    rng = np.random.default_rng(seed)
    draws = np.empty((resamples, len(names)))
    for row in draws:
        drawn = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)
        row[:] = list(figures(drawn).values())
    return {name: _interval(column) for name, column in zip(names, draws.T, strict=True)}


def _interval(values: Floats) -> tuple[float, float] | None:
    defined = values[np.isfinite(values)]
    if len(defined) < _DEFINED * len(values):
        return None
    low, high = np.quantile(defined, [(1 - measures.LEVEL) / 2, (1 + measures.LEVEL) / 2])
    return float(low), float(high)
