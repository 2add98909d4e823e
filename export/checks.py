"""How far two runs of the same networks agree, as an export checks half precision. See `runtime.comparison`."""

from __future__ import annotations

from spinescore.runtime.comparison import (
    GradeAgreement,
    PointAgreement,
    compare_grades,
    compare_points,
    difference_of_range,
)
from spinescore.runtime.tolerances import Tolerances

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
MAX_MEDIAN_SHIFT_PX = Tolerances.median_shift_px
MAX_FLIPS = Tolerances.grade_flips
