"""How far two runs of the same networks agree: heatmaps, points, logits, grades."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import peaks
from spinescore.runtime.grading import grade_discs, probabilities
from spinescore.runtime.manifest import Grader, Localizer

__all__ = [
    "MAX_FLIPS",
    "MAX_MEDIAN_SHIFT_PX",
    "GradeAgreement",
    "PointAgreement",
    "compare_grades",
    "compare_points",
    "difference_of_range",
]

# Bounds for half precision on a golden set (point shifts in heatmap pixels); beyond them an export warns.
MAX_MEDIAN_SHIFT_PX = 0.1
MAX_FLIPS = 0.005

Logits = Mapping[str, NDArray[np.float32]]  # by network of the grader


@dataclass(frozen=True)
class PointAgreement:
    """A localizer's two runs: largest difference of a heatmap, in shares of its range, and how points moved."""

    points: int
    heatmap_difference: float
    median_shift_px: float  # heatmap pixels
    p99_shift_px: float
    max_shift_px: float

    @property
    def within_bounds(self) -> bool:
        return self.median_shift_px <= MAX_MEDIAN_SHIFT_PX


@dataclass(frozen=True)
class GradeAgreement:
    """A grader's two runs: largest difference of a logit, in shares of its range, and how many grades changed."""

    corners: int
    logit_difference: float
    flips: int

    @property
    def flip_share(self) -> float:
        return self.flips / self.corners

    @property
    def within_bounds(self) -> bool:
        return self.flip_share <= MAX_FLIPS


def difference_of_range(reference: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """max |other - reference| / (max - min of the reference); infinite where either is not finite."""
    if not (np.isfinite(reference).all() and np.isfinite(other).all()):
        return float("inf")
    difference = np.abs(other.astype(np.float64) - reference).max()
    return float(difference / max(float(np.ptp(reference)), np.finfo(np.float32).tiny))


def compare_points(
    reference: NDArray[np.float32], other: NDArray[np.float32], localizer: Localizer, regions: NDArray[np.integer]
) -> PointAgreement:
    """Two runs' heatmaps (N, joints, h, w) of radiographs whose region (0 cervical, 1 lumbar) is `regions` (N).

    Points are compared in the channels of the radiograph's own region: the others have no peak to find.
    """
    channels = np.array(localizer.channels()).reshape(2, -1)[regions]
    rows = np.arange(len(regions))[:, None]
    places = [peaks(heatmaps[rows, channels], localizer.decode)[0] for heatmaps in (reference, other)]
    shifts = np.linalg.norm(places[1] - places[0], axis=-1)
    median, high = np.percentile(shifts, (50, 99))
    return PointAgreement(
        int(shifts.size), difference_of_range(reference, other), float(median), float(high), float(shifts.max())
    )


def compare_grades(reference: Logits, other: Logits, grader: Grader) -> GradeAgreement:
    """Two runs' logits of all the grader's networks on the same discs."""
    before, after = (_grades(logits, grader) for logits in (reference, other))
    largest = max(difference_of_range(reference[role], other[role]) for role in reference)
    return GradeAgreement(before.size, largest, int((before != after).sum()))


def _grades(logits: Logits, grader: Grader) -> NDArray[np.int64]:
    """Grades (discs, 2); -1 where the corner is abstained or unreadable."""
    corners = probabilities(logits, grader.head)
    graded = grade_discs(corners, np.ones(len(corners), bool), grader)
    return np.array([[-1 if c.grade is None else c.grade for c in disc] for disc in graded], np.int64)
