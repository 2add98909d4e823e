"""How the CUDA kernels are launched: their names, argument blocks and grids.

Every kernel takes one argument, a struct by value, whose layout is one of the `*_ARGS` dtypes of `layouts`. A `Launch`
carries it as a record, which `cuLaunchKernel` takes by a pointer or as the whole parameter buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.average import MOST_RUNS, AverageSpec
from spinescore.kernels.decode import DISCS, BoxSpec, CropSpec, DecodeSpec
from spinescore.kernels.layouts import (
    AVERAGE_ARGS,
    BOXES_ARGS,
    CROPS_ARGS,
    DECODE_ARGS,
    MAX_CHANNELS,
    MAX_FLIPS,
    MIRROR_ARGS,
    POINTS,
    REGIONS,
    TABLES,
    WARP_ARGS,
)
from spinescore.kernels.warp import WarpSpec

__all__ = [
    "KERNELS",
    "Launch",
    "average_launch",
    "boxes_launch",
    "crops_launch",
    "decode_launch",
    "mirror_launch",
    "warp_launch",
]

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
_EACH_THREADS = 128  # of kernels with a thread for each value
_MOST_PLANES = 65535  # of a grid in y


@dataclass(frozen=True, eq=False)
class Launch:
    """One launch: the kernel's name in the module of `source`.cu, its grid, its block and its argument."""

    source: str
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    args: NDArray[np.void]  # 0-d, the kernel's only argument; shared memory is as the kernel declares it


def warp_launch(sources: int, source_count: int, rois: int, count: int, spec: WarpSpec, out: int, half: bool) -> Launch:
    """Return kernel 1 for `count` ROIs: `out` (count, channels, height, width), float16 if `half`, else float32."""
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
    """Return kernel 2: `points` (count, 6, 2) from heatmaps (count, *shape); shape is (joints, height, width)."""
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
    """Return kernel 2 for the second pass's ROIs (count)."""
    args = np.zeros((), BOXES_ARGS)
    args["points"], args["views"], args["rois"], args["count"] = points, views, rois, count
    args["height"], args["width"], args["padding"] = spec.height, spec.width, spec.padding
    return Launch("decode", "boxes", (_blocks(count, _FEW_THREADS), 1, 1), (_FEW_THREADS, 1, 1), args)


def crops_launch(points: int, views: int, count: int, spec: CropSpec, rois: int) -> Launch:
    """Return kernel 2 for the crops' ROIs (count, 6, flips)."""
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
    """Return kernel 3: `out` (rows, width) from images (rows, width), each row reversed."""
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
    """Return kernel 3: `out` (planes, *shape) from the address and the (height, width) of each run's heatmaps."""
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
