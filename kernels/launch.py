"""How the CUDA kernels are launched: their names, argument blocks, grids and records in device memory.

Every kernel takes one argument, a struct by value, whose layout is one of the `*_ARGS` dtypes below; a `Launch` carries
it as a record that is passed as it is (`cuLaunchKernel` with a pointer to it, or as the whole parameter buffer).
Addresses are of device memory. What changes from study to study lies there too, never in the arguments, so that one
captured launch serves images of any size: ROIs, views, and `SOURCES` records of `SOURCE` (a zero record: no image).

`ROI`, `VIEW` and `POINT` of the references are the kernels' records as they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.average import MOST_RUNS, AverageSpec
from spinescore.kernels.decode import DISCS, BoxSpec, CropSpec, DecodeSpec
from spinescore.kernels.warp import WarpSpec

__all__ = [
    "AVERAGE_ARGS",
    "BOXES_ARGS",
    "CROPS_ARGS",
    "DECODE_ARGS",
    "KERNELS",
    "MAX_CHANNELS",
    "MAX_FLIPS",
    "MIRROR_ARGS",
    "SOURCE",
    "TABLES",
    "WARP_ARGS",
    "Launch",
    "average_launch",
    "boxes_launch",
    "crops_launch",
    "decode_launch",
    "mirror_launch",
    "source_record",
    "warp_launch",
]

MAX_CHANNELS = 16  # of a warp's output
MAX_FLIPS = 8  # crops of one disc
TABLES = 2  # per source: the localizer's and the grader's
REGIONS = 2
POINTS = 2 * DISCS  # per view

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

METHODS = ("argmax", "quarter", "dark")
KERNELS = {  # name -> the source file that holds it, and its argument block
    "warp_f16": ("warp", WARP_ARGS),
    "warp_f32": ("warp", WARP_ARGS),
    "decode_f16": ("decode", DECODE_ARGS),
    "decode_f32": ("decode", DECODE_ARGS),
    "boxes": ("decode", BOXES_ARGS),
    "crops": ("decode", CROPS_ARGS),
    "mirror_f16": ("average", MIRROR_ARGS),
    "mirror_f32": ("average", MIRROR_ARGS),
    "average_f16": ("average", AVERAGE_ARGS),
    "average_f32": ("average", AVERAGE_ARGS),
}

_WARP_BLOCK = (16, 8, 1)  # each thread writes two pixels of a row
_DECODE_THREADS = 128  # fixed in decode.cu
_FEW_THREADS = 32
_EACH_THREADS = 128  # where a thread makes one value
_MOST_PLANES = 65535  # of a grid in y


@dataclass(frozen=True, eq=False)
class Launch:
    """One launch: the kernel's name in the module built from `source`.cu, its grid and block, and its argument."""

    source: str
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    args: NDArray[np.void]  # 0-d, the kernel's only argument; no shared memory beyond what the kernel declares


def source_record(
    pixels: int,
    pitch: int,
    shape: tuple[int, int],
    dtype: np.dtype[np.integer],
    stored_min: int,
    tables: Sequence[tuple[int, int]],
) -> NDArray[np.void]:
    """A `SOURCE` record (0-d): stored values of `shape` and `dtype` at the address `pixels`, as they came.

    `tables` has (address, entries) for each of the source's tables, at most `TABLES`; where it has fewer, the last one
    stands for the rest.
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
    record["sign"] = 1 << (8 * dtype.itemsize - 1) if dtype.kind == "i" else 0
    for number in range(TABLES):
        record["tables"][number], record["lengths"][number] = tables[min(number, len(tables) - 1)]
    return record


def warp_launch(sources: int, source_count: int, rois: int, count: int, spec: WarpSpec, out: int, half: bool) -> Launch:
    """Kernel 1 for `count` ROIs: `out` (count, channels, height, width), float16 where `half`, else float32."""
    if not 1 <= spec.channels <= MAX_CHANNELS:
        raise ValueError(f"the warp has {spec.channels} channels; its kernel takes 1 to {MAX_CHANNELS}")
    if not 0 <= spec.table < TABLES:
        raise ValueError(f"the warp asks for table {spec.table}; a source has {TABLES}")
    args = np.zeros((), WARP_ARGS)
    args["sources"], args["source_count"], args["rois"], args["out"] = sources, source_count, rois, out
    args["height"], args["width"], args["antialias"] = spec.height, spec.width, spec.antialias
    args["channels"], args["table"] = spec.channels, spec.table
    args["mean"][: spec.channels], args["std"][: spec.channels] = spec.mean, spec.std
    across, down, _ = _WARP_BLOCK
    grid = (_blocks((spec.width + 1) // 2, across), _blocks(spec.height, down), count)
    return Launch("warp", "warp_f16" if half else "warp_f32", grid, _WARP_BLOCK, args)


def decode_launch(
    heatmaps: int,
    shape: tuple[int, int, int],
    half: bool,
    rois: int,
    views: int,
    count: int,
    spec: DecodeSpec,
    points: int,
) -> Launch:
    """Kernel 2: `points` (count, 6, 2) from heatmaps (count, *shape), where shape = (joints, height, width)."""
    channels = np.asarray(spec.channels, np.int32)
    if channels.shape != (REGIONS, DISCS, 2) or channels.min() < 0 or channels.max() >= shape[0]:
        raise ValueError(f"channels {channels.tolist()} do not fit {shape[0]} heatmaps, {REGIONS} regions x {POINTS}")
    args = np.zeros((), DECODE_ARGS)
    args["heatmaps"], args["rois"], args["views"], args["points"] = heatmaps, rois, views, points
    args["joints"], args["height"], args["width"] = shape
    args["method"], args["centre_aligned"] = METHODS.index(spec.method), spec.align == "centre"
    args["stride"], args["channels"] = spec.stride, channels
    kernel = "decode_f16" if half else "decode_f32"
    return Launch("decode", kernel, (POINTS, count, 1), (_DECODE_THREADS, 1, 1), args)


def boxes_launch(points: int, views: int, count: int, spec: BoxSpec, rois: int) -> Launch:
    """Kernel 2: the second pass's ROIs (count)."""
    args = np.zeros((), BOXES_ARGS)
    args["points"], args["views"], args["rois"], args["count"] = points, views, rois, count
    args["height"], args["width"], args["padding"] = spec.height, spec.width, spec.padding
    return Launch("decode", "boxes", (_blocks(count, _FEW_THREADS), 1, 1), (_FEW_THREADS, 1, 1), args)


def crops_launch(points: int, views: int, count: int, spec: CropSpec, rois: int) -> Launch:
    """Kernel 2: the crops' ROIs (count, 6, flips)."""
    if not 1 <= len(spec.flips) <= MAX_FLIPS:
        raise ValueError(f"{len(spec.flips)} crops of each disc are asked for; the kernel makes 1 to {MAX_FLIPS}")
    args = np.zeros((), CROPS_ARGS)
    args["points"], args["views"], args["rois"], args["count"] = points, views, rois, count
    args["size"], args["extent"] = spec.size, spec.extent
    args["spacing_unit"], args["anterior_right"] = spec.unit == "disc-spacing", spec.anterior == "right"
    args["flips"] = len(spec.flips)
    args["flip_bits"] = sum(1 << number for number, flip in enumerate(spec.flips) if flip)
    return Launch("decode", "crops", (_blocks(count * DISCS, _FEW_THREADS), 1, 1), (_FEW_THREADS, 1, 1), args)


def mirror_launch(images: int, rows: int, width: int, half: bool, out: int) -> Launch:
    """Kernel 3: `out` (rows, width) from images (rows, width), each row reversed."""
    args = np.zeros((), MIRROR_ARGS)
    args["images"], args["out"], args["rows"], args["width"] = images, out, rows, width
    grid = (_blocks(rows * width, _EACH_THREADS), 1, 1)
    return Launch("average", "mirror_f16" if half else "mirror_f32", grid, (_EACH_THREADS, 1, 1), args)


def average_launch(
    heatmaps: Sequence[tuple[int, tuple[int, int]]],
    planes: int,
    shape: tuple[int, int],
    half: bool,
    spec: AverageSpec,
    out: int,
) -> Launch:
    """Kernel 3: `out` (planes, *shape) from the address and the (height, width) of each run's heatmaps."""
    if not 1 <= len(spec.runs) <= MOST_RUNS or len(heatmaps) != len(spec.runs):
        raise ValueError(f"{len(heatmaps)} heatmaps of {len(spec.runs)} runs; the kernel averages 1 to {MOST_RUNS}")
    if planes > _MOST_PLANES:
        raise ValueError(f"{planes} heatmaps are averaged at once; the kernel takes {_MOST_PLANES}")
    args = np.zeros((), AVERAGE_ARGS)
    args["out"], args["count"] = out, len(spec.runs)
    args["height"], args["width"] = shape
    for record, (address, size), run in zip(args["runs"], heatmaps, spec.runs, strict=False):
        record["heatmaps"], record["scale"], record["offset"] = address, run.scale, spec.offset(run)
        record["height"], record["width"] = size
        record["flipped"], record["shift"] = run.flipped, run.flipped and spec.flip_shift
    grid = (_blocks(shape[0] * shape[1], _EACH_THREADS), planes, 1)
    return Launch("average", "average_f16" if half else "average_f32", grid, (_EACH_THREADS, 1, 1), args)


def _blocks(items: int, per_block: int) -> int:
    return -(-items // per_block)
