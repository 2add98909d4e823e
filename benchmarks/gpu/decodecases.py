"""Random and degenerate cases for the decode kernels, and the bounds of their errors.

The tests run them through the kernels compiled for the host, `kernels` in this package on a GPU. Points and corners
of regions must be equal except for the rounding of float32; confidences must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import DISCS, POINT, VIEW, BoxSpec, CropSpec, DecodeSpec
from spinescore.kernels.warp import FAR, NO_SOURCE, ROI

__all__ = [
    "CHANNELS",
    "KINDS",
    "METHODS",
    "DecodeCase",
    "PointsCase",
    "close",
    "corners",
    "decode_edge",
    "heatmap",
    "random_decode",
    "random_points",
    "random_regions",
    "random_rois",
    "random_views",
    "roi_close",
]

CHANNELS = tuple(
    tuple((2 * disc + 12 * region, 2 * disc + 1 + 12 * region) for disc in range(6)) for region in range(2)
)
METHODS: tuple[Literal["argmax", "quarter", "dark"], ...] = ("argmax", "quarter", "dark")
KINDS = ("blob", "noisy", "two", "noise", "steps", "flat", "nothing", "below", "broken", "nan")
LEAST_PX = 1e-4  # the bound of a point at coordinates up to 4096: less than their last place
CORNER_PX = 1e-3  # of a region's corner

_SHAPES = ((64, 48), (16, 12), (5, 5), (1, 1), (3, 40), (33, 17))

Random = np.random.Generator


@dataclass(frozen=True, eq=False)
class DecodeCase:
    """Heatmaps (N, 24, h, w), the regions that cut the network's inputs, and the views (N)."""

    heatmaps: NDArray[np.floating]
    rois: NDArray[np.void]
    views: NDArray[np.void]
    spec: DecodeSpec


@dataclass(frozen=True, eq=False)
class PointsCase:
    """Points (N, 6, 2) and views (N), for crops and boxes."""

    points: NDArray[np.void]
    views: NDArray[np.void]
    crop: CropSpec
    box: BoxSpec


def heatmap(kind: str, rng: Random, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Draw one heatmap of a kind (`KINDS`) that a sound or a broken network may output."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    place = rng.uniform(-2, [width + 2, height + 2])
    blob = rng.uniform(0.05, 1) * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * rng.uniform(0.7, 3) ** 2))
    drawn: NDArray[np.float64] = {
        "blob": blob,
        "noisy": blob + rng.normal(0, 0.02, shape),
        "two": np.maximum(blob, blob[::-1, ::-1]),
        "noise": rng.random(shape),
        "steps": rng.integers(-2, 3, shape) / 4,  # ties everywhere
        "flat": np.full(shape, 0.5),
        "nothing": np.zeros(shape),
        "below": -rng.random(shape),
        "broken": np.where(rng.random(shape) < 0.3, rng.choice([np.nan, np.inf, -np.inf], shape), blob),
        "nan": np.full(shape, np.nan),
    }[kind]
    return drawn


def random_views(rng: Random, count: int, given: float = 0.2) -> NDArray[np.void]:
    views = np.zeros(count, VIEW)
    views["source"], views["region"] = np.arange(count), rng.integers(0, 2, count)
    views["faces_right"] = rng.integers(0, 2, count)
    views["given"] = rng.random((count, DISCS)) < given
    views["given_xy"] = rng.uniform(0, 4096, (count, DISCS, 2, 2))
    views["turns"] = rng.integers(0, 4, count)
    return views


def random_rois(rng: Random, count: int) -> NDArray[np.void]:
    rois = np.zeros(count, ROI)
    rois["source"] = np.arange(count)
    rois["origin"] = rng.integers(0, 2000, (count, 2))
    rois["matrix"][..., :2] = rng.uniform(-3, 3, (count, 2, 2))
    rois["matrix"][..., 2] = rng.uniform(-500, 500, (count, 2))
    return rois


def random_decode(
    rng: Random,
    kinds: Sequence[str] | None = None,
    shape: tuple[int, int] | None = None,
    method: Any = None,
    align: Any = None,
    half: bool = False,
) -> DecodeCase:
    """Draw two views with heatmaps of these `kinds`; arguments that are None are drawn, too."""
    kinds = [str(kind) for kind in rng.choice(KINDS, rng.integers(1, 6))] if kinds is None else kinds
    shape = _SHAPES[rng.integers(len(_SHAPES))] if shape is None else shape
    spec = DecodeSpec(
        METHODS[rng.integers(3)] if method is None else method,
        ("stride", "centre")[rng.integers(2)] if align is None else align,
        4,
        CHANNELS,
    )
    maps = np.stack([heatmap(kinds[number % len(kinds)], rng, shape) for number in range(48)])
    maps = maps.reshape(2, 24, *shape).astype(np.float16 if half else np.float32)
    return DecodeCase(maps, random_rois(rng, 2), random_views(rng, 2), spec)


def decode_edge(rng: Random) -> DecodeCase:
    """Draw views without source, with invalid or far matrices, and with invalid given points; the last one is sound."""
    maps = np.stack([heatmap("blob", rng, (64, 48)) for _ in range(7 * 24)]).reshape(7, 24, 64, 48).astype(np.float32)
    maps[:, :, 30, 20] = 1
    rois, views = random_rois(rng, 7), random_views(rng, 7, given=0)
    rois["source"][0] = NO_SOURCE
    for number, bad in enumerate([np.nan, np.inf, 3e38, FAR], start=1):
        rois["matrix"][number, number % 2, 2] = bad
    views["given"][5] = 1
    views["given_xy"][5].reshape(-1)[::5] = [np.nan, np.inf, -np.inf, FAR, 2 * FAR]
    return DecodeCase(maps, rois, views, DecodeSpec("dark", "stride", 4, CHANNELS))


def random_points(rng: Random, count: int, lost: float) -> NDArray[np.void]:
    """Draw spines with some points lost and some discs whose points coincide."""
    points = np.zeros((count, DISCS, 2), POINT)
    steps = np.cumsum(rng.uniform(20, 400, (count, DISCS)), axis=1)
    centre = np.stack([rng.uniform(100, 3000) + rng.normal(0, 60, steps.shape), steps], axis=-1)
    away = rng.normal(0, 120, centre.shape) * (rng.random((count, DISCS, 1)) > 0.05)
    points["xy"] = np.stack([centre, centre + away], axis=2)
    points["confidence"] = np.where(rng.random((count, DISCS, 2)) < lost, 0, rng.uniform(0.01, 1, (count, DISCS, 2)))
    points["xy"][points["confidence"] == 0] = 0
    return points


def random_regions(rng: Random) -> PointsCase:
    """Draw points of one to seven views and a way to crop them."""
    count = int(rng.choice([1, 2, 7]))
    points = random_points(rng, count, float(rng.choice([0.0, 0.1, 0.6, 0.95, 1.0])))
    unit: Any = ("anterior-distance", "disc-spacing")[rng.integers(2)]
    anterior: Any = ("left", "right")[rng.integers(2)]
    flips = tuple(bool(flip) for flip in rng.random(rng.integers(1, 4)) < 0.5)
    crop = CropSpec(int(rng.choice([1, 65, 224, 300])), unit, 3.2, anterior, flips)
    return PointsCase(points, random_views(rng, count), crop, BoxSpec(256, 192, 1.25))


def close(actual: NDArray[Any], expected: NDArray[Any], least: float = LEAST_PX) -> bool:
    """Return whether both are equal except for the rounding of float32."""
    return bool(np.allclose(actual, expected, rtol=2.0**-22, atol=least))


def corners(rois: NDArray[np.void], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the source pixels at the four corners of an output of `size` (height, width)."""
    ends = np.array([[x, y, 1] for x in (0, size[1] - 1) for y in (0, size[0] - 1)], np.float64)
    matrices = rois["matrix"].astype(np.float64)
    shown: NDArray[np.float64] = ends @ np.swapaxes(matrices, -1, -2) + rois["origin"][..., None, :]
    return shown


def roi_close(actual: NDArray[np.void], expected: NDArray[np.void], size: tuple[int, int]) -> bool:
    """Return whether both have the same source and the same places at the corners of the output."""
    same = np.array_equal(actual["source"], expected["source"])
    return same and close(corners(actual, size), corners(expected, size), CORNER_PX)
