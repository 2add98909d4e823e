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
    Next ROIs `boxes`: for a second pass, the bounding box of the view's points. `crops`: six discs per view. A ROI that
              cannot be determined (confidence 0, coinciding points) has source -1, origin 0 and a zero matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.warp import FAR, NO_SOURCE, ROI

__all__ = [
    "DISCS",
    "POINT",
    "VIEW",
    "BoxSpec",
    "CropSpec",
    "DecodeSpec",
    "boxes",
    "crops",
    "decode",
    "in_source",
    "peaks",
]

DISCS = 6  # per region
POINT = np.dtype([("xy", "<f4", (2,)), ("confidence", "<f4")])

# The part of a view that changes from study to study: its source, its region, and the points of a reader.
VIEW = np.dtype(
    [
        ("source", "<i4"),
        ("region", "<i4"),  # 0 cervical, 1 lumbar: the row of `DecodeSpec.channels`
        ("faces_right", "<i4"),  # 1 if the patient looks to the right of the upright image
        ("turns", "<i4"),  # quarter turns clockwise, 0 .. 3, that bring the source upright
        ("given", "<i4", (DISCS,)),  # 1 where `given_xy` replaces the decoded points of the disc
        ("given_xy", "<f4", (DISCS, 2, 2)),  # centre xy, anterior xy, in source pixels
    ]
)

_BLUR_RADIUS = 5
_BLUR_SIGMA = 2.0


def _blur_rows() -> NDArray[np.float64]:
    """Return (5, 15): row i holds the normalised Gaussian of 11 taps that gives pixel i of five from 15 pixels."""
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
    """The rules for reading heatmaps. `channels` is (region, disc, centre|anterior) -> heatmap channel."""

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
    """The grader's crops: `side = extent x unit`; `flips` has a vertical flip for each crop of a disc, in order.

    `anterior` is the side of the crop on which the anterior end comes to lie.
    """

    size: int
    unit: Literal["anterior-distance", "disc-spacing"]
    extent: float
    anterior: Literal["left", "right"]
    flips: tuple[bool, ...] = (False,)


def peaks(heatmaps: NDArray[np.floating], method: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the peaks of heatmaps (..., h, w): positions (..., 2) as x, y in heatmap pixels, and values (...).

    The heatmaps are searched as they are; only the few pixels that a peak's position depends on become float64.
    """
    *lead, height, width = heatmaps.shape
    maps = heatmaps.reshape(-1, height, width)
    index, value = _largest(maps)
    if not np.isfinite(value).all():  # NaN or infinity, before which nothing else is largest
        maps = np.where(np.isfinite(maps), maps, 0)
        index, value = _largest(maps)
    y, x = np.divmod(index, width)
    shift = {"argmax": _no_shift, "quarter": _quarter_shift, "dark": _dark_shift}[method](maps, x, y)
    has_peak = value > 0
    xy = np.where(has_peak, np.array([x, y]) + shift, 0.0).T
    return xy.reshape(*lead, 2), np.where(has_peak, value, 0.0).reshape(lead)


def _largest(maps: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the first place of each map's largest value, counted row by row, and the value."""
    flat = maps.reshape(len(maps), -1)
    index = flat.argmax(axis=1)
    return index, flat[np.arange(len(flat)), index].astype(np.float64)


def decode(
    heatmaps: NDArray[np.floating], rois: NDArray[np.void], views: NDArray[np.void], spec: DecodeSpec
) -> NDArray[np.void]:
    """Return the points (N, 6, 2) of dtype `POINT`, in source pixels."""
    channels = np.array([spec.channels[region] for region in views["region"]], np.int64).reshape(-1, DISCS, 2)
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
    """Return the second pass's ROIs (N): the points' padded bounding box, widened to the input's aspect.

    A patient who looks to the right is mirrored, and a source that is not upright is turned, so that the localizer
    always sees an upright patient who looks to the left.
    """
    rois = _empty(len(views))
    for number, (view, view_points) in enumerate(zip(views, points, strict=True)):
        xy = view_points["xy"][view_points["confidence"] > 0].astype(np.float64)
        if len(xy) < 2:
            continue
        low, high = xy.min(axis=0), xy.max(axis=0)
        wide, high_up = (high - low)[::-1] if view["turns"] % 2 else high - low
        scale = spec.padding * max(wide / spec.width, high_up / spec.height)
        if scale:
            axes = in_source(np.diag([-scale if view["faces_right"] else scale, scale]), int(view["turns"]))
            rois[number] = _roi(view["source"], (low + high) / 2, axes[0], axes[1], (spec.width, spec.height))
    return rois


def in_source(vectors: NDArray[np.float64], turns: int) -> NDArray[np.float64]:
    """Turn directions (..., 2) in the upright image into directions in a source that needs `turns` quarter turns."""
    for _ in range(turns % 4):
        vectors = vectors[..., ::-1] * (1.0, -1.0)
    return vectors


def crops(points: NDArray[np.void], views: NDArray[np.void], spec: CropSpec) -> NDArray[np.void]:
    """Return the crops' ROIs (N, 6, len(flips)).

    A crop is a square about the disc's centre, turned so that the line centre-anterior is horizontal with the
    anterior end on the side `anterior`, and mirrored if the spine's upward direction would otherwise be down: that
    follows from `faces_right` alone, because no turn of the source changes it.
    """
    xy = points["xy"].astype(np.float64)
    centre, both = xy[:, :, 0], points["confidence"].min(axis=-1) > 0
    forward = xy[:, :, 1] - centre
    distance = np.linalg.norm(forward, axis=-1)
    unit = distance if spec.unit == "anterior-distance" else _spacing(centre, both)
    view, disc = at = np.nonzero(both & (distance > 0) & (unit > 0))
    forward = forward[at] / distance[at][:, None]
    x_axis = (-forward if spec.anterior == "left" else forward) * (spec.extent * unit[at] / spec.size)[:, None]
    upright = (spec.anterior == "right") == (views["faces_right"][view] != 0)
    y_axis = x_axis[:, ::-1] * (-1, 1) * np.where(upright, 1, -1)[:, None]
    size = (spec.size, spec.size)
    rois = _empty(len(views), DISCS, len(spec.flips))
    for number, flip in enumerate(spec.flips):
        down = -y_axis if flip else y_axis
        rois[view, disc, number] = _roi(views["source"][view], centre[at], x_axis, down, size)
    return rois


def _spacing(centre: NDArray[np.float64], both: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean distance (N, 6) between neighbouring centres, 0 if there are none.

    `both` (N, 6) is true for the discs of which centre and anterior point were found; the others do not count.
    """
    steps = np.linalg.norm(np.diff(centre, axis=1), axis=-1)
    counted = both[:, 1:] & both[:, :-1]
    mean = [one[use].mean() if use.any() else 0.0 for one, use in zip(steps, counted, strict=True)]
    return np.repeat(mean, DISCS).reshape(-1, DISCS)


def _empty(*shape: int) -> NDArray[np.void]:
    rois = np.zeros(shape, ROI)
    rois["source"] = NO_SOURCE
    return rois


def _roi(
    source: NDArray[np.int32],
    centre: NDArray[np.float64],
    x_axis: NDArray[np.float64],
    y_axis: NDArray[np.float64],
    size: tuple[int, int],
) -> NDArray[np.void]:
    """Return ROIs (...) with `centre` (..., 2) at the output's centre, and the given steps per output pixel."""
    origin = np.floor(centre + 0.5)
    rois = np.empty(np.shape(source), ROI)
    rois["source"] = source
    rois["origin"] = origin
    rois["matrix"][..., 0] = x_axis
    rois["matrix"][..., 1] = y_axis
    rois["matrix"][..., 2] = centre - origin - x_axis * (size[0] - 1) / 2 - y_axis * (size[1] - 1) / 2
    return rois


def _no_shift(maps: NDArray[np.floating], x: NDArray[np.intp], y: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.zeros((2, len(maps)))


def _quarter_shift(maps: NDArray[np.floating], x: NDArray[np.intp], y: NDArray[np.intp]) -> NDArray[np.float64]:
    near = _windows(maps, x, y, 1)
    slope = np.array([near[:, 1, 2] - near[:, 1, 0], near[:, 2, 1] - near[:, 0, 1]])
    _, height, width = maps.shape
    inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    return np.where(inner, 0.25 * np.sign(slope), 0.0)


def _dark_shift(maps: NDArray[np.floating], x: NDArray[np.intp], y: NDArray[np.intp]) -> NDArray[np.float64]:
    blurred = _BLUR @ _windows(maps, x, y, _BLUR.shape[1] // 2) @ _BLUR.T  # (N, 5, 5), the peak at [2, 2]
    h = np.log(np.maximum(blurred, _LOG_FLOOR)).transpose(1, 2, 0)
    dx, dy = 0.5 * (h[2, 3] - h[2, 1]), 0.5 * (h[3, 2] - h[1, 2])
    dxx, dyy = 0.25 * (h[2, 4] - 2 * h[2, 2] + h[2, 0]), 0.25 * (h[4, 2] - 2 * h[2, 2] + h[0, 2])
    dxy = 0.25 * (h[3, 3] - h[1, 3] - h[3, 1] + h[1, 1])
    determinant = dxx * dyy - dxy * dxy
    _, height, width = maps.shape
    usable = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2) & (determinant > 0) & (dxx < 0)
    step = np.array([dxy * dy - dyy * dx, dxy * dx - dxx * dy]) / np.where(usable, determinant, 1.0)
    return np.where(usable, step.clip(-_MAX_STEP, _MAX_STEP), 0.0)


def _windows(maps: NDArray[np.floating], x: NDArray[np.intp], y: NDArray[np.intp], reach: int) -> NDArray[np.float64]:
    """Return each map's pixels within `reach` of its (x, y): (N, 2 reach + 1, 2 reach + 1), 0 outside of the map."""
    windows = np.zeros((len(maps), 2 * reach + 1, 2 * reach + 1))
    for window, heatmap, column, row in zip(windows, maps, x.tolist(), y.tolist(), strict=True):
        left, top = column - reach, row - reach
        seen = heatmap[max(top, 0) : row + reach + 1, max(left, 0) : column + reach + 1]
        window[max(-top, 0) :, max(-left, 0) :][: seen.shape[0], : seen.shape[1]] = seen
    windows[~np.isfinite(windows)] = 0.0
    return windows
