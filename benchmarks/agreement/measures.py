"""The formulas: one-against-rest figures, kappa, ROC, ICC, Bland-Altman, smallest detectable change.

All take counts or arrays and return plain numbers; an undefined number (0 / 0) is NaN, without a warning. Corners and
studies may have whole numbers as weights, as if they were repeated that often; a bootstrap draws them in this way.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "GRADE_FIGURES",
    "LEVEL",
    "Ranking",
    "accuracy",
    "bland_altman",
    "confusion_matrix",
    "grade_figures",
    "icc",
    "icc_intervals",
    "quadratic_kappa",
    "sdc_of_change",
    "sdc_of_status",
]

Floats = NDArray[np.float64]
Counts = NDArray[np.integer]

GRADE_FIGURES = ("sensitivity", "specificity", "ppv", "f1", "accuracy")
LEVEL = 0.95  # of every interval
_Z = 1.96  # the value of Bland and Altman, and of Bruynesteyn et al.
_SAME = 1e-9  # units: values that differ less are equal, so that no figure is a ratio of rounding errors


def confusion_matrix(reference: Counts, predicted: Counts, weights: Counts | None = None) -> NDArray[np.int64]:
    """Return 4 x 4 counts: rows are the reference's grades, columns the predicted ones."""
    return np.bincount(4 * reference + predicted, weights, 16).reshape(4, 4).astype(np.int64)


def grade_figures(confusion: Counts) -> dict[str, Floats]:
    """Return `GRADE_FIGURES` of each grade against the rest (Koo et al. 2022, Table 2): name -> one value per grade."""
    true_positive = np.diag(confusion)
    false_negative = confusion.sum(1) - true_positive
    false_positive = confusion.sum(0) - true_positive
    true_negative = confusion.sum() - true_positive - false_negative - false_positive
    return {
        "sensitivity": _ratio(true_positive, true_positive + false_negative),
        "specificity": _ratio(true_negative, true_negative + false_positive),
        "ppv": _ratio(true_positive, true_positive + false_positive),
        "f1": _ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative),
        "accuracy": _ratio(true_positive + true_negative, confusion.sum()),
    }


def accuracy(confusion: Counts) -> float:
    """Return the share of corners with the same grade on both sides."""
    return float(_ratio(np.trace(confusion), confusion.sum()))


def quadratic_kappa(confusion: Counts) -> float:
    """Return Cohen's kappa with quadratic weights of a square confusion matrix (Cohen 1968, doi 10.1037/h0026256)."""
    k = len(confusion)
    weights = np.subtract.outer(np.arange(k), np.arange(k)) ** 2 / (k - 1) ** 2
    expected = _ratio(np.outer(confusion.sum(1), confusion.sum(0)), confusion.sum())
    return float(1 - _ratio((weights * confusion).sum(), (weights * expected).sum()))


class Ranking:
    """Corners from the highest score to the lowest, sorted once; ROC curves under any weights follow from it."""

    def __init__(self, positive: NDArray[np.bool_], score: Floats) -> None:
        self._order = np.argsort(-score, kind="stable")
        ranked = score[self._order]
        self._positive = positive[self._order]
        self._ends = np.flatnonzero(np.diff(ranked, append=-np.inf))  # the last of each run of equal scores
        self.thresholds: Floats = ranked[self._ends]

    def curve(self, weights: Counts | None = None) -> tuple[Floats, Floats]:
        """Return false and true positive rates: (0, 0), then one point per threshold (score >= threshold)."""
        weight = np.ones(len(self._order), np.int64) if weights is None else weights[self._order]
        counts = [np.cumsum(np.where(self._positive == side, weight, 0))[self._ends] for side in (False, True)]
        false, true = (np.concatenate([[0.0], _ratio(count, count[-1])]) for count in counts)
        return false, true

    def auc(self, weights: Counts | None = None) -> float:
        """Return the area under the curve (trapezoids, so that ties count half); NaN if one side has no corner."""
        false, true = self.curve(weights)
        return float(np.trapezoid(true, false))


def icc(predicted: Floats, reference: Floats) -> dict[str, float]:
    """Return intraclass correlations of single readings: ICC(1), ICC(A,1), ICC(C,1) of McGraw and Wong 1996.

    (doi 10.1037/1082-989X.1.1.30; ICC(1,1), ICC(2,1) and ICC(3,1) of Shrout and Fleiss 1979.) One way: differences
    between the two sides are error. Absolute: a shift between them counts. Consistency: it does not.
    """
    between, sides, residual, within = _mean_squares(predicted, reference)
    shift = 2 * _ratio(sides - residual, len(predicted))
    return {
        "one_way": float(_ratio(between - within, between + within)),
        "two_way_absolute": float(_ratio(between - residual, between + residual + shift)),
        "two_way_consistency": float(_ratio(between - residual, between + residual)),
    }


def icc_intervals(predicted: Floats, reference: Floats) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of `icc` by the F distribution (McGraw and Wong 1996, Table 7); NaN if undefined."""
    from scipy.stats import f

    n, values = len(predicted), icc(predicted, reference)
    between, sides, residual, within = _mean_squares(predicted, reference)
    bounds = dict.fromkeys(values, (math.nan, math.nan))
    if within > 0 and n > 1:
        bounds["one_way"] = _f_interval(between / within, n - 1, n)
    if residual > 0:
        bounds["two_way_consistency"] = _f_interval(between / residual, n - 1, n - 1)
    value = values["two_way_absolute"]
    if residual > 0 and value < 1:
        a = 2 * value / (n * (1 - value))
        b = 1 + 2 * value * (n - 1) / (n * (1 - value))
        v = (a * sides + b * residual) ** 2 / ((a * sides) ** 2 + (b * residual) ** 2 / (n - 1))
        rest = 2 * sides + (n - 2) * residual
        low, high = f.ppf((1 + LEVEL) / 2, n - 1, v), f.ppf((1 + LEVEL) / 2, v, n - 1)
        bounds["two_way_absolute"] = (
            float(n * (between - low * residual) / (low * rest + n * between)),
            float(n * (high * between - residual) / (rest + n * high * between)),
        )
    return bounds


def _f_interval(ratio: float, between: int, error: int) -> tuple[float, float]:
    from scipy.stats import f

    low = ratio / f.ppf((1 + LEVEL) / 2, between, error)
    high = ratio * f.ppf((1 + LEVEL) / 2, error, between)
    return float((low - 1) / (low + 1)), float((high - 1) / (high + 1))


def _mean_squares(predicted: Floats, reference: Floats) -> tuple[float, float, float, float]:
    """Return mean squares between studies, between sides, residual and within studies, of two readings a study."""
    n = len(predicted)
    if n < 2:
        return (math.nan,) * 4
    difference = predicted - reference
    between, residual = 2 * _sd((predicted + reference) / 2) ** 2, _sd(difference) ** 2 / 2
    return between, float(n * difference.mean() ** 2 / 2), residual, float((difference**2).sum() / (2 * n))


def bland_altman(predicted: Floats, reference: Floats) -> dict[str, float]:
    """Return bias (mean of predicted - reference), SD of the differences, 95 % limits of agreement: bias -+ 1.96 SD.

    Bland and Altman 1986, doi 10.1016/S0140-6736(86)90837-8.
    """
    difference = predicted - reference
    bias = float(difference.mean()) if len(difference) else math.nan
    sd = _sd(difference)
    return {"bias": bias, "sd": sd, "lower": bias - _Z * sd, "upper": bias + _Z * sd}


def sdc_of_change(predicted: Floats, reference: Floats, readings: int = 1) -> float:
    """Return the smallest detectable change, from two sides' changes of the same patients.

    1.96 SD / (sqrt(2) sqrt(k)): SD of the differences between the two sides' changes, mean of k readings (Bruynesteyn
    et al. 2005, doi 10.1136/ard.2003.018457). SD / sqrt(2) is the error of one side's change, if both have equal
    errors.
    """
    return _Z * _sd(predicted - reference) / float(np.sqrt(2 * readings))


def sdc_of_status(predicted: Floats, reference: Floats, readings: int = 1) -> float:
    """Return the smallest detectable difference of two studies read apart, from two sides' totals.

    1.96 SD / sqrt(k): the error of one total is SD / sqrt(2), that of a change between two is sqrt(2) times as large.
    If a patient's studies are read together, it is larger than `sdc_of_change` (Bruynesteyn et al. 2005).
    """
    return _Z * _sd(predicted - reference) / float(np.sqrt(readings))


def _sd(values: Floats) -> float:
    if len(values) < 2:
        return math.nan
    return float(values.std(ddof=1)) if np.ptp(values) > _SAME else 0.0


def _ratio(above: Any, below: Any) -> Floats:
    """Return above / below; NaN if below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(below == 0, np.nan, above / below), np.float64)
