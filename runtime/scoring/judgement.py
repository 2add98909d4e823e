"""Judge whether a region's points can be trusted, and grade its corners."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.manifest import Manifest
from spinescore.runtime.reading.orientation import to_upright
from spinescore.runtime.reading.quality import as_reject
from spinescore.runtime.scoring.geometry import implausible
from spinescore.runtime.scoring.grading import CornerGrade, grade_discs
from spinescore.runtime.scoring.selection import Chosen
from spinescore.runtime.study import LEVELS, Finding, Region, Reject

__all__ = ["MIN_KNOWN_DISCS", "RegionResult", "judge", "strictly"]

# If fewer discs are found, they may be one level off, and the region is not scored.
MIN_KNOWN_DISCS = 4

Grades = Sequence[tuple[CornerGrade, CornerGrade]]


@dataclass(frozen=True, eq=False)
class RegionResult:
    """One region's points (6, 2) in source pixels, confidences (6) and grades, or the reason of its reject.

    `known` (6) are the discs with trusted points, at least `MIN_KNOWN_DISCS` in a scored region. `given` has the
    numbers of the discs with points from a reader.
    """

    region: Region
    chosen: Chosen
    centre: NDArray[np.float64]
    anterior: NDArray[np.float64]
    confidence: NDArray[np.float64]
    known: NDArray[np.bool_]
    grades: Grades
    reject: Reject | None
    given: Collection[int] = ()
    findings: tuple[Finding, ...] = ()  # on its levels
    stands_as_seen: bool = False  # the localizer was asked about the orientation, and agrees

    @property
    def upright(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres and anterior points, turned about the origin so that the head is above."""
        turn_deg = self.chosen.turn_deg
        return to_upright(self.centre, turn_deg), to_upright(self.anterior, turn_deg)

    def rather(self, other: Region) -> RegionResult:
        """Return this result, rejected because the picture shows the other region."""
        name = self.chosen.radiograph.source or "The radiograph"
        message = f"{name} is said to show the {self.region} spine, but looks like the {other} one; correct its region."
        return replace(self, reject=Reject("wrong-region", message, self.chosen.radiograph.source, self.region))


def judge(
    region: Region,
    chosen: Chosen,
    points: NDArray[np.void],
    probabilities: NDArray[np.float64],
    manifest: Manifest,
    given: Collection[int] = (),
) -> RegionResult:
    """Judge one region from its points (6, 2) of dtype `POINT` and its corners' p0 .. p3 (6, 2, 4).

    A disc is not readable if its confidence is below `min_confidence`, or a point lies outside the picture. `given` are
    the numbers of the discs with points from a reader.
    """
    radiograph, least = chosen.radiograph, manifest.localizer.min_confidence
    xy = points["xy"].astype(np.float64)
    peaks = points["confidence"].min(axis=1)
    confidence = peaks.astype(np.float64).clip(0, 1)
    inside = ((xy >= -0.5) & (xy <= np.array([radiograph.columns, radiograph.rows]) - 0.5)).all(axis=(1, 2))
    known = inside & (confidence > 0) & (confidence >= least)
    code = "low-confidence"
    reason = None
    if known.sum() < MIN_KNOWN_DISCS:
        unsure = ", ".join(level for level, sure in zip(LEVELS[region], known, strict=True) if not sure)
        reason = (
            f"the {region} discs {unsure} were not found with confidence {least:.2f}, {MIN_KNOWN_DISCS} of 6 are "
            "needed; check that it is a lateral radiograph of that region, or give the points."
        )
    else:
        upright = to_upright(xy, chosen.turn_deg)
        fault = implausible(upright[:, 0], upright[:, 1], known, chosen.facing)
        if fault is not None:
            code = "implausible-geometry"
            reason = f"{fault}; check the picture and its orientation, or give the points."
    name = radiograph.source or "The radiograph"
    reject = None if reason is None else Reject(code, f"{name}: {reason}", radiograph.source, region)
    grades = grade_discs(probabilities, known, manifest.grader)
    return RegionResult(region, chosen, xy[:, 0], xy[:, 1], confidence, known, grades, reject, given)


def strictly(results: Mapping[Region, RegionResult], findings: Sequence[Finding]) -> dict[Region, RegionResult]:
    """Return the results, with every region rejected that has a finding; one without a region counts for both."""
    rejects = {
        region: as_reject(finding, region)
        for finding in reversed(findings)
        for region in ([finding.region] if finding.region else results)
    }
    return {region: replace(result, reject=result.reject or rejects.get(region)) for region, result in results.items()}
