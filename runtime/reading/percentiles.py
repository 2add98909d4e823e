"""Percentiles of a picture's stored values, which give the contrast if the header states none."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["counts", "displayed_percentiles", "exposed", "exposed_field", "median", "picture_percentiles"]

SAMPLES_PER_SIDE = 512  # percentiles are taken from at most this many rows and columns, evenly spaced
GLANCE_PER_SIDE = 128  # enough rows and columns if dark and bright are not rare
PIXELS_AT_ONCE = 1 << 20  # counted in one step, so that their 64-bit indices take little memory
_FLAT = 0.1  # an edge line that varies less than this share of the usual is outside the collimation

Ranges = Iterable[tuple[int, int]]  # inclusive, of stored values that show no exposure


def displayed_percentiles(
    pixels: NDArray[np.integer], low: float, high: float, hidden: Ranges = ()
) -> tuple[float, float]:
    """Return two percentiles of the stored values in the exposed field, from evenly spaced rows and columns.

    `hidden` are ranges of stored values that are left out: padding, and pixels outside a shutter.
    """
    values = np.percentile(exposed(pixels, hidden), (low, high))
    return float(values[0]), float(values[1])


def picture_percentiles(
    pixels: NDArray[np.integer], low: float, high: float, stored_min: int, entries: int, hidden: Ranges = ()
) -> tuple[float, float]:
    """Return two percentiles of all stored values, from a histogram, which is faster than sorting.

    Neighbouring values of the sorted picture are interpolated, as `numpy.percentile` does by default. `entries` is the
    number of values that can be stored, from `stored_min` on; the ranges in `hidden` are left out.
    """
    every = counts(np.ascontiguousarray(pixels).reshape(-1), stored_min, entries)
    seen = every.copy()
    for first, last in hidden:
        seen[max(first - stored_min, 0) : max(last - stored_min + 1, 0)] = 0
    seen = seen if seen.any() else every
    up_to = np.cumsum(seen)  # the number of pixels with this value or a lower one
    rank = np.array([low, high]) / 100.0 * (up_to[-1] - 1)
    before = np.floor(rank)
    first, second = (np.searchsorted(up_to, before + step, side="right") for step in (0, 1))
    second = np.minimum(second, np.flatnonzero(seen)[-1])
    values = stored_min + first + (rank - before) * (second - first)
    return float(values[0]), float(values[1])


def counts(values: NDArray[np.integer], stored_min: int, entries: int) -> NDArray[np.int64]:
    """Return how often each of the `entries` values from `stored_min` on occurs in `values` (of one dimension)."""
    total = np.zeros(entries, np.int64)
    for start in range(0, values.size, PIXELS_AT_ONCE):
        total += np.bincount(values[start : start + PIXELS_AT_ONCE].astype(np.intp) - stored_min, minlength=entries)
    return total


def exposed(pixels: NDArray[np.integer], hidden: Ranges = (), per_side: int = SAMPLES_PER_SIDE) -> NDArray[np.integer]:
    """Return visible stored values of the exposed field, from evenly spaced rows and columns; never empty."""
    rows, columns = (max(1, -(-side // per_side)) for side in pixels.shape)
    sample = np.ascontiguousarray(pixels[rows // 2 :: rows, columns // 2 :: columns])
    inside: NDArray[np.integer] = sample[exposed_field(sample)].ravel()
    for first, last in hidden:
        kept = inside[(inside < first) | (inside > last)]
        inside = kept if kept.size else inside
    return inside


def exposed_field(sample: NDArray[np.integer]) -> tuple[slice, slice]:
    """Return the rows and columns inside a rectangular collimation, without the edge lines that hardly vary."""
    spread = sample.astype(np.float32)
    bounds = []
    for axis in (1, 0):
        lines = spread.std(axis=axis)
        usual = np.float32(median(lines[lines.size // 4 : lines.size - lines.size // 4]))
        alive = np.flatnonzero(lines > _FLAT * usual)
        bounds.append(slice(int(alive[0]), int(alive[-1]) + 1) if alive.size else slice(None))
    return bounds[0], bounds[1]


def median(values: NDArray[np.floating]) -> float:
    """Return `numpy.median` of at least one number. That function itself is far slower: it looks for NaN and axes."""
    ordered = np.sort(values)
    return float(ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
