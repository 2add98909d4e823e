"""Counts the cache lines and sectors that the loads of `warp` touch, by simulation. Needs no GPU.

python -m spinescore.benchmarks.sectors --out benchmarks/results/warp-sectors.json

A warp's 32 threads send one load together; the cache answers one line of 128 bytes after the other, and memory moves
sectors of 32 bytes. So the lines of a load are about the cycles that it takes in the load unit. The addresses are those
of the kernel (warp.cu): 16 x 2 threads, each with two pixels of a row. A sample has four stored values and, unless the
table is a clamped line, four table entries. The radiograph is a phantom, its table a linear window.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.harness.record import Command
from spinescore.kernels.warp import ROI, Source, WarpSpec
from spinescore.runtime.phantom.study import draw_view
from spinescore.runtime.scoring.geometry import whole_image

__all__ = ["count", "loads", "main", "measure"]

SCHEMA = "spinescore.sectors/1"
_SEED = 1_000_003
_ACROSS, _DOWN = 16, 2  # a warp's threads
_LINE_BYTES, _SECTOR_BYTES = 128, 32
_CROP_EXTENT, _CROP_DEG = 3.2, 20.0  # of a usual crop: its width in distances centre-anterior, and its turn


def loads(source: Source, roi: NDArray[np.void], spec: WarpSpec) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each load of the kernel: "stored" or "table", and its byte addresses (warps, 32).

    A lane whose pixel lies outside of the output has address -1. An output of odd width is not simulated.
    """
    rows, columns = source.pixels.shape
    table, matrix = source.tables[spec.table], roi["matrix"].astype(np.float64)
    n, offsets = spec.antialias, (np.arange(spec.antialias) + 0.5) / spec.antialias - 0.5
    y, x = np.mgrid[: spec.height, : spec.width : 2].astype(np.float64)
    for j in range(n):
        for i in range(n):
            for pixel in (0, 1):
                across, down = x + pixel + offsets[i], y + offsets[j]
                u, v = (matrix[k, 0] * across + matrix[k, 1] * down + matrix[k, 2] + roi["origin"][k] for k in (0, 1))
                left, top = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
                for tap in range(4):
                    column = np.clip(left + tap % 2, 0, columns - 1)
                    row = np.clip(top + tap // 2, 0, rows - 1)
                    yield "stored", _by_warp((row * columns + column) * source.pixels.itemsize)
                    index = np.clip(source.pixels[row, column].astype(np.int64) - source.stored_min, 0, len(table) - 1)
                    yield "table", _by_warp(index * 4)


def count(source: Source, roi: NDArray[np.void], spec: WarpSpec) -> dict[str, dict[str, int]]:
    """Return the loads of all warps, and the lines and sectors that they touch, for stored values and for tables."""
    totals = {kind: {"loads": 0, "lines": 0, "sectors": 0} for kind in ("stored", "table")}
    for kind, addresses in loads(source, roi, spec):
        totals[kind]["loads"] += len(addresses)
        totals[kind]["lines"] += _distinct(addresses, _LINE_BYTES)
        totals[kind]["sectors"] += _distinct(addresses, _SECTOR_BYTES)
    return totals


def measure() -> dict[str, Any]:
    """Return the counts for a localizer's input and for a crop, and the part that a line's arithmetic saves."""
    view = draw_view(_SEED, "lumbar", 1.0)
    pixels = view.image.pixels
    low, high = np.percentile(pixels, [1, 99])
    table = np.clip((np.arange(1 << view.image.bits) - low) / (high - low), 0, 1).astype(np.float32)
    source = Source(pixels, (table,))
    centre, anterior = view.centres_px[2], view.anteriors_px[2]
    rows, columns = pixels.shape
    whole = whole_image(0, rows, columns, (256, 192), "stretch", "left")
    crop = _crop(centre, float(np.hypot(*(anterior - centre))), 224)
    cases = {  # as the exporter's defaults have them
        "localizer 256 x 192, antialias 4": (whole, WarpSpec(256, 192, 4, (0.0,), (1.0,))),
        "crop 224 x 224, antialias 2": (crop, WarpSpec(224, 224, 2, (0.0,), (1.0,))),
    }
    counts: dict[str, Any] = {}
    for name, (roi, spec) in cases.items():
        counts[name] = count(source, roi, spec)
        stored, entries = (counts[name][kind]["lines"] for kind in ("stored", "table"))
        counts[name]["lines_saved_by_a_linear_table"] = round(entries / (stored + entries), 3)
    return {"radiograph": {"seed": _SEED, "rows": rows, "columns": columns}, "warp": counts}


def main(argv: Sequence[str] | None = None) -> int:
    command = Command("sectors", SCHEMA, __doc__)
    command.start(argv)
    command.publish(measure())
    return 0


def _crop(centre: NDArray[np.float64], distance_px: float, size: int) -> NDArray[np.void]:
    angle, scale = np.deg2rad(_CROP_DEG), _CROP_EXTENT * distance_px / size
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    roi = np.zeros((), ROI)
    roi["matrix"][:, :2] = turn
    roi["matrix"][:, 2] = centre - turn.sum(axis=1) * (size - 1) / 2
    return roi


def _by_warp(addresses: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the addresses (height, pairs of pixels) as (warps, 32), with -1 for lanes outside of the output."""
    height, pairs = addresses.shape
    padded = np.pad(addresses, ((0, -height % _DOWN), (0, -pairs % _ACROSS)), constant_values=-1)
    blocks = padded.reshape(padded.shape[0] // _DOWN, _DOWN, padded.shape[1] // _ACROSS, _ACROSS)
    return blocks.transpose(0, 2, 1, 3).reshape(-1, _DOWN * _ACROSS)


def _distinct(addresses: NDArray[np.int64], unit: int) -> int:
    """Return the number of distinct units in each warp, summed over the warps."""
    units = np.sort(np.where(addresses < 0, -1, addresses // unit), axis=1)
    changes = (np.diff(units, axis=1, prepend=-2) != 0) & (units >= 0)
    return int(changes.sum())


if __name__ == "__main__":
    sys.exit(main())
