"""The change of the comparable corners that the networks' own probabilities expect, with a 95 % interval.

The model takes both studies as independent given their radiographs, and discs as independent of each other. The two
corners of a disc share a bridge (`spinescore.runtime.scoring.expected`); a reader's grade is certain. So the
distribution of the change is the convolution of the distributions of both studies. Like the change itself, it is scaled
from a region's comparable corners to 12.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.followup.comparison import ExpectedChange
from spinescore.runtime.scoring.expected import certain, corner_distribution, disc_distribution, interval_of
from spinescore.runtime.scoring.report import CornerReport, DiscReport, RegionReport

__all__ = ["ChangeDistribution", "expected_change", "region_distribution"]

_SUM_TOLERANCE = 0.05  # of probabilities that were rounded

Floats = NDArray[np.float64]
ChangeDistribution = tuple[Floats, Floats]  # values in ascending order, and the probability of each


def region_distribution(baseline: RegionReport, followup: RegionReport, corners: int) -> ChangeDistribution | None:
    """Return the distribution of a region's change; None if a comparable corner lacks probabilities.

    `corners` is the number of corners to which the comparable ones are scaled.
    """
    parts, comparable = [], 0
    for before, after in zip(baseline.discs, followup.discs, strict=False):  # a region that was not scored has none
        sides = [number for number in (0, 1) if _graded(before, number) and _graded(after, number)]
        if not sides:
            continue
        p, q = _probabilities(before, sides), _probabilities(after, sides)
        if p is None or q is None:
            return None
        one = None if len(sides) == 2 else sides[0]
        parts.append(np.convolve(_distribution(after, q, one), _distribution(before, p, one)[::-1]))
        comparable += len(sides)
    if not comparable:
        return None
    distribution = reduce(np.convolve, parts)
    values = np.arange(len(distribution)) - len(distribution) // 2
    return values * corners / comparable, distribution


def expected_change(regions: list[ChangeDistribution | None]) -> ExpectedChange | None:
    """Return the expected sum of the regions' changes, or None if a region has no distribution."""
    values, probabilities = np.zeros(1), np.ones(1)
    for region in regions:
        if region is None:
            return None
        values = np.add.outer(values, region[0]).ravel()
        probabilities = np.multiply.outer(probabilities, region[1]).ravel()
    order = np.argsort(values, kind="stable")
    values, probabilities = values[order], probabilities[order]
    low, high = interval_of(probabilities)
    mean = float(values @ probabilities)
    sd = float(probabilities @ (values - mean) ** 2) ** 0.5
    return ExpectedChange(round(mean, 3), round(sd, 3), (round(float(values[low]), 3), round(float(values[high]), 3)))


def _graded(disc: DiscReport, number: int) -> bool:
    return disc.corners[number].grade is not None


def _distribution(disc: DiscReport, p: Floats, side: int | None) -> Floats:
    """Return the distribution of one corner's grade, or of both corners' total if `side` is None."""
    if any(map(_is_certain, disc.corners)):  # then the corners do not share a bridge
        return np.convolve(p[0], p[1]) if side is None else p[side]
    return disc_distribution(p) if side is None else corner_distribution(p, side)


def _is_certain(corner: CornerReport) -> bool:
    return corner.grade_from == "reader" and corner.grade is not None


def _probabilities(disc: DiscReport, sides: list[int]) -> Floats | None:
    """Return p0 .. p3 of both corners, (2, 4), each with the sum 1; None if a corner of `sides` has none.

    Those of a reader's grade are certain.
    A corner that is not in `sides` and has none takes those of the other one, which leaves the bridge's probability as
    it is.
    """
    probabilities = [
        tuple(certain(corner.grade)) if corner.grade is not None and _is_certain(corner) else corner.probabilities
        for corner in disc.corners
    ]
    if any(probabilities[side] is None for side in sides):
        return None
    p = np.array([own or probabilities[1 - number] for number, own in enumerate(probabilities)], np.float64)
    whole = p.sum(axis=1, keepdims=True)
    return p / whole if (abs(whole - 1) <= _SUM_TOLERANCE).all() else None
