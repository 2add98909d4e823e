"""The expected score by the networks' probabilities: its distribution, mean, standard deviation and interval.

The model of one disc: its two corners share a bridge, so they are not independent. The probability of a bridge is the
mean of their p3 (`grading` compares the same number with the threshold), and then both grades are 3. Without a bridge
the two corners are independent, each with its own p0 .. p2, scaled to the sum 1. Discs are independent of each other,
so the distribution of a sum of discs is the exact convolution of theirs.

An abstained corner counts with its probabilities. An unreadable corner has none and never counts as 0: it counts with
the mean of its region's readable corners (`with_prior`). The total replaces it by the mean of the region's grades, so a
total and its interval rest on the same assumption. The interval says how unsure the network is of its grades. It is as
good as the probabilities are calibrated, and does not cover an error that all discs of a picture have in common.

A grade that a reader set is certain, whatever the disc's other corner is. The two corners of such a disc are
independent of each other, and the other one counts with its own p0 .. p3.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.fields import Within

__all__ = [
    "UNKNOWN",
    "Expected",
    "Score",
    "Span",
    "certain",
    "corner_distribution",
    "disc_distribution",
    "expected_score",
    "interval_of",
    "total_distribution",
    "with_prior",
]

Score = Annotated[float, Within(0, 72)]  # units of the mSASSS
Span = tuple[Annotated[int, Within(0, 72)], Annotated[int, Within(0, 72)]]  # the least and the greatest total

UNKNOWN = (0.25, 0.25, 0.25, 0.25)  # p0 .. p3 of a corner about which nothing is known

_BRIDGE = 3
_OUTSIDE = 0.025  # on either side of the interval


@dataclass(frozen=True)
class Expected:
    """An expected score in mSASSS units. `interval` holds at least 95 % of the probability, at most 2.5 % per side."""

    mean: Score
    sd: Score
    interval: Span


def certain(grade: int) -> NDArray[np.float64]:
    """Return p0 .. p3 (4) of a grade that a reader set."""
    probabilities: NDArray[np.float64] = np.eye(len(UNKNOWN))[grade]
    return probabilities


def with_prior(probabilities: NDArray[np.float64], readable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return p0 .. p3 (.., 4); corners not `readable` (..) get the mean of the others, or `UNKNOWN` without any."""
    prior = probabilities[readable].mean(axis=0) if readable.any() else np.array(UNKNOWN)
    return np.where(readable[..., None], probabilities, prior)


def corner_distribution(corners: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return the probability of each grade of one corner of a disc, (4,), from p0 .. p3 of both, (2, 4)."""
    bridge = corners[:, _BRIDGE].mean()
    return np.append(_without_bridge(corners)[side] * (1 - bridge), bridge)


def disc_distribution(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability of each total of discs, (..., 7), from p0 .. p3 of their corners, (..., 2, 4).

    The p0 .. p2 of a corner with a p3 of 1 are all 0. Without a bridge its grades 0, 1 and 2 are equally likely.
    """
    bridge = corners[..., _BRIDGE].mean(axis=-1)
    others = _without_bridge(corners)
    upper, lower = others[..., 0, :], others[..., 1, :]
    total = np.zeros((*bridge.shape, 2 * _BRIDGE + 1))
    for grade in range(_BRIDGE):
        total[..., grade : grade + _BRIDGE] += upper[..., grade, None] * lower
    total *= (1 - bridge)[..., None]
    total[..., 2 * _BRIDGE] = bridge
    return total


def _without_bridge(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p0 .. p2 of corners, (..., 3), for a disc without a bridge, with the sum 1."""
    others = corners[..., :_BRIDGE]
    whole = others.sum(axis=-1, keepdims=True)
    alone: NDArray[np.float64] = np.where(whole > 0, others / np.where(whole > 0, whole, 1.0), 1 / _BRIDGE)
    return alone


def total_distribution(
    discs: Sequence[NDArray[np.float64]] | NDArray[np.float64], apart: Collection[int] = ()
) -> NDArray[np.float64]:
    """Return each total's probability (6 n + 1,) from corners (n, 2, 4); discs `apart` do not share a bridge."""
    corners = np.reshape(discs, (-1, 2, 4))
    each = disc_distribution(corners)
    for number in apart:
        each[number] = np.convolve(*corners[number])
    return reduce(np.convolve, each, np.ones(1))


def expected_score(distribution: NDArray[np.float64]) -> Expected:
    """Return mean, standard deviation and 95 % interval of a total with this `distribution`."""
    values = np.arange(len(distribution))
    mean = float(distribution @ values)
    variance = float(distribution @ (values - mean) ** 2)
    low, high = interval_of(distribution)
    return Expected(mean, variance**0.5, (low, high))


def interval_of(distribution: NDArray[np.float64]) -> tuple[int, int]:
    """Return the indices of the first and the last value in the 95 % interval; the values are in ascending order."""
    below = np.cumsum(distribution)
    low, high = (int(np.searchsorted(below, share)) for share in (_OUTSIDE, 1 - _OUTSIDE))
    return low, min(high, len(distribution) - 1)
