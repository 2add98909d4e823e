"""Which radiograph shows which region, and to which side the patient looks: by the header, else by evidence.

Evidence is the mean peak of a region's heatmaps, for the radiograph as it is and mirrored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.geometry import facing_of
from spinescore.runtime.intake import GivenPoints, vet
from spinescore.runtime.manifest import Localizer
from spinescore.runtime.quality import as_reject, of_picture
from spinescore.runtime.study import REGIONS, Facing, Finding, Radiograph, Region, Reject, Study

__all__ = ["FACINGS", "REGION_MARGIN", "Chosen", "Evidence", "Selection", "other_region", "select"]

FACINGS: tuple[Facing, Facing] = ("left", "right")

# By how much one region's mean peak must exceed the other's before the picture is taken to show it.
REGION_MARGIN = 0.1

# Of a radiograph, (facing, region) -> mean peak in [0, 1]; told whether the radiograph cannot be scored without.
Evidence = Callable[[Radiograph, bool], NDArray[np.float64]]


@dataclass(frozen=True)
class Chosen:
    """The radiograph that shows a region, and the side to which the patient looks in it."""

    radiograph: Radiograph
    facing: Facing


@dataclass
class Selection:
    """The radiographs to score, why others are not, and what the user should know of the choice."""

    chosen: dict[Region, Chosen] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)  # warnings of the radiographs that were chosen


def select(
    study: Study, localizer: Localizer, given: GivenPoints, evidence: Evidence, strict: bool = False
) -> Selection:
    """Choose a radiograph per region. `evidence` is asked only where the header does not tell.

    `InputRejected` that it raises rejects a radiograph whose region or facing nothing else tells.
    Where it is `strict`, a radiograph with a finding is rejected with the finding's code.
    """
    selection = Selection(rejects=list(study.rejects), warnings=list(study.warnings))
    known: dict[int, NDArray[np.float64]] = {}

    def asked(radiograph: Radiograph, needed: bool) -> NDArray[np.float64]:
        if id(radiograph) not in known:
            known[id(radiograph)] = evidence(radiograph, needed)
        return known[id(radiograph)]

    candidates: dict[Region, list[Radiograph]] = {region: [] for region in REGIONS}
    seen: dict[int, tuple[Finding, ...]] = {}
    for radiograph in study.radiographs:
        found: Reject | Region | None = vet(radiograph)
        if found is None:
            seen[id(radiograph)] = (*radiograph.findings, *of_picture(radiograph))
            found = _refused(radiograph, seen[id(radiograph)], "reject")
        found = found or radiograph.region or _region(radiograph, localizer, asked)
        if strict and not isinstance(found, Reject):
            found = _refused(replace(radiograph, region=found), seen[id(radiograph)], "warning") or found
        if isinstance(found, Reject):
            selection.rejects.append(found)
        else:
            candidates[found].append(radiograph)
    for index, region in enumerate(REGIONS):
        if candidates[region]:
            best = _best(candidates[region], index, asked, selection.warnings)
            if given.get(region) and len(candidates[region]) > 1:
                selection.warnings.append(f"The {region} points given were taken for points of {_name(best)}.")
            try:
                facing = _facing(best, region, given, asked, selection.warnings)
            except InputRejected as error:
                selection.rejects.append(Reject(error.code, str(error), best.source, region))
                continue
            selection.chosen[region] = Chosen(best, facing)
            selection.warnings.extend(w for w in best.warnings if w not in selection.warnings)
            selection.findings.extend(replace(found, region=region) for found in seen[id(best)])
    selection.warnings.extend(_unused(selection, given))
    return selection


def _unused(selection: Selection, given: GivenPoints) -> list[str]:
    """A sentence for each region whose given points are of no radiograph."""
    regions = (region for region in REGIONS if given.get(region) and region not in selection.chosen)
    return [
        f"The {region} points given were not used, because no {region} radiograph could be scored; check that they are "
        "of this study."
        for region in regions
    ]


def _refused(radiograph: Radiograph, findings: tuple[Finding, ...], severity: str) -> Reject | None:
    """The reject of the first finding that is as severe."""
    return next((as_reject(found, radiograph.region) for found in findings if found.severity == severity), None)


def other_region(region: Region, evidence: NDArray[np.float64], localizer: Localizer) -> Region | None:
    """The other region where the evidence (facing, region) clearly speaks for it, else None."""
    if not localizer.tells_regions:
        return None
    own, other = REGIONS.index(region), 1 - REGIONS.index(region)
    means = evidence.max(axis=0)
    clear = means[other] >= localizer.min_confidence and means[other] >= means[own] + REGION_MARGIN
    return REGIONS[other] if clear else None


def _region(radiograph: Radiograph, localizer: Localizer, asked: Evidence) -> Region | Reject:
    name = radiograph.source or "The radiograph"
    if not localizer.tells_regions:
        return Reject(
            "wrong-region",
            f"{name} does not state its region, and this bundle's localizer answers for both with the same heatmaps, "
            "so the picture cannot tell; name the region (on the command line with --region).",
            radiograph.source,
        )
    try:
        cervical, lumbar = (float(mean) for mean in asked(radiograph, True).max(axis=0))
    except InputRejected as error:
        return Reject(error.code, str(error), radiograph.source)
    if max(cervical, lumbar) < localizer.min_confidence:
        return Reject(
            "wrong-region",
            f"{name} shows neither the cervical nor the lumbar spine (mean peaks {cervical:.2f} and {lumbar:.2f}, "
            f"{localizer.min_confidence:.2f} needed).",
            radiograph.source,
        )
    if abs(cervical - lumbar) < REGION_MARGIN:
        return Reject(
            "wrong-region",
            f"{name} could show either region (mean peaks cervical {cervical:.2f}, lumbar {lumbar:.2f}); name it "
            "(on the command line with --region).",
            radiograph.source,
        )
    return "cervical" if cervical > lumbar else "lumbar"


def _best(candidates: list[Radiograph], region: int, asked: Evidence, warnings: list[str]) -> Radiograph:
    if len(candidates) == 1:
        return candidates[0]
    try:
        means = [float(asked(radiograph, False)[:, region].max()) for radiograph in candidates]
    except InputRejected:
        means = [0.0]
        warnings.append(f"There was no time to compare the {REGIONS[region]} radiographs; the first was taken.")
    best = candidates[means.index(max(means))]
    others = ", ".join(_name(radiograph) for radiograph in candidates if radiograph is not best)
    warnings.append(f"Several {REGIONS[region]} radiographs: {_name(best)} was scored, not {others}.")
    return best


def _facing(radiograph: Radiograph, region: Region, given: GivenPoints, asked: Evidence, warnings: list[str]) -> Facing:
    """A reader's points tell it best, then the header, then the evidence of both flips (left on a tie)."""
    points = np.array(list(given.get(region, {}).values()))
    if len(points):
        facing = facing_of(points[:, 0], points[:, 1])
        if radiograph.facing not in (None, facing):
            warnings.append(f"{_name(radiograph)} states that the patient faces {radiograph.facing}, the points given "
                            f"say {facing}; the points were followed.")  # fmt: skip
        return facing
    return radiograph.facing or FACINGS[int(asked(radiograph, True)[:, REGIONS.index(region)].argmax())]


def _name(radiograph: Radiograph) -> str:
    return radiograph.source or radiograph.sop_instance_uid or "a radiograph without a name"
