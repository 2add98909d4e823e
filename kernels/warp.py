"""Kernel 1, `warp`: regions of interest cut from source images. This file is its float64 reference (the oracle).

Contract, the same for every implementation
    Sources   M grey-scale images of stored values (H x W, 8 or 16 bits, signed or not), each with one or more tables
              from stored value to grey: `grey = table[clip(value - stored_min, 0, len(table) - 1)]`.
    ROI       one record per output image (`ROI` below): which source, an integer origin (x, y) in it, and a 2x3
              matrix from output pixel (x, y, 1) to source pixel relative to that origin. The origin keeps float32
              coordinates exact on large images.
    Pixels    integer coordinates are pixel centres, x right, y down (as cv2.warpAffine has it).
    Sample    bilinear between the four neighbouring greys; a neighbour outside of the source has grey 0.
    Output    pixel = mean of n x n samples at offsets (i + 0.5) / n - 0.5 about its centre (n = `antialias`), then
              (pixel - mean[c]) / std[c] for each channel c; NCHW, float16 or float32.
    Defined   a ROI whose source is not in 0 .. M-1 or whose origin is not below `FAR`, and a sample whose coordinate is
              not a finite number, has grey 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FAR", "NO_SOURCE", "ROI", "Source", "WarpSpec", "warp"]

ROI = np.dtype([("source", "<i4"), ("origin", "<i4", (2,)), ("matrix", "<f4", (2, 3))])

FAR = 2.0**29  # pixels: beyond any image, and sums of a few such numbers still fit an int32
NO_SOURCE = -1  # a region of interest that could not be determined


@dataclass(frozen=True)
class WarpSpec:
    """The parameters that do not change between studies: the output's size, sampling and normalisation.

    `table` chooses among the source's tables (the localizer and the grader may want different contrast).
    """

    height: int
    width: int
    antialias: int
    mean: tuple[float, ...]  # per channel, in grey [0, 1]
    std: tuple[float, ...]
    table: int = 0

    @property
    def channels(self) -> int:
        return len(self.mean)


@dataclass(frozen=True, eq=False)
class Source:
    """A source image: stored values (H x W) and its tables (float32, indexed by stored value - `stored_min`)."""

    pixels: NDArray[np.integer]
    tables: tuple[NDArray[np.float32], ...]
    stored_min: int = 0


def warp(sources: Sequence[Source | None], rois: NDArray[np.void], spec: WarpSpec) -> NDArray[np.float64]:
    """Return the N regions `rois` (dtype `ROI`) as a float64 array (N, channels, height, width)."""
    out = np.empty((len(rois), spec.channels, spec.height, spec.width))
    mean, std = (np.asarray(values, np.float64)[:, None, None] for values in (spec.mean, spec.std))
    for index, roi in enumerate(rois):
        is_inside = 0 <= roi["source"] < len(sources) and (np.abs(roi["origin"].astype(np.float64)) < FAR).all()
        source = sources[roi["source"]] if is_inside else None
        grey = np.zeros((spec.height, spec.width)) if source is None else _grey(source, roi, spec)
        out[index] = (grey[None] - mean) / std
    return out


def _grey(source: Source, roi: np.void, spec: WarpSpec) -> NDArray[np.float64]:
    n = spec.antialias
    x_out = (np.arange(spec.width * n) + 0.5) / n - 0.5
    y_out = (np.arange(spec.height * n) + 0.5) / n - 0.5
    matrix = roi["matrix"].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        x, y = (
            matrix[axis, 0] * x_out[None, :] + matrix[axis, 1] * y_out[:, None] + matrix[axis, 2] + roi["origin"][axis]
            for axis in (0, 1)
        )
    samples = _bilinear(source, source.tables[spec.table].astype(np.float64), x, y)
    grey: NDArray[np.float64] = samples.reshape(spec.height, n, spec.width, n).mean(axis=(1, 3))
    return grey


def _bilinear(
    source: Source, table: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    rows, columns = source.pixels.shape
    inside = (x > -1) & (x < columns) & (y > -1) & (y < rows)  # false for NaN too
    x, y = np.where(inside, x, 0.0), np.where(inside, y, 0.0)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    value = np.zeros(x.shape)
    for down in (0, 1):
        for right in (0, 1):
            column, row = left + right, top + down
            weight = (x - left if right else 1 - (x - left)) * (y - top if down else 1 - (y - top))
            tap_inside = inside & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            stored = source.pixels[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)].astype(np.int64)
            grey = table[np.clip(stored - source.stored_min, 0, len(table) - 1)]
            value += np.where(tap_inside, weight * grey, 0.0)
    return value
