"""The kernels' verbs on host arrays, as a device would launch them. Memory around images and outputs is watched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from helpers.host_build import HostKernels
from spinescore.kernels.average import AverageSpec
from spinescore.kernels.decode import DISCS, POINT, BoxSpec, CropSpec, DecodeSpec
from spinescore.kernels.launch import (
    average_launch,
    boxes_launch,
    crops_launch,
    decode_launch,
    mirror_launch,
    warp_launch,
)
from spinescore.kernels.layouts import SOURCE, line_of, source_record
from spinescore.kernels.warp import ROI, Source, WarpSpec

GUARD_BYTES = 64
GUARD = 0xA5


class Output:
    """Memory for a kernel's output between two guards; unwritten parts stay 0xA5."""

    def __init__(self, shape: Sequence[int], dtype: np.dtype) -> None:
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        self._memory = np.full(size + 2 * GUARD_BYTES, GUARD, np.uint8)
        self._inside = self._memory[GUARD_BYTES : GUARD_BYTES + size]
        self._shape, self._dtype = tuple(shape), dtype
        self.address = self._inside.ctypes.data

    def values(self) -> NDArray:
        guards = np.concatenate([self._memory[:GUARD_BYTES], self._memory[-GUARD_BYTES:]])
        assert (guards == GUARD).all(), "the kernel wrote beyond its output"
        return self._inside.view(self._dtype).reshape(self._shape)


def place(source: Source, margin: int) -> tuple[NDArray, NDArray]:
    """The pixels as the inside of a larger array of other values, `margin` wide: (the inside, the record's pixels)."""
    rows, columns = source.pixels.shape
    rng = np.random.default_rng(rows * columns + margin)
    limits = np.iinfo(source.pixels.dtype)
    memory = np.empty((rows + 2, columns + 2 * margin), source.pixels.dtype)
    inside = memory[1:-1, margin : margin + columns]
    inside[...] = source.pixels
    for border in (memory[:1], memory[-1:], memory[:, :margin], memory[:, margin + columns :]):
        border[...] = rng.integers(limits.min, limits.max, border.shape, border.dtype, endpoint=True)
    return memory, inside


def warp(
    kernels: HostKernels,
    sources: Sequence[Source | None],
    rois: NDArray[np.void],
    spec: WarpSpec,
    half: bool = False,
    margin: int = 3,
    poisoned: bool = False,
) -> NDArray:
    """`spinescore.kernels.warp.warp` by the CUDA source; `poisoned` spoils the tables that need not be read."""
    kept = []
    records = np.zeros(max(len(sources), 1), SOURCE)
    for number, source in enumerate(sources):
        if source is None:
            continue
        memory, inside = place(source, margin)
        tables = [np.array(table, np.float32) for table in source.tables]
        kept += [memory, *tables]
        where = [(table.ctypes.data, len(table)) for table in tables]
        lines = [line_of(table, source.stored_min, inside.dtype) for table in tables]
        for table, line in zip(tables, lines, strict=True):
            if poisoned and line is not None:
                table[...] = np.nan
        records[number] = source_record(
            inside.ctypes.data, memory.strides[0], inside.shape, inside.dtype, source.stored_min, where, lines
        )
    rois = np.ascontiguousarray(rois, ROI).reshape(-1)
    out = Output((len(rois), spec.channels, spec.height, spec.width), np.float16 if half else np.float32)
    launch = warp_launch(records.ctypes.data, len(sources), rois.ctypes.data, len(rois), spec, out.address, half)
    kernels.run(launch)
    return out.values()


def decode(
    kernels: HostKernels, heatmaps: NDArray, rois: NDArray[np.void], views: NDArray[np.void], spec: DecodeSpec
) -> NDArray[np.void]:
    """`spinescore.kernels.decode.decode` by the CUDA source; heatmaps float16 or float32."""
    heatmaps, rois, views = (np.ascontiguousarray(values) for values in (heatmaps, rois, views))
    out = Output((len(views), DISCS, 2), POINT)
    half = heatmaps.dtype == np.float16
    kernels.run(
        decode_launch(
            heatmaps.ctypes.data,
            heatmaps.shape[1:],
            half,
            rois.ctypes.data,
            views.ctypes.data,
            len(views),
            spec,
            out.address,
        )
    )
    return out.values()


def boxes(kernels: HostKernels, points: NDArray[np.void], views: NDArray[np.void], spec: BoxSpec) -> NDArray[np.void]:
    points, views = np.ascontiguousarray(points), np.ascontiguousarray(views)
    out = Output((len(views),), ROI)
    kernels.run(boxes_launch(points.ctypes.data, views.ctypes.data, len(views), spec, out.address))
    return out.values()


def crops(kernels: HostKernels, points: NDArray[np.void], views: NDArray[np.void], spec: CropSpec) -> NDArray[np.void]:
    points, views = np.ascontiguousarray(points), np.ascontiguousarray(views)
    out = Output((len(views), DISCS, len(spec.flips)), ROI)
    kernels.run(crops_launch(points.ctypes.data, views.ctypes.data, len(views), spec, out.address))
    return out.values()


def mirror(kernels: HostKernels, images: NDArray) -> NDArray:
    """`spinescore.kernels.average.mirror` by the CUDA source; images float16 or float32."""
    images = np.ascontiguousarray(images)
    out = Output(images.shape, images.dtype)
    rows, width = int(np.prod(images.shape[:-1])), images.shape[-1]
    kernels.run(mirror_launch(images.ctypes.data, rows, width, images.dtype == np.float16, out.address))
    return out.values()


def average(
    kernels: HostKernels, heatmaps: Sequence[NDArray], spec: AverageSpec, shape: tuple[int, int]
) -> NDArray[np.floating]:
    """`spinescore.kernels.average.average` by the CUDA source; heatmaps float16 or float32, with guards around each."""
    kept = [Output(maps.shape, maps.dtype) for maps in heatmaps]
    for place, maps in zip(kept, heatmaps, strict=True):
        place.values()[...] = maps
    planes = heatmaps[0].shape[0] * heatmaps[0].shape[1]
    out = Output((*heatmaps[0].shape[:2], *shape), heatmaps[0].dtype)
    places = [(place.address, maps.shape[2:]) for place, maps in zip(kept, heatmaps, strict=True)]
    kernels.run(average_launch(places, planes, shape, heatmaps[0].dtype == np.float16, spec, out.address))
    return out.values()
