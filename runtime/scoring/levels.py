"""Detect a reader's points that are one level off, by the localizer's own points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.reading.quality import finding
from spinescore.runtime.scoring.scoredquality import UNSURE_FACTOR
from spinescore.runtime.scoring.shape import median_step
from spinescore.runtime.study import Finding

if TYPE_CHECKING:
    from spinescore.runtime.scoring.judgement import RegionResult

__all__ = ["LEAST_COUNTED", "miscounted"]

LEAST_COUNTED = 3  # discs that must agree: fewer could be one stray point
NEAR = 0.35  # of the step between discs; two points within this distance belong to one disc


def miscounted(result: RegionResult, seen: NDArray[np.void], min_confidence: float) -> Finding | None:
    """Return the finding `level-shift` if given discs lie where the localizer sees those one level away.

    `seen` (6, 2) of dtype `POINT` are the localizer's own points; only discs with a high confidence count.
    """
    given = np.array([disc in result.given for disc in range(len(seen))])
    sure = seen["confidence"].min(axis=1) >= UNSURE_FACTOR * min_confidence
    near = NEAR * median_step(result)

    def agreeing(shift: int) -> int:
        """Return how many given discs lie near the disc that the localizer counts `shift` levels lower."""
        discs = np.flatnonzero(given)
        discs = discs[(discs + shift >= 0) & (discs + shift < len(seen))]
        apart = np.linalg.norm(result.centre[discs] - seen["xy"][discs + shift, 0], axis=1)
        return int((sure[discs + shift] & (apart < near)).sum())

    counts = {shift: agreeing(shift) for shift in (0, 1, -1)}
    best = max(counts, key=lambda shift: counts[shift])
    if best == 0 or counts[best] < LEAST_COUNTED:
        return None
    direction = "lower" if best > 0 else "higher"
    text = f"{counts[best]} of the discs given lie where the localizer finds the disc one level {direction}"
    return finding("level-shift", result.chosen.radiograph.source, text, result.region)
