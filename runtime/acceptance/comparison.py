"""Compare two runs of the same networks: heatmaps, points, logits, grades, totals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import DISCS, peaks
from spinescore.runtime.manifest import Grader, Localizer
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.scoring.grading import grade_discs, probabilities

__all__ = [
    "GradeAgreement",
    "PointAgreement",
    "compare_grades",
    "compare_points",
    "corner_grades",
    "difference_of_range",
    "point_shifts",
]

Logits = Mapping[str, NDArray[np.float32]]  # by network of the grader

_LEAST_SPACING_PX = 1.0  # of the heatmap; random networks put all points in one place


@dataclass(frozen=True)
class PointAgreement:
    """Two runs of a localizer: the largest difference of a heatmap, in shares of its range, and how points moved.

    Shifts `_px` are in pixels of the heatmap. Shifts `_of_spacing` are in shares of the mean distance between
    neighbouring discs of the same radiograph, so that they do not depend on the size of radiograph or heatmap.
    """

    points: int
    heatmap_difference: float
    median_shift_px: float
    p99_shift_px: float
    max_shift_px: float
    median_shift_of_spacing: float
    p99_shift_of_spacing: float

    def faults(self, bounds: Tolerances) -> list[str]:
        """Return what is beyond the tolerances, in words."""
        return bounds.faults(asdict(self))

    def moves_little(self, bounds: Tolerances) -> bool:
        """Whether the median point stays in place; single points may move."""
        return self.median_shift_px <= bounds.median_shift_px


@dataclass(frozen=True)
class GradeAgreement:
    """Two runs of a grader: the largest difference of a logit, in shares of its range, and how many grades changed.

    Totals are sums of the grades that were given. `largest_total_change` is that of one radiograph (36 at most).
    """

    corners: int
    logit_difference: float
    flips: int
    reference_total: int
    total: int
    largest_total_change: int

    @property
    def flip_share(self) -> float:
        return self.flips / self.corners

    def faults(self, bounds: Tolerances) -> list[str]:
        """Return what is beyond the tolerances, in words."""
        measured = {"logit_difference": self.logit_difference, "grade_flips": self.flip_share}
        return bounds.faults({**measured, "radiograph_total": self.largest_total_change})

    def keeps_grades(self, bounds: Tolerances) -> bool:
        """Whether few enough grades change; logits and totals do not matter here."""
        return self.flip_share <= bounds.grade_flips


def difference_of_range(reference: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return max |other - reference| / (max - min of the reference); infinity if either is not finite."""
    if not (np.isfinite(reference).all() and np.isfinite(other).all()):
        return float("inf")
    difference = np.abs(other.astype(np.float64) - reference).max()
    return float(difference / max(float(np.ptp(reference)), np.finfo(np.float32).tiny))


def compare_points(
    reference: NDArray[np.float32], other: NDArray[np.float32], localizer: Localizer, regions: NDArray[np.integer]
) -> PointAgreement:
    """Compare the heatmaps (N, joints, h, w) of two runs; `regions` (N) are 0 for cervical and 1 for lumbar.

    Points are compared in the channels of the radiograph's own region: the other channels have no peak to find.
    """
    places = [_places(heatmaps, localizer, regions) for heatmaps in (reference, other)]
    shifts = np.linalg.norm(places[1] - places[0], axis=-1)
    centres = places[0][:, ::2]
    spacing = np.linalg.norm(np.diff(centres, axis=1), axis=-1).mean(axis=1, keepdims=True)
    absolute = np.percentile(shifts, (50, 99, 100)).tolist()
    relative = np.percentile(shifts / np.maximum(spacing, _LEAST_SPACING_PX), (50, 99)).tolist()
    return PointAgreement(int(shifts.size), difference_of_range(reference, other), *absolute, *relative)


def point_shifts(
    reference: NDArray[np.float32], other: NDArray[np.float32], localizer: Localizer, regions: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return how far each point moves, (N, 12) in heatmap pixels; the arguments are those of `compare_points`."""
    before, after = (_places(heatmaps, localizer, regions) for heatmaps in (reference, other))
    return np.asarray(np.linalg.norm(after - before, axis=-1), np.float64)


def _places(heatmaps: NDArray[np.float32], localizer: Localizer, regions: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the points (N, 12, xy) in heatmap pixels, from the channels of each radiograph's own region."""
    channels = np.array(localizer.channels()).reshape(2, -1)[regions]
    rows = np.arange(len(regions))[:, None]
    return np.asarray(peaks(heatmaps[rows, channels], localizer.decode)[0])


def compare_grades(reference: Logits, other: Logits, grader: Grader) -> GradeAgreement:
    """Compare the logits of all the grader's networks in two runs on the same discs, 6 for each radiograph in turn."""
    before, after = (corner_grades(logits, grader) for logits in (reference, other))
    largest = max(difference_of_range(reference[role], other[role]) for role in reference)
    totals = [_totals(grades) for grades in (before, after)]
    largest_change = int(np.abs(totals[1] - totals[0]).max())
    flips = int((before != after).sum())
    return GradeAgreement(before.size, largest, flips, int(totals[0].sum()), int(totals[1].sum()), largest_change)


def corner_grades(logits: Logits, grader: Grader) -> NDArray[np.int64]:
    """Return the grades (discs, 2); -1 for a corner that is abstained or unreadable."""
    corners = probabilities(logits, grader.head)
    graded = grade_discs(corners, np.ones(len(corners), bool), grader)
    return np.array([[-1 if c.grade is None else c.grade for c in disc] for disc in graded], np.int64)


def _totals(grades: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the total of each radiograph, or of all discs together if they are not whole radiographs."""
    given = np.maximum(grades, 0)
    rows = len(given) // DISCS if len(given) % DISCS == 0 else 1
    return np.asarray(given.reshape(rows, -1).sum(axis=1))
