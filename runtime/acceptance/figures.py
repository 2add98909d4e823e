"""The figures of an acceptance record: how far an engine was from the reference."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated

from spinescore.runtime.fields import Within
from spinescore.runtime.manifest.tolerances import Tolerances

__all__ = ["MOST", "Figure", "Figures", "Processes", "StudyFigures", "flips_at_most"]

MOST = 1e9  # in place of a figure that is no finite number

Figure = Annotated[float, Within(0.0, MOST)]
_Count = Annotated[int, Within(0, int(MOST))]

_MAX_REFERENCE_DIFFERENCE = 1e-3  # of the range: additions in another order, golden heatmaps stored as half


@dataclass(frozen=True)
class Figures:
    """An engine against the reference on the golden inputs; `acceptance.comparison` has the units.

    `reference_difference` is how far the reference on this machine is from the outputs that the export stored.
    """

    reference_difference: Figure
    points: _Count
    heatmap_difference: Figure
    median_shift_px: Figure
    p99_shift_px: Figure
    median_shift_of_spacing: Figure
    p99_shift_of_spacing: Figure
    corners: _Count
    logit_difference: Figure
    grade_flips: _Count
    reference_total: _Count
    total: _Count
    radiograph_total: _Count  # the largest change of the total of one radiograph

    def faults(self, bounds: Tolerances) -> list[str]:
        """Return what is beyond the tolerances, in words."""
        found = bounds.faults({**asdict(self), "grade_flips": self.grade_flips / max(self.corners, 1)})
        if not self.reference_difference <= _MAX_REFERENCE_DIFFERENCE:
            found.append(f"FP32 itself is {self.reference_difference:.2g} of its range from the export's")
        return found


@dataclass(frozen=True)
class Processes:
    """The number of processes in which the gate ran an engine, and in how many it was beyond the tolerances."""

    run: _Count
    beyond: _Count


@dataclass(frozen=True)
class StudyFigures:
    """Whole studies on the engine and on the reference: corners that either graded, and grades that differ.

    The golden inputs of a grader are fixed crops; in a study, a point that moves takes its crop along.
    """

    studies: _Count
    corners: _Count
    grade_flips: _Count

    def faults(self, bounds: Tolerances) -> list[str]:
        """Return what is beyond the tolerances, in words."""
        share = self.grade_flips / max(self.corners, 1)
        if share <= bounds.grade_flips:
            return []
        return [f"grade flips in {self.studies} studies {share:.4g}, at most {bounds.grade_flips:g}"]


def flips_at_most(flips: int, corners: int) -> float:
    """Return the upper end of the 95 % interval (Wilson 1927) of the share of grades that flip."""
    n, share, z = max(corners, 1), flips / max(corners, 1), 1.96
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return min((share + z * z / (2 * n) + spread) / (1 + z * z / n), 1.0)
