"""Geometry on the host: the whole radiograph's matrix, rotations, outlines of crops, and points that are no spine.

Pixel convention as in `spinescore.kernels.warp`: integer coordinates are pixel centres, x right, y down; matrices map
output pixels to source pixels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import in_source
from spinescore.kernels.warp import ROI
from spinescore.runtime.reading.percentiles import median
from spinescore.runtime.study import Facing, Turn

__all__ = [
    "crop_outline",
    "facing_of",
    "forward",
    "implausible",
    "is_mirrored",
    "mirrored_views",
    "rotation_deg",
    "scaled_rois",
    "to_input",
    "to_source",
    "whole_image",
]

Shown = Literal["left", "right", "as-is"]

# A lateral spine's six disc centres, from above. The bounds are wide: of 40,000 spines drawn from the statistics of
# real ones (4,902 cervical, 663 lumbar cases) none leaves them. Swapped points, a doubled or skipped level and a stray
# point leave them.
MAX_LEAN_DEG = 60.0  # of the line from the first to the last disc against the vertical
MAX_BEND_DEG = 60.0  # between neighbouring steps
STEP_RATIO = (0.5, 1.7)  # of a step between neighbouring discs, against the median step
REACH_RATIO = (0.1, 1.2)  # of the distance from centre to anterior point, against the median step


def whole_image(
    source: int,
    rows: int,
    columns: int,
    size: tuple[int, int],
    fit: Literal["stretch", "letterbox"],
    facing: Facing,
    shown: Shown = "left",
    turn_deg: Turn = 0,
) -> NDArray[np.void]:
    """Return the ROI record (shape ()) that maps a whole radiograph to a network's input of `size` (height, width).

    `stretch` fills the input, as cv2.resize does; `letterbox` keeps the aspect ratio and centres the picture. The
    radiograph is turned by `turn_deg`. In the input the patient looks to the side `shown`: a radiograph that faces the
    other side is mirrored. With `as-is` none is mirrored.
    """
    height, width = size
    upright_rows, upright_columns = (columns, rows) if turn_deg in (90, 270) else (rows, columns)
    x_scale, y_scale = upright_columns / width, upright_rows / height
    if fit == "letterbox":
        x_scale = y_scale = max(x_scale, y_scale)
    centre = np.array([(columns - 1) / 2, (rows - 1) / 2])
    origin = np.floor(centre)
    steps = in_source(np.diag([-x_scale if is_mirrored(facing, shown) else x_scale, y_scale]), turn_deg // 90).T
    roi = np.zeros((), ROI)
    roi["source"], roi["origin"] = source, origin
    roi["matrix"][:, :2] = steps
    roi["matrix"][:, 2] = centre - origin - steps @ [(width - 1) / 2, (height - 1) / 2]
    return roi


def scaled_rois(rois: NDArray[np.void], scale: float) -> NDArray[np.void]:
    """Return ROIs of the same field, edge to edge, with an output that is `scale` times as large."""
    scaled = rois.copy()
    matrix = rois["matrix"].astype(np.float64)
    edge = (1 / scale - 1) / 2  # place of the larger output's first pixel, in pixels of the smaller output
    scaled["matrix"][..., :2] = matrix[..., :2] / scale
    scaled["matrix"][..., 2] = matrix[..., 2] + matrix[..., :2].sum(axis=-1) * edge
    return scaled


def is_mirrored(facing: Facing, shown: Shown) -> bool:
    """Whether a radiograph with this `facing` is mirrored for a localizer that sees patients `shown` this way."""
    return shown != "as-is" and facing != shown


def mirrored_views(views: NDArray[np.void], shown: Shown) -> NDArray[np.void]:
    """Return a copy of `VIEW` records in which exactly those that are mirrored for the localizer face right."""
    changed = views.copy()
    changed["faces_right"] = [is_mirrored("right" if right else "left", shown) for right in views["faces_right"]]
    return changed


def to_source(roi: NDArray[np.void], xy: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return output pixels (.., 2) of a ROI as source pixels."""
    matrix = roi["matrix"].astype(np.float64)
    mapped: NDArray[np.float64] = np.asarray(xy, np.float64) @ matrix[:, :2].T + matrix[:, 2] + roi["origin"]
    return mapped


def to_input(roi: NDArray[np.void], xy: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return source pixels (.., 2) as output pixels of a ROI: the inverse of `to_source`."""
    matrix = roi["matrix"].astype(np.float64)
    relative = np.asarray(xy, np.float64) - matrix[:, 2] - roi["origin"]
    mapped: NDArray[np.float64] = relative @ np.linalg.inv(matrix[:, :2]).T
    return mapped


def crop_outline(roi: NDArray[np.void], size: int) -> NDArray[np.float64]:
    """Return the corners (4, 2) of a square crop in source pixels, clockwise from the upper left one."""
    low, high = -0.5, size - 0.5
    return to_source(roi, np.array([[low, low], [high, low], [high, high], [low, high]]))


def forward(facing: Facing) -> int:
    """Return the sign of x in the direction in which the patient looks."""
    return 1 if facing == "right" else -1


def facing_of(centre: NDArray[np.floating], anterior: NDArray[np.floating]) -> Facing:
    """Return the side of the discs' centres (n, 2) on which their anterior points (n, 2) lie."""
    return "right" if float(np.sum(np.asarray(anterior)[:, 0] - np.asarray(centre)[:, 0])) > 0 else "left"


def rotation_deg(centre: NDArray[np.floating], anterior: NDArray[np.floating], facing: Facing) -> NDArray[np.float64]:
    """Return the angles of the lines centre-anterior (..., 2); positive if the anterior end lies lower.

    They are against the horizontal along the patient's line of sight, so that a radiograph and its mirror image have
    the same angle. Beyond +-90 degrees the anterior point lies behind the centre.
    """
    line = np.asarray(anterior, np.float64) - np.asarray(centre, np.float64)
    angle: NDArray[np.float64] = np.degrees(np.arctan2(line[..., 1], forward(facing) * line[..., 0]))
    return angle


def implausible(
    centre: NDArray[np.floating], anterior: NDArray[np.floating], known: NDArray[np.bool_], facing: Facing
) -> str | None:
    """Return why points cannot be the six discs of a lateral spine, as half a sentence; None if they can.

    `centre` and `anterior` are (6, 2) in pixels of the upright picture, from above. Only `known` (6,) discs are judged;
    a step across unknown discs is divided by its number of levels.
    """
    index = np.flatnonzero(known)
    if len(index) < 2:
        return None
    centre, anterior = np.asarray(centre, np.float64)[index], np.asarray(anterior, np.float64)[index]
    steps = np.diff(centre, axis=0) / np.diff(index)[:, None]
    lengths = np.linalg.norm(steps, axis=1)
    chord = centre[-1] - centre[0]
    lean = float(np.degrees(np.arctan2(abs(chord[0]), chord[1])))
    if lean > MAX_LEAN_DEG:
        return f"the line of the discs leans {lean:.0f} degrees from the vertical, the first disc should be uppermost"
    if (steps @ chord <= 0).any():
        return "the discs are not in order along the spine"
    typical = median(lengths)
    if (lengths < STEP_RATIO[0] * typical).any() or (lengths > STEP_RATIO[1] * typical).any():
        return "the discs' distances differ too much, so that a level seems to be doubled or skipped"
    bends = np.degrees(np.arccos(np.clip(np.sum(steps[1:] * steps[:-1], 1) / (lengths[1:] * lengths[:-1]), -1, 1)))
    if (bends > MAX_BEND_DEG).any():
        return f"the line of the discs bends by {bends.max():.0f} degrees between neighbouring levels"
    reach = anterior - centre
    if (forward(facing) * (reach[:, 0] * chord[1] - reach[:, 1] * chord[0]) <= 0).any():
        return f"an anterior point lies behind its disc's centre although the patient faces {facing}"
    distance = np.linalg.norm(reach, axis=1)
    if (distance < REACH_RATIO[0] * typical).any() or (distance > REACH_RATIO[1] * typical).any():
        return "the distance from a disc's centre to its anterior point does not fit the discs' spacing"
    return None
