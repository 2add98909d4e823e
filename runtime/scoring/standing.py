"""The orientation of a picture if its header is silent or wrong: the localizer's peaks at every turn.

Each turn costs a pass, so the localizer is asked only if there is doubt: its peaks are low, its points are no spine, or
the discs' shape fits a spine upside down. In 480 phantom radiographs the mean peak at the right turn is at least 0.90,
upside down at most 0.83, on the side 0.06, and mirrored 0.07.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading.orientation import ORIENTATIONS, TURNS, Orientation, to_upright
from spinescore.runtime.reading.quality import finding
from spinescore.runtime.scoring.geometry import implausible
from spinescore.runtime.scoring.scoredquality import UNSURE_FACTOR
from spinescore.runtime.scoring.shape import upside_down_odds
from spinescore.runtime.study import REGIONS, Facing, Finding, Radiograph, Region, Turn

if TYPE_CHECKING:
    from spinescore.runtime.scoring.judgement import RegionResult

__all__ = [
    "FACINGS",
    "MARGIN",
    "STATED_MARGIN",
    "by_points",
    "contradiction",
    "is_doubtful",
    "is_sure",
    "look_at_turns",
    "others",
    "rather",
    "stands",
]

FACINGS: tuple[Facing, Facing] = ("left", "right")

# A mean peak must exceed another by this much, so that the other region or another orientation is assumed.
MARGIN = 0.1
# A mean peak of the whole picture, and the mean confidence of the discs, leave no doubt from this many times the
# bundle's least confidence on, because peaks differ between bundles (0.3 in this measurement).
SURE_FACTOR, DISCS_SURE_FACTOR = 2.75, 2.0
# A facing from a user or a program is trusted less than a header's. Of 80 lumbar phantoms with a wrong one, two still
# had discs with a mean confidence of 0.77 and 0.83; 120 with a right one had at least 0.91.
STATED_SURE_FACTOR, STATED_MARGIN = 3.0, 0.05
# The localizer is asked if the log odds for a spine upside down exceed these, without and with an unsure disc. 240
# sound phantom radiographs have at most -5 (cervical) and 2.5 (lumbar; 6 % exceed 1), and no unsure disc.
DOUBTED_ODDS: Mapping[Region, float] = {"cervical": 1.5, "lumbar": 1.0}
DOUBTED_ODDS_UNSURE: Mapping[Region, float] = {"cervical": -5.0, "lumbar": -4.0}

Seen = Mapping[Turn, NDArray[np.float64]]  # turn -> mean peaks (facing, region)


def is_sure(peak: float, min_confidence: float) -> bool:
    """Whether a mean peak leaves no doubt about the picture's orientation."""
    return peak >= min(SURE_FACTOR * min_confidence, 1.0 - MARGIN)  # upside down 0.83 at most, upright 0.90 at least


def is_doubtful(result: RegionResult, min_confidence: float) -> bool:
    """Whether the localizer has to be asked about the picture's orientation."""
    if result.reject is not None:
        return result.reject.code in ("low-confidence", "implausible-geometry")
    stated = result.chosen.radiograph.facing_from != "header" and not result.given
    sure = min(STATED_SURE_FACTOR * min_confidence, 1.0 - MARGIN) if stated else DISCS_SURE_FACTOR * min_confidence
    if result.confidence.mean() < sure:
        return True
    unsure = bool(result.confidence.min() < UNSURE_FACTOR * min_confidence)
    return upside_down_odds(result) > (DOUBTED_ODDS_UNSURE if unsure else DOUBTED_ODDS)[result.region]


def by_points(result: RegionResult) -> Orientation | None:
    """Return the orientation in which the localizer's points, now no spine, are a spine; None if there is none.

    Some localizers find the same points in every orientation. A reader's points are not used: levels in the wrong order
    would look the same.
    """
    if result.reject is None or result.reject.code != "implausible-geometry" or result.given:
        return None
    fitting = []
    for turn_deg, facing in ORIENTATIONS:
        centre, anterior = to_upright(result.centre, turn_deg), to_upright(result.anterior, turn_deg)
        if implausible(centre, anterior, result.known, facing) is None:
            first, *_, last = centre[result.known]
            across, down = last - first
            fitting.append((abs(across) / down, (turn_deg, facing)))
    return min(fitting)[1] if fitting else None


def others(own: Turn) -> tuple[Turn, Turn, Turn]:
    """Return the other turns, the likeliest first: upside down, then on either side."""
    first, second, third = (TURNS[(own // 90 + quarter) % 4] for quarter in (2, 1, 3))
    return first, second, third


def look_at_turns(
    seen: dict[Turn, NDArray[np.float64]], own: Turn, evidence: Callable[[Turn], NDArray[np.float64]], least: float
) -> None:
    """Add mean peaks to `seen` by turn, the own one first, as far as they are needed and there is time.

    `evidence` raises `InputRejected` if there is none. If the best peak reaches `least`, the pictures on their sides,
    which have next to no peaks, are left out.
    """
    with suppress(InputRejected):
        for turn_deg in (own, *others(own)):
            best = max((float(peaks.max()) for peaks in seen.values()), default=0.0)
            if turn_deg not in seen and ((turn_deg - own) % 180 == 0 or best < least):
                seen[turn_deg] = evidence(turn_deg)


def rather(
    seen: Seen, region: Region, own: Orientation, min_confidence: float, margin: float = MARGIN
) -> Orientation | None:
    """Return the orientation with peaks that are higher than the `own` one's by the margin; None if there is none."""
    column = REGIONS.index(region)
    peaks = {(turn, facing): float(seen[turn][n, column]) for turn in seen for n, facing in enumerate(FACINGS)}
    best = max(peaks, key=lambda one: (peaks[one], one[1] == own[1]))  # `as-is` sees no difference
    clear = peaks[best] >= min_confidence and peaks[best] >= peaks[own] + margin
    return best if clear and best != own else None


def stands(seen: Seen, region: Region, own: Orientation) -> bool:
    """Whether the `own` orientation is clearly right: the peaks upside down are known, and lower by the margin."""
    column, opposite = REGIONS.index(region), others(own[0])[0]
    return opposite in seen and bool(seen[own[0]][:, column].max() >= seen[opposite][:, column].max() + MARGIN)


def contradiction(radiograph: Radiograph, orientation: Orientation, region: Region) -> Finding:
    """Return the finding on a radiograph that was scored in another orientation than was stated, if any was."""
    turn_deg, facing = orientation
    name = radiograph.source
    if radiograph.turn_deg is None and turn_deg:
        text = f"it was turned by {turn_deg} degrees clockwise, because it shows the {region} spine only then"
        return finding("not-upright", name, text, region, turn_deg=turn_deg)
    shown = f"the picture shows the patient {_standing(turn_deg)}, facing {facing}; the picture was followed"
    if radiograph.facing_from != "header":
        text = f"the facing was given as {radiograph.facing}, but {shown}"
        step = "look at the overlay, and correct the facing that is given"
        return finding("orientation-contradicts", name, text, region, step, turn_deg=turn_deg, facing=facing)
    stands_as = "" if radiograph.turn_deg is None else _standing(radiograph.turn_deg)
    stated = ", ".join(filter(None, (stands_as, f"facing {radiograph.facing}" if radiograph.facing else "")))
    header = f"its header states that the patient is {stated}, but" if stated else "its header states nothing, and"
    text = f"{header} {shown}"
    return finding("orientation-contradicts", name, text, region, turn_deg=turn_deg, facing=facing)


def _standing(turn_deg: Turn) -> str:
    sides = {0: "upright", 90: "lying (head to the left)", 180: "upside down", 270: "lying (head to the right)"}
    return sides[turn_deg]
