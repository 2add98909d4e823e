"""All figures of a comparison by name, and their bootstrap intervals.

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
    """The figures of `pairs`, for any weights of its clusters (patients)."""

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
        """Return name -> value, NaN if undefined. `weights` says how often each cluster counts (None: once)."""
        pairs = self.pairs
        weight = np.ones(pairs.clusters, np.intp) if weights is None else weights
        corner = weight[pairs.cluster[pairs.study]]
        confusion = measures.confusion_matrix(pairs.reference, pairs.predicted, corner)
        figures = {"accuracy": measures.accuracy(confusion), "kappa_quadratic": measures.quadratic_kappa(confusion)}
        for name, values in measures.grade_figures(confusion).items():
            figures |= {f"per_grade.{grade}.{name}": float(value) for grade, value in enumerate(values)}
            figures[f"mean.{name}"] = float(values.mean())
        if self.rankings:
            areas = [ranking.auc(corner[self.known]) for ranking in self.rankings]
            figures |= {f"roc.per_grade.{grade}.auc": area for grade, area in enumerate(areas)}
            figures["roc.mean_auc"] = float(np.mean(areas))
        figures |= self._of_totals(weight[pairs.cluster[pairs.totals.study]])
        return figures | self._of_changes(weight)

    def _of_totals(self, often: Weights) -> dict[str, float]:
        totals = self.pairs.totals
        predicted, reference = (np.repeat(x, often) for x in (totals.predicted, totals.reference))
        figures = {f"icc.{name}.value": value for name, value in measures.icc(predicted, reference).items()}
        figures |= {f"bland_altman.{name}": x for name, x in measures.bland_altman(predicted, reference).items()}
        figures["sdc.from_status.value"] = measures.sdc_of_status(predicted, reference, self.rules.readers)
        return figures

    def _of_changes(self, weight: Weights) -> dict[str, float]:
        changes = self.changes
        often = weight[changes.cluster]
        predicted, reference = (np.repeat(x, often) for x in (changes.predicted, changes.reference))
        figures = {"sdc.from_change.value": measures.sdc_of_change(predicted, reference, self.rules.readers)}
        figures |= {f"change.icc.{name}.value": value for name, value in measures.icc(predicted, reference).items()}
        figures |= {f"change.bland_altman.{name}": x for name, x in measures.bland_altman(predicted, reference).items()}
        for name in self.events:
            table = self.event_table(name, weight)
            figures[f"change.{name}.kappa"] = measures.quadratic_kappa(table)
            figures[f"change.{name}.agreement"] = measures.accuracy(table)
        return figures

    def event_table(self, name: str, weight: Weights | None = None) -> Counts:
        """Return 2 x 2 counts of an event: rows are the reference's no and yes, columns the prediction's."""
        cluster, predicted, reference = self.events[name].T
        often = None if weight is None else weight[cluster]
        return np.bincount(2 * reference + predicted, often, 4).reshape(2, 2).astype(np.int64)

    def _progressions(self) -> Weights:
        units = self.rules.progression_units
        events = [(i.cluster, i.predicted >= units, i.reference >= units) for i in self.changes.two_years]
        return np.array(events, np.intp).reshape(-1, 3)


def bootstrap(figures: Figures, resamples: int, seed: int) -> Mapping[str, tuple[float, float] | None]:
    """Return percentile intervals of all figures, over resampled clusters.

    Whole patients are drawn with replacement, so that the corners of a patient stay together (Davison and Hinkley 1997,
    Bootstrap Methods and their Application, section 3.8). A figure has no interval if more than a tenth of the
    resamples leave it undefined, or if there is only one cluster.
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
