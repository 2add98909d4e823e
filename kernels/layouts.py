"""The kernels' argument blocks and records in device memory, as records.cuh declares them.

Addresses are of device memory. Values that change from study to study lie there too, never in the arguments, so that
one captured launch serves images of any size: ROIs, views, and records of `SOURCE` (a zero record: no image). `ROI`,
`VIEW` and `POINT` of the references are the kernels' records as they stand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.average import MOST_RUNS
from spinescore.kernels.decode import DISCS

__all__ = [
    "AVERAGE_ARGS",
    "BOXES_ARGS",
    "CROPS_ARGS",
    "DECODE_ARGS",
    "LINE",
    "MAX_CHANNELS",
    "MAX_FLIPS",
    "MIRROR_ARGS",
    "POINTS",
    "REGIONS",
    "SOURCE",
    "TABLES",
    "WARP_ARGS",
    "line_of",
    "source_record",
]

_EXACT = 2**23  # float32 holds every whole number from here to twice as much
_LINE_ERROR = 1e-6

MAX_CHANNELS = 16  # of a warp's output
MAX_FLIPS = 8  # crops of one disc
TABLES = 2  # per source: the localizer's and the grader's
REGIONS = 2
POINTS = 2 * DISCS  # per view


def _each(kind: str, names: str) -> list[tuple[str, str]]:
    return [(name, kind) for name in names.split()]


LINE = np.dtype(_each("<f4", "origin slope offset low high"))

SOURCE = np.dtype(
    [
        ("pixels", "<u8"),  # address of the first row
        ("tables", "<u8", (TABLES,)),  # addresses of float32 tables
        ("lengths", "<i4", (TABLES,)),  # their entries
        ("pitch", "<i4"),  # bytes from a row to the next
        *_each("<i4", "columns rows"),
        ("bytes", "<i4"),  # per pixel: 1 or 2
        ("sign", "<i4"),  # the sign bit (0x80, 0x8000) of signed pixels, else 0
        ("stored_min", "<i4"),  # stored value of the tables' first entry
        ("linear", "<i4", (TABLES,)),  # 1: the line stands for the table
        ("lines", LINE, (TABLES,)),
    ]
)

WARP_ARGS = np.dtype(
    [
        *_each("<u8", "sources rois out"),
        *_each("<i4", "source_count height width antialias channels table"),
        ("mean", "<f4", (MAX_CHANNELS,)),
        ("std", "<f4", (MAX_CHANNELS,)),
    ]
)

DECODE_ARGS = np.dtype(
    [
        *_each("<u8", "heatmaps rois views points"),
        *_each("<i4", "joints height width method centre_aligned stride"),  # the method is an index into `METHODS`
        ("channels", "<i4", (REGIONS, DISCS, 2)),
    ]
)

_ROIS = _each("<u8", "points views rois")
BOXES_ARGS = np.dtype([*_ROIS, *_each("<i4", "count height width"), ("padding", "<f4")])

CROPS_ARGS = np.dtype(
    [
        *_ROIS,
        *_each("<i4", "count size spacing_unit"),  # 1: the unit is the disc spacing, 0: the distance centre-anterior
        ("extent", "<f4"),
        *_each("<i4", "anterior_right flips flip_bits unused"),  # crops per disc; bit i: crop i is flipped
    ]
)

MIRROR_ARGS = np.dtype([*_each("<u8", "images out"), *_each("<i4", "rows width")])

_RUN = np.dtype(
    [
        ("heatmaps", "<u8"),
        *_each("<i4", "height width"),
        *_each("<f4", "scale offset"),
        *_each("<i4", "flipped shift"),  # by how many columns to the right a flipped run is moved
    ]
)

AVERAGE_ARGS = np.dtype([("out", "<u8"), *_each("<i4", "height width count unused"), ("runs", _RUN, (MOST_RUNS,))])


def source_record(
    pixels: int,
    pitch: int,
    shape: tuple[int, int],
    dtype: np.dtype[np.integer],
    stored_min: int,
    tables: Sequence[tuple[int, int]],
    lines: Sequence[NDArray[np.void] | None] = (),
) -> NDArray[np.void]:
    """Return a `SOURCE` record (0-d) of stored values with `shape` and `dtype` at the address `pixels`.

    `tables` has (address, entries) for each of the source's tables, at most `TABLES`; the last one stands for those
    that are missing. `lines` has the `LINE` of each table that is one, which the kernel then computes. Raises
    `ValueError`.
    """
    if dtype.kind not in "iu" or dtype.itemsize not in (1, 2):
        raise ValueError(f"pixels are {dtype}; the warp kernel reads integers of 8 or 16 bits: convert them first")
    if not 1 <= len(tables) <= TABLES:
        raise ValueError(f"a source has {len(tables)} tables; the warp kernel takes 1 to {TABLES}")
    if pitch % dtype.itemsize or pitch < shape[1] * dtype.itemsize:
        raise ValueError(f"a pitch of {pitch} bytes does not hold rows of {shape[1]} pixels of {dtype}")
    record = np.zeros((), SOURCE)
    record["pixels"], record["pitch"] = pixels, pitch
    record["rows"], record["columns"] = shape
    record["bytes"], record["stored_min"] = dtype.itemsize, stored_min
    record["sign"] = _sign(dtype)
    for number in range(TABLES):
        place = min(number, len(tables) - 1)
        record["tables"][number], record["lengths"][number] = tables[place]
        if lines and lines[place] is not None:
            record["linear"][number], record["lines"][number] = 1, lines[place]
    return record


def line_of(table: NDArray[np.float32], stored_min: int, dtype: np.dtype[np.integer]) -> NDArray[np.void] | None:
    """Return the `LINE` record (0-d) of a table that is a clamped line, as a linear window is; else None.

    `stored_min` is the stored value of its first entry, `dtype` the pixels' type. The record gives the table's values
    within `_LINE_ERROR` of their range, and its ends for values beyond it.
    """
    low, high = sorted((float(table[0]), float(table[-1])))
    inside = np.flatnonzero((table > low) & (table < high))
    if len(inside) < 2:
        return None
    start, stop = int(inside[0]), int(inside[-1])
    line = np.zeros((), LINE)
    line["origin"] = _EXACT + stored_min + _sign(dtype) + start
    line["slope"] = (float(table[stop]) - float(table[start])) / (stop - start)
    line["offset"], line["low"], line["high"] = table[start], low, high
    values = float(line["slope"]) * (np.arange(len(table)) - start) + float(line["offset"])
    near = np.abs(np.clip(values, low, high) - table).max() <= _LINE_ERROR * (high - low)
    return line if near else None


def _sign(dtype: np.dtype[np.integer]) -> int:
    """Return the sign bit of a signed type, else 0."""
    return 1 << (8 * dtype.itemsize - 1) if dtype.kind == "i" else 0
