"""Kernel 2, `decode`: heatmaps to disc points, and points to the next regions of interest. Float64 reference.

Contract, the same for every implementation
    Heatmaps  (N, J, h, w), float16 or float32, raw. View n's points stand in the channels that `channels[region]` of
              its `VIEW` record names: (6 discs, 2 points), the centre first, then the anterior point.
    Peak      the largest value; ties go to the lowest index (row by row); NaN and infinity count as 0. Its value
              is the point's confidence. A peak that is not above 0, a view whose ROI has no source, and a point whose
              coordinates are not finite or not below `FAR` give the point (0, 0) with confidence 0.
    Subpixel  `argmax`  none.
              `quarter` 0.25 pixel towards the larger neighbour along each axis, sign(0) = 0, only where
                        1 < x < w-1 and 1 < y < h-1 (get_final_preds of deep-high-resolution-net.pytorch).
              `dark`    one Newton step on the logarithm of the blurred heatmap (Zhang et al. 2020,
                        doi 10.1109/CVPR42600.2020.00712): Gaussian of 11 pixels and sigma 2, zero border, floor
                        1e-10; only where 1 < x < w-2 and 1 < y < h-2 and the Hessian is negative definite; each
                        axis' step is kept within 2 pixels (two bounds that the paper lacks, so that noise cannot
                        throw a point).
    Source    `stride` x_in = 4 x_heatmap, `centre` x_in = 4 (x_heatmap + 0.5) - 0.5 (4 = input size / heatmap size);
              then the ROI that cut the network's input maps x_in to source pixels.
    Given     points that a reader gave (`VIEW.given`) replace the decoded ones, with confidence 1 (0 where they are
              not finite or too far away, too).
    Next ROIs `boxes`: for a second pass, the bounding box of the view's points. `crops`: six discs per view. What
              cannot be determined (confidence 0, coinciding points) gets source -1, origin 0 and a zero matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.warp import FAR, NO_SOURCE, ROI

__all__ = ["DISCS", "POINT", "VIEW", "BoxSpec", "CropSpec", "DecodeSpec", "boxes", "crops", "decode", "peaks"]

DISCS = 6  # per region
POINT = np.dtype([("xy", "<f4", (2,)), ("confidence", "<f4")])

# The part of a view that changes from study to study: which source and region, and what a reader gave.
VIEW = np.dtype(
    [
        ("source", "<i4"),
        ("region", "<i4"),  # 0 cervical, 1 lumbar: the row of `DecodeSpec.channels`
        ("faces_right", "<i4"),  # 1 where the patient looks to the right of the image
        ("given", "<i4", (DISCS,)),  # 1 where `given_xy` replaces the decoded points of the disc
        ("given_xy", "<f4", (DISCS, 2, 2)),  # centre xy, anterior xy, in source pixels
    ]
)

_BLUR_RADIUS = 5
_BLUR_SIGMA = 2.0


def _blur_rows() -> NDArray[np.float64]:
    """(5, 15): row i holds the normalised Gaussian of 11 taps that yields pixel i of five from the 15 about them."""
    weights = np.exp(-(np.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1) ** 2) / (2 * _BLUR_SIGMA**2))
    rows = np.zeros((5, 5 + 2 * _BLUR_RADIUS))
    for row in range(5):
        rows[row, row : row + len(weights)] = weights / weights.sum()
    return rows


_BLUR = _blur_rows()
_MAX_STEP = 2.0
_LOG_FLOOR = 1e-10


@dataclass(frozen=True)
class DecodeSpec:
    """How heatmaps are read. `channels` is (region, disc, centre|anterior) -> heatmap channel."""

    method: Literal["argmax", "quarter", "dark"]
    align: Literal["stride", "centre"]
    stride: int
    channels: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True)
class BoxSpec:
    """The second pass: input size, and the factor by which the points' bounding box is enlarged."""

    height: int
    width: int
    padding: float


@dataclass(frozen=True)
class CropSpec:
    """The grader's crops: `side = extent x unit`, `flips` the vertical flips wanted of each disc, in order.

    `anterior` is the side of the crop on which the anterior end comes to lie.
    """

    size: int
    unit: Literal["anterior-distance", "disc-spacing"]
    extent: float
    anterior: Literal["left", "right"]
    flips: tuple[bool, ...] = (False,)


def peaks(heatmaps: NDArray[np.floating], method: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Peaks of heatmaps (..., h, w): positions (..., 2) as x, y in heatmap pixels, and values (...)."""
    *lead, height, width = heatmaps.shape
    maps = np.asarray(heatmaps, np.float64).reshape(-1, height, width)
    maps = np.where(np.isfinite(maps), maps, 0.0)
    flat = maps.reshape(len(maps), height * width)
    index = flat.argmax(axis=1)
    value = flat[np.arange(len(maps)), index]
    xy = np.stack([index % width, index // width], axis=1).astype(np.float64)
    refine = {"argmax": _no_shift, "quarter": _quarter_shift, "dark": _dark_shift}[method]
    for number in np.flatnonzero(value > 0):
        xy[number] += refine(maps[number], int(xy[number, 0]), int(xy[number, 1]))
    found = value > 0
    xy[~found] = 0
    return xy.reshape(*lead, 2), np.where(found, value, 0.0).reshape(lead)


def decode(
    heatmaps: NDArray[np.floating], rois: NDArray[np.void], views: NDArray[np.void], spec: DecodeSpec
) -> NDArray[np.void]:
    """Points (N, 6, 2) of dtype `POINT`, in source pixels."""
    channels = np.asarray(spec.channels, np.int64)[views["region"]]  # (N, 6, 2)
    chosen = heatmaps[np.arange(len(views))[:, None, None], channels]
    xy, confidence = peaks(chosen, spec.method)
    inputs = spec.stride * xy if spec.align == "stride" else spec.stride * (xy + 0.5) - 0.5
    matrix, origin = rois["matrix"].astype(np.float64), rois["origin"].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        source = np.einsum("nab,ndpb->ndpa", matrix[:, :, :2], inputs) + (matrix[:, :, 2] + origin)[:, None, None]
    given = views["given"].astype(bool)[:, :, None]
    xy = np.where(given[..., None], views["given_xy"], source)
    confidence = np.where(given, 1.0, np.where((rois["source"] < 0)[:, None, None], 0.0, confidence))
    lost = ~((confidence > 0) & (np.abs(xy) < FAR).all(-1))
    points = np.zeros(channels.shape, POINT)
    points["xy"] = np.where(lost[..., None], 0.0, xy)
    points["confidence"] = np.where(lost, 0.0, confidence)
    return points


def boxes(points: NDArray[np.void], views: NDArray[np.void], spec: BoxSpec) -> NDArray[np.void]:
    """The second pass's ROIs (N): the points' bounding box, padded, brought to the input's aspect about its centre.

    A patient who looks to the right is mirrored, so that the localizer always sees one who looks to the left.
    """
    rois = _empty(len(views))
    for roi, view, view_points in zip(rois, views, points, strict=True):
        xy = view_points["xy"][view_points["confidence"] > 0].astype(np.float64)
        if len(xy) < 2:
            continue
        low, high = xy.min(axis=0), xy.max(axis=0)
        scale = spec.padding * max((high[0] - low[0]) / spec.width, (high[1] - low[1]) / spec.height)
        x_axis = np.array([-scale if view["faces_right"] else scale, 0.0])
        _set(roi, int(view["source"]), (low + high) / 2, x_axis, np.array([0.0, scale]), (spec.width, spec.height))
    return rois


def crops(points: NDArray[np.void], views: NDArray[np.void], spec: CropSpec) -> NDArray[np.void]:
    """The crops' ROIs (N, 6, len(flips)).

    A crop is a square about the disc's centre, turned so that the line centre-anterior is horizontal with the
    anterior end on the side `anterior`, and mirrored where the spine's upward direction would otherwise be down.
    """
    rois = _empty(len(views), DISCS, len(spec.flips))
    for view, view_points, view_rois in zip(views, points, rois, strict=True):
        centre, anterior = (view_points["xy"][:, point].astype(np.float64) for point in (0, 1))
        found = (view_points["confidence"] > 0).all(axis=1)
        distance = np.linalg.norm(anterior - centre, axis=1)
        unit = distance if spec.unit == "anterior-distance" else np.full(DISCS, _spacing(centre, found))
        for disc in np.flatnonzero(found & (distance > 0) & (unit > 0)):
            forward = (anterior[disc] - centre[disc]) / distance[disc]
            x_axis = (-forward if spec.anterior == "left" else forward) * (spec.extent * unit[disc] / spec.size)
            upright = (spec.anterior == "right") == bool(view["faces_right"])
            y_axis = np.array([-x_axis[1], x_axis[0]]) * (1 if upright else -1)
            for flip, roi in zip(spec.flips, view_rois[disc], strict=True):
                down = -y_axis if flip else y_axis
                _set(roi, int(view["source"]), centre[disc], x_axis, down, (spec.size, spec.size))
    return rois


def _spacing(centre: NDArray[np.float64], found: NDArray[np.bool_]) -> float:
    """Mean distance between neighbouring disc centres that were both found, 0 where there are none."""
    steps = np.linalg.norm(np.diff(centre, axis=0), axis=1)[found[1:] & found[:-1]]
    return float(steps.mean()) if len(steps) else 0.0


def _empty(*shape: int) -> NDArray[np.void]:
    rois = np.zeros(shape, ROI)
    rois["source"] = NO_SOURCE
    return rois


def _set(
    roi: np.void,
    source: int,
    centre: NDArray[np.float64],
    x_axis: NDArray[np.float64],
    y_axis: NDArray[np.float64],
    size: tuple[int, int],
) -> None:
    """Write the ROI whose output's centre shows `centre`, with the given steps per output pixel in x and y."""
    if not np.any(x_axis) or not np.any(y_axis):
        return
    origin = np.floor(centre + 0.5)
    roi["source"] = source
    roi["origin"] = origin
    roi["matrix"][:, 0] = x_axis
    roi["matrix"][:, 1] = y_axis
    roi["matrix"][:, 2] = centre - origin - x_axis * (size[0] - 1) / 2 - y_axis * (size[1] - 1) / 2


def _no_shift(heatmap: NDArray[np.float64], x: int, y: int) -> tuple[float, float]:
    return 0.0, 0.0


def _quarter_shift(heatmap: NDArray[np.float64], x: int, y: int) -> tuple[float, float]:
    height, width = heatmap.shape
    if not (1 < x < width - 1 and 1 < y < height - 1):
        return 0.0, 0.0
    slope = np.array([heatmap[y, x + 1] - heatmap[y, x - 1], heatmap[y + 1, x] - heatmap[y - 1, x]])
    shift = 0.25 * np.sign(slope)
    return float(shift[0]), float(shift[1])


def _dark_shift(heatmap: NDArray[np.float64], x: int, y: int) -> tuple[float, float]:
    height, width = heatmap.shape
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return 0.0, 0.0
    h = np.log(np.maximum(_blurred_around(heatmap, x, y), _LOG_FLOOR))  # 5 x 5, the peak at [2, 2]
    dx, dy = 0.5 * (h[2, 3] - h[2, 1]), 0.5 * (h[3, 2] - h[1, 2])
    dxx, dyy = 0.25 * (h[2, 4] - 2 * h[2, 2] + h[2, 0]), 0.25 * (h[4, 2] - 2 * h[2, 2] + h[0, 2])
    dxy = 0.25 * (h[3, 3] - h[1, 3] - h[3, 1] + h[1, 1])
    determinant = dxx * dyy - dxy * dxy
    if not (determinant > 0 and dxx < 0):
        return 0.0, 0.0
    step = np.array([dxy * dy - dyy * dx, dxy * dx - dxx * dy]) / determinant
    x_step, y_step = np.clip(step, -_MAX_STEP, _MAX_STEP)
    return float(x_step), float(y_step)


def _blurred_around(heatmap: NDArray[np.float64], x: int, y: int) -> NDArray[np.float64]:
    """The Gaussian-blurred heatmap on the 5 x 5 pixels about (x, y); outside of the heatmap is 0."""
    reach = len(_BLUR[0]) // 2
    height, width = heatmap.shape
    top, bottom, left, right = (
        max(y - reach, 0),
        min(y + reach + 1, height),
        max(x - reach, 0),
        min(x + reach + 1, width),
    )
    rows = _BLUR[:, top - y + reach : bottom - y + reach]
    columns = _BLUR[:, left - x + reach : right - x + reach]
    blurred: NDArray[np.float64] = rows @ heatmap[top:bottom, left:right] @ columns.T
    return blurred
