"""Kernel 3, `mirror` and `average`: a localizer's runs at several scales, and mirrored, become one set of heatmaps.

Contract, the same for every implementation
    Mirror    (.., W) to the same with its last axis reversed, bit for bit: the network sees the flipped input tensor
              itself, and not a second sampling of the radiograph.
    Runs      heatmaps (N, J, h_r, w_r) of every run r, float16 or float32, raw. A run has a scale, by which its input
              was larger than the base input, and may be flipped: then its input was mirrored.
    Flip      a flipped run's columns are read from the right. With `flip_shift` they are then moved one column to the
              right and the first one stays: column 0 and 1 both show the last one (SHIFT_HEATMAP of
              deep-high-resolution-net.pytorch, lib/core/function.py). Channels stay: the points of a spine that is seen
              from the side are no left and right pairs.
    Grid      pixel (x, y) of the base grid lies at scale * x + offset in a run's heatmaps, and likewise in y: both
              inputs show the same field, so that x_in + 0.5 of the base input is scale * (x_in + 0.5) of the run's, and
              `align` brings heatmap and input together as in the decoder. Offset: (scale - 1) / (2 * stride) with
              `align: stride`, (scale - 1) / 2 with `centre`.
    Sample    bilinear; beyond the border the nearest column or row stands. NaN and infinity count as 0.
    Output    the mean of all runs (N, J, h, w), float16 or float32. One run at scale 1, not flipped, comes out as it is
              but for NaN and infinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["MOST_RUNS", "AverageSpec", "Run", "average", "mirror"]

MOST_RUNS = 16  # in one average


@dataclass(frozen=True)
class Run:
    """One run of the network: how much larger its input was than the base input, and whether it was mirrored."""

    scale: float = 1.0
    flipped: bool = False


@dataclass(frozen=True)
class AverageSpec:
    """The runs, in the order of their heatmaps, and how heatmaps lie on inputs (as in `DecodeSpec`)."""

    runs: tuple[Run, ...]
    align: Literal["stride", "centre"]
    stride: int
    flip_shift: bool = False

    def offset(self, run: Run) -> float:
        """Return the place of the base grid's first pixel in the run's heatmaps."""
        return (run.scale - 1) / (2 * self.stride if self.align == "stride" else 2)


def mirror(images: NDArray[Any]) -> NDArray[Any]:
    """Return the images (.., W) with their last axis reversed."""
    return images[..., ::-1]


def average(
    heatmaps: Sequence[NDArray[np.floating]],
    spec: AverageSpec,
    shape: tuple[int, int],
    dtype: DTypeLike = np.float64,
) -> NDArray[Any]:
    """Return the mean heatmaps (N, J, *shape) of all runs; `heatmaps` (N, J, h_r, w_r) are in the order of `spec.runs`.

    All arithmetic is in `dtype`: float64 for the reference, float32 for speed.
    """
    total: NDArray[Any] = np.zeros((*heatmaps[0].shape[:2], *shape), dtype)
    for maps, run in zip(heatmaps, spec.runs, strict=True):
        height, width = maps.shape[2:]
        rows = _taps(shape[0], height, run.scale, spec.offset(run))
        columns = _taps(shape[1], width, run.scale, spec.offset(run))
        if run.flipped:
            columns = [(_turned(index, width, spec.flip_shift), weights) for index, weights in columns]
        finite = maps if np.isfinite(maps).all() else np.where(np.isfinite(maps), maps, 0)
        total += _sampled(_sampled(finite.astype(dtype, copy=False), rows, 2), columns, 3)
    total /= len(spec.runs)
    return total


def _taps(
    count: int, size: int, scale: float, offset: float
) -> list[tuple[NDArray[np.int64], NDArray[np.float64] | None]]:
    """Return, for each of `count` pixels, the one or two pixels of `size` that it lies between, and their weights.

    A single pixel has no weights: the grids are then the same.
    """
    if (scale, offset, count) == (1.0, 0.0, size):
        return [(np.arange(size), None)]
    place = np.clip(scale * np.arange(count) + offset, 0, size - 1)
    before = np.floor(place).astype(np.int64)
    return [(before, 1 - (place - before)), (np.minimum(before + 1, size - 1), place - before)]


def _turned(index: NDArray[np.int64], width: int, shift: bool) -> NDArray[np.int64]:
    """Return the columns of raw heatmaps for columns of the heatmaps that were turned back."""
    return width - 1 - (np.maximum(index - 1, 0) if shift else index)


def _sampled(
    maps: NDArray[Any], taps: Sequence[tuple[NDArray[np.int64], NDArray[np.float64] | None]], axis: int
) -> NDArray[Any]:
    if len(taps) == 1:
        (index, _), size = taps[0], maps.shape[axis]
        return maps if np.array_equal(index, np.arange(size)) else np.asarray(np.take(maps, index, axis))
    shape = (-1, 1) if axis == 2 else (-1,)
    parts = [
        np.asarray(np.take(maps, index, axis) * weights.astype(maps.dtype).reshape(shape))
        for index, weights in taps
        if weights is not None
    ]
    between: NDArray[Any] = parts[0] + parts[1]
    return between
