"""Totals and changes of regions with missing corners, and grades rounded to whole numbers.

Each function takes arrays with 24 corners in the order of `ALL_SITES` on the last axis, NaN for a missing one. They are
the rules of `runtime.scoring.msasss` and `runtime.followup.change` for many studies at a time, for resampling; tests
compare both forms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.followup.change import SYNDESMOPHYTE
from spinescore.runtime.study import REGIONS

__all__ = ["Floats", "either", "new_syndesmophyte", "scaled_sum", "too_few", "whole_grades"]

Floats = NDArray[np.float64]

_CORNERS = 12  # of a region


def scaled_sum(corners: Floats, most_missing: int) -> Floats:
    """Return the sum of both regions, each 12 / n times the sum of its n corners with a value.

    For grades this is the total by the rule of missing corners (a missing one takes the mean of the region's scored
    ones); for differences between two visits it is the change of the comparable corners. NaN if a region lacks more
    than `most_missing` of its 12 corners, or all of them. Whole regions of grades in steps of 0.5 add up exactly.
    """
    regions = corners.reshape(*corners.shape[:-1], 2, _CORNERS)
    there = np.isfinite(regions).sum(-1)
    enough = (there > 0) & (there >= _CORNERS - most_missing)
    sums = _CORNERS * np.nansum(regions, -1) / np.where(enough, there, 1)
    return np.asarray(np.where(enough, np.round(sums, 9), np.nan).sum(-1).round(6), np.float64)


def too_few(corners: Floats, most_missing: int) -> list[str]:
    """Return the regions of one study that lack more corners than allowed, as words: `cervical 4 of 12`."""
    missing = zip(REGIONS, np.isnan(corners.reshape(2, _CORNERS)).sum(-1).tolist(), strict=True)
    return [f"{region} {n} of {_CORNERS}" for region, n in missing if n > most_missing or n == _CORNERS]


def whole_grades(grades: Floats) -> Floats:
    """Return grades as whole numbers: means of readers are rounded, half points up (1.5 becomes 2)."""
    return np.floor(grades + 0.5)


def new_syndesmophyte(before: Floats, after: Floats) -> Floats:
    """Return 1 if a corner goes from 0 or 1 to 2 or 3 (whole grades), 0 if not, NaN if it is not comparable.

    The definite change of Baraliakos et al. 2007, doi 10.1136/ard.2006.066415.
    """
    event = (whole_grades(before) < SYNDESMOPHYTE) & (whole_grades(after) >= SYNDESMOPHYTE)
    return np.where(np.isnan(before) | np.isnan(after), np.nan, event.astype(np.float64))


def either(corners: Floats) -> Floats:
    """Return for each unit 1 if one of its two corners has the event, 0 if neither has, NaN if that is unknown."""
    upper, lower = corners[..., ::2], corners[..., 1::2]
    event = (upper == 1) | (lower == 1)
    return np.where(event, 1.0, np.where(np.isnan(upper) | np.isnan(lower), np.nan, 0.0))
