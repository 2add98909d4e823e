"""Where every picture of a result (PNG, page, presentation state) has its marks, in the radiograph's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import POINT, VIEW, CropSpec, crops
from spinescore.runtime.reading.orientation import to_source, to_upright
from spinescore.runtime.scoring.geometry import crop_outline, facing_of, forward
from spinescore.runtime.scoring.msasss import MAX_GRADE
from spinescore.runtime.scoring.report import BundleRules, CornerReport, DiscReport, RegionReport, UntrustedPoints
from spinescore.runtime.study import Radiograph, Turn

__all__ = [
    "COLOURS",
    "MEANINGS",
    "SHAPES",
    "Badge",
    "DiscMarks",
    "badge_radius",
    "disc_marks",
    "disc_spacing",
    "shown_grey",
    "untrusted_marks",
]

Point = NDArray[np.float64]  # x, y

# The meaning of each grade of the mSASSS (Creemers et al. 2005, doi 10.1136/ard.2004.020503).
MEANINGS: dict[int | None, str] = {
    0: "normal",
    1: "erosion, sclerosis or squaring",
    2: "syndesmophyte",
    3: "bridge",
    None: "not scored",
}

COLOURS = {0: "#56b4e9", 1: "#f0e442", 2: "#e69f00", 3: "#f4665c"}  # Okabe and Ito's palette, safe for colour-blind

# The outline of each grade's badge, so that it can be told without colour: the outline's corners about its middle, in
# units of the badge's radius. Grade 0 is a circle; a corner that was not scored is a circle with a broken edge.
SHAPES: dict[int | None, tuple[tuple[float, float], ...]] = {
    1: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    2: ((0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)),
    3: ((-0.6, -1.05), (0.6, -1.05), (1.2, 0.0), (0.6, 1.05), (-0.6, 1.05), (-1.2, 0.0)),
}


@dataclass(frozen=True, eq=False)
class Badge:
    """A corner's grade in front of the spine: the badge's `centre`, and the `foot` of the line that leads to it."""

    corner: CornerReport
    foot: Point
    centre: Point


@dataclass(frozen=True, eq=False)
class DiscMarks:
    """One disc's marks, without badges in a rejected region. `crop` is the outline (4, 2) of the grader's crop."""

    disc: DiscReport | UntrustedPoints
    centre: Point
    anterior: Point
    label: Point  # middle of the level's name, behind the spine at the height of the disc's centre
    badges: tuple[Badge, ...]
    crop: Point | None

    @property
    def is_bridge(self) -> bool:
        """Whether both corners have grade 3: they are one bridge, and pictures join their badges."""
        return bool(self.badges) and all(badge.corner.grade == MAX_GRADE for badge in self.badges)


def disc_spacing(discs: Sequence[DiscReport | UntrustedPoints]) -> float:
    """Return the mean distance between neighbouring discs in source pixels; for one disc, four times its length."""
    centres = np.array([disc.centre_px for disc in discs], np.float64)
    if len(centres) < 2:
        return 4 * float(np.linalg.norm(np.subtract(discs[0].anterior_px, discs[0].centre_px)))
    return float(np.linalg.norm(np.diff(centres, axis=0), axis=1).mean())


def badge_radius(marks: Sequence[DiscMarks]) -> float:
    """Return the radius of a badge in source pixels, before a picture limits it; 0 without marks."""
    return 0.19 * disc_spacing([mark.disc for mark in marks]) if marks else 0.0


def disc_marks(region: RegionReport, rules: BundleRules | None) -> tuple[DiscMarks, ...]:
    """Return the marks of discs with points (confidence above 0), from above; without a bundle's `rules` no crops."""
    outlines = zip(region.discs, _outlines(region, rules), strict=True)
    return _marks(region, [(disc, outline) for disc, outline in outlines if disc.confidence > 0])


def untrusted_marks(region: RegionReport) -> tuple[DiscMarks, ...]:
    """Return the points and levels of a rejected region, from above."""
    return _marks(region, [(disc, None) for disc in region.untrusted_points])


def _marks(
    region: RegionReport, outlined: Sequence[tuple[DiscReport | UntrustedPoints, Point | None]]
) -> tuple[DiscMarks, ...]:
    """Return marks; badges stand a quarter of the discs' spacing above and below the axis, in front of the spine."""
    if not outlined:
        return ()
    image, spacing = region.radiograph, disc_spacing([disc for disc, _ in outlined])
    size = None if image is None else (image.columns, image.rows)
    turn_deg: Turn = 0 if image is None else image.turn_deg
    points = np.array([[disc.centre_px, disc.anterior_px] for disc, _ in outlined], np.float64)
    facing = facing_of(*to_upright(points, turn_deg).swapaxes(0, 1))
    behind = to_source(np.array([-1.1 * forward(facing) * spacing, 0.0]), turn_deg)
    above, marks = to_source(np.array([0.0, -1.0]), turn_deg), []
    for (disc, crop), (centre, anterior) in zip(outlined, points, strict=True):
        axis = anterior - centre
        along = np.array([-axis[1], axis[0]]) / max(float(np.linalg.norm(axis)), 1e-6)
        up = along if along @ above > 0 else -along
        badges = tuple(
            Badge(
                corner,
                anterior + 0.1 * spacing * side,
                _inside(anterior + 0.75 * axis + 0.25 * spacing * side, size, 0.2 * spacing),
            )
            for corner, side in zip(disc.corners if isinstance(disc, DiscReport) else (), (up, -up), strict=False)
        )
        label = _inside(centre + behind, size, 0.35 * spacing)
        marks.append(DiscMarks(disc, centre, anterior, label, badges, crop))
    return tuple(marks)


def _inside(point: Point, size: tuple[int, int] | None, margin: float) -> Point:
    """Return the nearest place to `point` inside a picture of `size` (columns, rows), `margin` from its border."""
    if size is None:
        return point
    last = np.array(size, np.float64) - 1
    return np.asarray(np.clip(point, np.minimum(margin, last / 2), np.maximum(last - margin, last / 2)), np.float64)


def _outlines(region: RegionReport, rules: BundleRules | None) -> list[Point | None]:
    """Return each crop's corners (4, 2) from the kernel that cuts the grader's crops; None if it cut none."""
    if rules is None:
        return [None] * len(region.discs)
    view, points = np.zeros(1, VIEW), np.zeros((1, len(region.discs), 2), POINT)
    view["faces_right"] = region.radiograph is not None and region.radiograph.facing == "right"
    points["xy"] = [[[disc.centre_px, disc.anterior_px] for disc in region.discs]]
    points["confidence"] = [[[disc.confidence] * 2 for disc in region.discs]]
    spec = CropSpec(rules.crop_px, rules.crop_unit, rules.crop_extent, rules.crop_anterior)
    rois: list[Any] = list(crops(points, view, spec).reshape(-1))
    return [crop_outline(roi, rules.crop_px) if roi["source"] >= 0 else None for roi in rois]


def shown_grey(radiograph: Radiograph, height_px: int) -> tuple[NDArray[np.uint8], float]:
    """Return the radiograph for display (H x W, uint8), at most `height_px` high, and its scale."""
    import cv2

    grey = (radiograph.table * 255.0 + 0.5).astype(np.uint8)[radiograph.pixels.astype(np.int32) - radiograph.stored_min]
    scale = min(1.0, height_px / radiograph.rows)
    size = max(1, round(radiograph.columns * scale)), max(1, round(radiograph.rows * scale))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8), scale
