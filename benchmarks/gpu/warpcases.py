"""Random and degenerate cases for the warp kernel, and the bounds of its errors.

The tests run them through the kernel compiled for the host, `kernels` in this package on a GPU. Bounds: within 5e-4 of
the range on white noise and 2e-5 on waves; the range of an output is 1 / std, and half precision adds the half step of
its last place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spinescore.kernels.warp import FAR, NO_SOURCE, ROI, Source, WarpSpec

__all__ = [
    "DTYPES",
    "NOISE",
    "SMALL",
    "WAVES",
    "WarpCase",
    "excess",
    "largest_warps",
    "noise",
    "random_warp",
    "region",
    "source_of",
    "warp_edges",
    "waves",
]

NOISE, WAVES = 5e-4, 2e-5
SMALL = 2e-5  # bound of a warp from images of a few dozen pixels, noise too
DTYPES = ("uint8", "int8", "uint16", "int16")

_NO_NUMBERS = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e10, 1e-40)
_FAR_ORIGINS = (FAR, -FAR, 2.0**30, 2.0**31 - 1, -(2.0**31))
_NO_SOURCES = (NO_SOURCE, 1, 2, 2**31 - 1, -(2**31))
_SHIFTS = (0.0, 1e-6, 0.25, 0.3001, -0.0007)

Random = np.random.Generator


@dataclass(frozen=True, eq=False)
class WarpCase:
    """Sources, regions of them (dtype `ROI`), and the bound of an error in ranges of the output."""

    name: str
    sources: tuple[Source | None, ...]
    rois: NDArray[np.void]
    spec: WarpSpec
    bound: float


def region(
    angle: float = 0.0,
    scale: float = 1.0,
    centre: Any = (0.0, 0.0),
    size: tuple[int, int] = (8, 8),
    mirrored: bool = False,
    source: int = 0,
    origin: Any = None,
) -> NDArray[np.void]:
    """Return a ROI with `centre` in the middle of its output, turned by `angle`, `scale` source pixels per pixel."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        turn[:, 0] *= -1
    middle = np.array([size[1] - 1, size[0] - 1]) / 2
    record = np.zeros(1, ROI)
    record["source"] = source
    record["origin"] = np.floor(centre) if origin is None else origin
    record["matrix"][0, :, :2] = turn
    record["matrix"][0, :, 2] = np.asarray(centre) - record["origin"][0] - turn @ middle
    return record


def noise(rows: int, columns: int, dtype: DTypeLike, seed: int = 0) -> NDArray[Any]:
    limits = np.iinfo(np.dtype(dtype))
    rng = np.random.default_rng(seed)
    return rng.integers(limits.min, limits.max, (rows, columns), np.dtype(dtype), endpoint=True)


def waves(rows: int, columns: int, dtype: DTypeLike) -> NDArray[Any]:
    y, x = (axis.astype(np.float32) for axis in np.ogrid[:rows, :columns])
    limits = np.iinfo(np.dtype(dtype))
    picture = 0.5 + 0.24 * np.sin(x / 7 + y / 11) + 0.24 * np.sin(y / 9 - x / 23)
    pixels: NDArray[Any] = (limits.min + picture * (limits.max - limits.min)).astype(dtype)
    return pixels


def source_of(pixels: NDArray[Any], tables: int = 2) -> Source:
    limits = np.iinfo(pixels.dtype)
    table = np.linspace(0, 1, int(limits.max) - int(limits.min) + 1, dtype=np.float32)
    return Source(pixels, (table, 1 - table)[:tables], int(limits.min))


def excess(actual: NDArray[Any], expected: NDArray[Any], spec: WarpSpec, bound: float, half: bool) -> float:
    """Return the excess of the largest error over the bound (at most 0 if it is kept), inf if it is no number."""
    allowed = np.broadcast_to(bound / np.array(spec.std)[:, None, None], expected.shape)
    if half:
        allowed = allowed + np.maximum(np.abs(expected), 2.0**-14) * 2.0**-11
    worst = float((np.abs(actual.astype(np.float64) - expected) - allowed).max())
    return worst if np.isfinite(worst) else np.inf


def random_warp(rng: Random) -> WarpCase:
    """Draw small sources of any type, size and tables, some missing, with any turn, zoom and place."""
    sources = tuple(_random_source(rng) if rng.random() < 0.8 else None for _ in range(rng.integers(1, 3)))
    height, width, channels = int(rng.integers(1, 21)), int(rng.integers(1, 38)), int(rng.choice([1, 3]))
    mean, std = rng.uniform(-1, 1, channels), rng.uniform(0.125, 2, channels)
    spec = WarpSpec(height, width, int(rng.integers(1, 5)), tuple(mean), tuple(std), int(rng.integers(0, 2)))
    rois = []
    for _ in range(rng.integers(1, 9)):
        centre = rng.uniform(-30, 70, 2)
        turn, scale = rng.uniform(-np.pi, np.pi), float(rng.choice([0.01, 0.3, 1.0, 1.7, 3.0]))
        number, away = int(rng.integers(-1, len(sources) + 1)), rng.integers(-3, 4, 2)
        rois.append(region(turn, scale, centre, (height, width), rng.random() < 0.5, number, np.floor(centre) + away))
    return WarpCase("random", sources, np.concatenate(rois), spec, SMALL)


def _random_source(rng: Random) -> Source:
    dtype = np.dtype(str(rng.choice(DTYPES)))
    rows, columns = (int(size) for size in rng.integers(1, 41, 2))
    lowest = int(rng.choice([int(np.iinfo(dtype).min), 0, -5, 40]))
    lengths = rng.choice([1, 2, 100, 256, 65536], 2)
    pixels = noise(rows, columns, dtype, int(rng.integers(2**32)))
    return Source(pixels, tuple(rng.random(int(length), np.float32) for length in lengths), lowest)


def largest_warps(rng: Random, side: int = 4096) -> Iterator[WarpCase]:
    """Yield noise and waves of `side` x `side` pixels of each depth: whole, and crops beyond the borders."""
    size, middle = (256, 192), ((side - 1) / 2, (side - 1) / 2)
    for dtype in ("uint16", "int16", "uint8"):
        for name, pixels, bound in (
            ("noise", noise(side, side, dtype), NOISE),
            ("waves", waves(side, side, dtype), WAVES),
        ):
            sources = (source_of(pixels),)
            rois = np.concatenate([
                region(0.0, side / 256, middle, size, mirrored=True, origin=(0, 0)),
                region(0.02, side / 192, middle, size, origin=(0, 0)),
                region(0.0, side / 256, middle, size),
            ])  # fmt: skip
            yield WarpCase(f"{name} {dtype} whole", sources, rois, WarpSpec(*size, 4, (0.0,), (1.0,)), bound)
            for antialias in (1, 2, 3):
                spec = WarpSpec(224, 224, antialias, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), antialias % 2)
                places = rng.uniform(-100, side + 100, (4, 2))
                turns = np.concatenate([
                    region(rng.uniform(-4, 4), rng.uniform(0.3, 4), place, (224, 224), bool(number % 2))
                    for number, place in enumerate(places)
                ])  # fmt: skip
                yield WarpCase(f"{name} {dtype} crops", sources, turns, spec, bound)


def warp_edges() -> Iterator[WarpCase]:
    """Yield invalid and degenerate matrices, invalid origins and sources, many channels, wide images."""
    starts = ([[1, 0, 0.5], [0, 1, 0.25]], np.zeros((2, 3)), [[1, 1, 0], [1, 1, 0]])
    broken = np.zeros(len(_NO_NUMBERS) * 6 * len(starts), ROI)
    for roi, (bad, place, start) in zip(
        broken, ((bad, p, s) for bad in _NO_NUMBERS for p in np.ndindex(2, 3) for s in starts), strict=True
    ):
        roi["matrix"] = start
        roi["matrix"][place] = bad
    for antialias in (1, 2, 3):
        spec = WarpSpec(4, 6, antialias, (0.5,), (2.0,))
        yield WarpCase(f"no numbers {antialias}", (source_of(noise(9, 7, "uint16")),), broken, spec, SMALL)
    plain, small = WarpSpec(4, 4, 1, (0.0,), (1.0,)), (source_of(noise(40, 40, "uint8")),)
    far = [
        _reaching(axis, origin, back)
        for origin in _FAR_ORIGINS
        for axis in (0, 1)
        for back in (0.0, -origin, origin, 32 - FAR, FAR - 32)
    ]
    yield WarpCase("far origins", small, np.concatenate(far), plain, SMALL)
    none = np.concatenate([region(source=number) for number in _NO_SOURCES])
    three = WarpSpec(3, 5, 2, (0.25, 0.5, 0.75), (0.5, 0.5, 0.5))
    yield WarpCase("no source", (*small, None), none, three, SMALL)
    for channels in (1, 2, 3, 16):
        mean, std = np.linspace(0, 1, channels), np.linspace(0.5, 2, channels)
        spec = WarpSpec(6, 7, 2, tuple(mean), tuple(std))
        image = (source_of(noise(20, 20, "uint16")),)
        yield WarpCase(f"{channels} channels", image, region(0.3, 1.5, (10, 10), (6, 7)), spec, 1e-6)
    board = source_of((np.indices((2, 65535)).sum(0) % 2 * 255).astype(np.uint8))
    wide = np.zeros(len(_SHIFTS), ROI)  # 65,000 pixels away from the origin, at the largest contrast
    for roi, shift in zip(wide, _SHIFTS, strict=True):
        roi["matrix"] = [[1023.5 + shift, 0.0, 3.0 + shift], [0, 0.5, 0.25]]
    yield WarpCase("wide image", (board,), wide, WarpSpec(3, 64, 1, (0.0,), (1.0,)), 1e-5)


def _reaching(axis: int, origin: float, back: float) -> NDArray[np.void]:
    roi = region()
    roi["origin"][0, axis] = int(origin)
    roi["matrix"][0, axis, 2] = back
    return roi
