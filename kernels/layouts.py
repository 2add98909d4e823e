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

LINE = np.dtype([(name, "<f4") for name in ("origin", "slope", "offset", "low", "high")])

SOURCE = np.dtype(
    [
        ("pixels", "<u8"),  # address of the first row
        ("tables", "<u8", (TABLES,)),  # addresses of float32 tables
        ("lengths", "<i4", (TABLES,)),  # their entries
        ("pitch", "<i4"),  # bytes from a row to the next
        ("columns", "<i4"),
        ("rows", "<i4"),
        ("bytes", "<i4"),  # per pixel: 1 or 2
        ("sign", "<i4"),  # the sign bit (0x80, 0x8000) of signed pixels, else 0
        ("stored_min", "<i4"),  # stored value of the tables' first entry
        ("linear", "<i4", (TABLES,)),  # 1: the line stands for the table
        ("lines", LINE, (TABLES,)),
    ]
)

WARP_ARGS = np.dtype(
    [
        ("sources", "<u8"),
        ("rois", "<u8"),
        ("out", "<u8"),
        ("source_count", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("antialias", "<i4"),
        ("channels", "<i4"),
        ("table", "<i4"),
        ("mean", "<f4", (MAX_CHANNELS,)),
        ("std", "<f4", (MAX_CHANNELS,)),
    ]
)

DECODE_ARGS = np.dtype(
    [
        ("heatmaps", "<u8"),
        ("rois", "<u8"),
        ("views", "<u8"),
        ("points", "<u8"),
        ("joints", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("method", "<i4"),  # index into `METHODS`
        ("centre_aligned", "<i4"),
        ("stride", "<i4"),
        ("channels", "<i4", (REGIONS, DISCS, 2)),
    ]
)

BOXES_ARGS = np.dtype(
    [
        ("points", "<u8"),
        ("views", "<u8"),
        ("rois", "<u8"),
        ("count", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("padding", "<f4"),
    ]
)

CROPS_ARGS = np.dtype(
    [
        ("points", "<u8"),
        ("views", "<u8"),
        ("rois", "<u8"),
        ("count", "<i4"),
        ("size", "<i4"),
        ("spacing_unit", "<i4"),  # 1: the unit is the disc spacing, 0: the distance centre-anterior
        ("extent", "<f4"),
        ("anterior_right", "<i4"),
        ("flips", "<i4"),  # crops per disc
        ("flip_bits", "<i4"),  # bit i: crop i is flipped
        ("unused", "<i4"),
    ]
)

MIRROR_ARGS = np.dtype([("images", "<u8"), ("out", "<u8"), ("rows", "<i4"), ("width", "<i4")])

_RUN = np.dtype(
    [
        ("heatmaps", "<u8"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("scale", "<f4"),
        ("offset", "<f4"),
        ("flipped", "<i4"),
        ("shift", "<i4"),  # columns to the right, of a flipped run
    ]
)

AVERAGE_ARGS = np.dtype(
    [
        ("out", "<u8"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("count", "<i4"),  # of runs
        ("unused", "<i4"),
        ("runs", _RUN, (MOST_RUNS,)),
    ]
)


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
