"""All figures of one comparison as a flat table of names, and their bootstrap intervals.

A name is the figure's path in the document: `per_grade.2.sensitivity`, `icc.one_way.value`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.agreement import measures
from spinescore.benchmarks.agreement.changes import Rules, find_changes
from spinescore.benchmarks.agreement.measures import Counts, Floats, Ranking
from spinescore.benchmarks.agreement.pairs import Pairs

__all__ = ["Figures", "bootstrap"]

Weights = NDArray[np.intp]

_DEFINED = 0.9  # the share of resamples that must define a figure for its interval to be given


class Figures:
    """The figures of `pairs`, for any multiplicities of its clusters (patients)."""

    def __init__(self, pairs: Pairs, rules: Rules | None = None) -> None:
        self.pairs, self.rules = pairs, rules or Rules()
        self.known = np.flatnonzero(np.isfinite(pairs.probabilities).all(axis=1))  # corners with probabilities
        self.rankings = [
            Ranking(pairs.reference[self.known] == grade, pairs.probabilities[self.known, grade])
            for grade in range(4)
            if len(self.known)
        ]
        self.changes = find_changes(pairs, self.rules)
        self.events = {
            "progression": self._progressions(),
            "new_syndesmophytes.corner": self.changes.corner_events,
            "new_syndesmophytes.unit": self.changes.unit_events,
        }

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
        found |= self._of_totals(weight[pairs.cluster[pairs.totals.study]])
        return found | self._of_changes(weight)

    def _of_totals(self, often: Weights) -> dict[str, float]:
        totals = self.pairs.totals
        predicted, reference = (np.repeat(x, often) for x in (totals.predicted, totals.reference))
        found = {f"icc.{name}.value": value for name, value in measures.icc(predicted, reference).items()}
        found |= {f"bland_altman.{name}": x for name, x in measures.bland_altman(predicted, reference).items()}
        found["sdc.from_status.value"] = measures.sdc_of_status(predicted, reference, self.rules.readers)
        return found

    def _of_changes(self, weight: Weights) -> dict[str, float]:
        changes = self.changes
        often = weight[changes.cluster]
        predicted, reference = (np.repeat(x, often) for x in (changes.predicted, changes.reference))
        found = {"sdc.from_change.value": measures.sdc_of_change(predicted, reference, self.rules.readers)}
        found |= {f"change.icc.{name}.value": value for name, value in measures.icc(predicted, reference).items()}
        found |= {f"change.bland_altman.{name}": x for name, x in measures.bland_altman(predicted, reference).items()}
        for name in self.events:
            table = self.event_table(name, weight)
            found[f"change.{name}.kappa"] = measures.quadratic_kappa(table)
            found[f"change.{name}.agreement"] = measures.accuracy(table)
        return found

    def event_table(self, name: str, weight: Weights | None = None) -> Counts:
        """2 x 2 counts of an event: rows are the reference's no and yes, columns the predicted no and yes."""
        cluster, predicted, reference = self.events[name].T
        often = None if weight is None else weight[cluster]
        return np.bincount(2 * reference + predicted, often, 4).reshape(2, 2).astype(np.int64)

    def _progressions(self) -> Weights:
        units = self.rules.progression_units
        found = [(i.cluster, i.predicted >= units, i.reference >= units) for i in self.changes.two_years]
        return np.array(found, np.intp).reshape(-1, 3)


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
