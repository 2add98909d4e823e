"""The kernels on the GPU against their float64 references, through the device's own verbs.

Memory around every output is watched. Cases are drawn by seed (`seed` in the figures of a failure), as many as the time
allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spinescore.benchmarks.gpu.averagecases import AverageCase, off, random_average
from spinescore.benchmarks.gpu.decodecases import (
    DecodeCase,
    PointsCase,
    close,
    corners,
    decode_edge,
    random_decode,
    random_regions,
    roi_close,
)
from spinescore.benchmarks.gpu.record import Failed, Figures, Record
from spinescore.benchmarks.gpu.warpcases import WarpCase, excess, largest_warps, random_warp, warp_edges
from spinescore.kernels.decode import DISCS, POINT, boxes, crops, decode
from spinescore.kernels.warp import ROI, Source, warp
from spinescore.runtime.devices import Device, open_device

__all__ = ["Arena", "run"]

_ARENA_BYTES = 48 * 2**20
_ALIGNED = 256
_GUARD = 0xA5
_LARGEST_SIDE, _QUICK_SIDE = 4096, 256
_CASES = {"warp": 3000, "decode": 2000, "average": 1000, "regions": 4000}
_QUICK_CASES = 6


class Arena:
    """One buffer of a device that lends parts as buffers of any shape and type, with guards between them."""

    def __init__(self, device: Device[Any], nbytes: int = _ARENA_BYTES) -> None:
        self._device, self._all = device, device.allocate((nbytes,), np.uint8)
        self._taken = 0
        self._outputs: list[tuple[int, int]] = []

    def start(self) -> None:
        """Take everything back."""
        self._taken, self._outputs = 0, []

    def lend(self, shape: Sequence[int], dtype: DTypeLike) -> Any:
        kind = np.dtype(dtype)
        nbytes = prod(shape) * kind.itemsize
        start = self._taken + _ALIGNED
        self._taken = -(-(start + nbytes) // _ALIGNED) * _ALIGNED
        if self._taken + _ALIGNED > self._all.nbytes:
            raise ValueError(f"a case needs more than {self._all.nbytes} bytes")
        return replace(self._all[start : start + nbytes], shape=tuple(shape), dtype=kind)

    def filled(self, values: NDArray[Any]) -> Any:
        values = np.ascontiguousarray(values)
        buffer = self.lend(values.shape, values.dtype)
        self._device.write(buffer, values)
        return buffer

    def output(self, shape: Sequence[int], dtype: DTypeLike) -> Any:
        """Lend a buffer. It and the bytes around it are filled with the guard."""
        before = self._taken
        buffer = self.lend(shape, dtype)
        around = self._all[before : self._taken + _ALIGNED]
        self._device.write(around, np.full(around.shape, _GUARD, np.uint8))
        self._outputs.append((buffer.offset - self._all.offset, buffer.nbytes))
        self._taken += _ALIGNED
        return buffer

    def untouched(self) -> bool:
        """Return whether nothing was written beside the outputs."""
        for start, nbytes in self._outputs:
            for part in (self._all[start - _ALIGNED : start], self._all[start + nbytes : start + nbytes + _ALIGNED]):
                if (self._device.read(part) != _GUARD).any():
                    return False
        return True


def run(record: Record, options: Any) -> None:
    """Run the part `kernels`. Every check opens a device of its own."""
    side = _QUICK_SIDE if options.quick else _LARGEST_SIDE
    largest_px = max(side * side, 2 * 65535)
    number = {kind: _QUICK_CASES if options.quick else count for kind, count in _CASES.items()}
    for half in (False, True):
        name = f"warp_{'f16' if half else 'f32'}"
        large = enumerate(islice(largest_warps(np.random.default_rng(5), side), 0, None, 9 if options.quick else 1))
        for title, cases, share in (
            ("random", _drawn(random_warp, number["warp"]), 0.12),
            ("edges", enumerate(warp_edges()), 0.12),
            (f"images {side} x {side}", large, 0.25),
        ):
            _note(record, f"{name}, {title}", (_Warps, half), cases, share, largest_px)
    for half in (False, True):
        maps = _drawn(partial(random_decode, half=half), number["decode"])
        _note(record, f"decode_{'f16' if half else 'f32'}, random", (_Points,), maps, 0.3)
    for half in (False, True):
        cases = _drawn(partial(random_average, half=half), number["average"])
        _note(record, f"mirror and average_{'f16' if half else 'f32'}, random", (_Averages,), cases, 0.2)
    edges = enumerate([decode_edge(np.random.default_rng(1))])
    _note(record, "decode_f32, lost views and points", (_Points,), edges, 0.9)
    _note(record, "boxes and crops, random", (_Regions,), _drawn(random_regions, number["regions"]), 0.9)


def _drawn(draw: Callable[..., Any], count: int) -> Iterable[tuple[int, Any]]:
    return ((seed, draw(np.random.default_rng(seed))) for seed in range(count))


def _note(
    record: Record, name: str, judge: tuple[Any, ...], cases: Iterable[tuple[int, Any]], share: float, px: int = 2**16
) -> None:
    """Add one check: judge every case, until the check's share of the remaining time is over."""

    def work() -> Figures:
        until = record.within(share * record.left_s)
        device = open_device("cuda", largest_image_px=px)
        try:
            return _judged(judge[0](device, Arena(device), *judge[1:]), cases, until)
        finally:
            device.close()

    record.check(name, work)


def _judged(judge: Any, cases: Iterable[tuple[int, Any]], until: float) -> Figures:
    figures: Figures = {}
    count, wrong = 0, []
    for seed, case in cases:
        if time.monotonic() > until:
            figures["cut"] = f"stopped after {count} cases: the time was over"
            break
        count += 1
        reason = judge(case)
        if reason:
            wrong.append({"seed": seed, "reason": reason})
    figures |= {"cases": count, **judge.figures}
    if wrong:
        kept = {**figures, "wrong_cases": len(wrong), "wrong": wrong[:20]}
        raise Failed(f"{len(wrong)} of {count} cases; first, seed {wrong[0]['seed']}: {wrong[0]['reason']}", kept)
    if not count:
        raise Failed("no case ran in the remaining time", figures)
    return figures


class _Judge:
    """Judges cases: returns the empty text if the GPU's answer is right, else the fault. Keeps two figures."""

    counted, worst = "", ""  # names of the figures: the number of results, and their largest error

    def __init__(self, device: Device[Any], arena: Arena) -> None:
        self._device, self._arena = device, arena
        self.figures: Figures = {self.counted: 0, self.worst: 0.0}

    def _note(self, count: int, error: float) -> None:
        self.figures[self.counted] += count
        self.figures[self.worst] = max(self.figures[self.worst], error)


class _Warps(_Judge):
    counted, worst = "regions", "worst_error_of_range"

    def __init__(self, device: Device[Any], arena: Arena, half: bool) -> None:
        super().__init__(device, arena)
        self._half = half
        self._slots: list[Source | None] = [None, None]  # a slot holds its image until the next one comes

    def __call__(self, case: WarpCase) -> str:
        arena, device = self._arena, self._device
        for slot, source in enumerate(case.sources):
            if source is not None:
                device.upload(slot, source)
                self._slots[slot] = source
        arena.start()
        rois = arena.filled(case.rois)
        shape = (len(case.rois), case.spec.channels, case.spec.height, case.spec.width)
        out = arena.output(shape, np.float16 if self._half else np.float32)
        device.warp(rois, case.spec, out)
        actual, expected = device.read(out), warp(self._slots, case.rois, case.spec)
        beyond = excess(actual, expected, case.spec, case.bound, self._half)
        error = np.abs(actual.astype(np.float64) - expected) * np.array(case.spec.std)[:, None, None]
        self._note(len(case.rois), float(error.max()))
        if beyond > 0:
            return f"{case.name}: {beyond:.3g} beyond the bound of {case.bound} of the range"
        return "" if arena.untouched() else f"{case.name}: memory beside the output was written"


class _Points(_Judge):
    counted, worst = "points", "worst_px"

    def __call__(self, case: DecodeCase) -> str:
        arena = self._arena
        arena.start()
        maps, rois, views = (arena.filled(values) for values in (case.heatmaps, case.rois, case.views))
        out = arena.output((len(case.views), DISCS, 2), POINT)
        self._device.decode(maps, rois, views, case.spec, out)
        actual, expected = self._device.read(out), decode(case.heatmaps, case.rois, case.views, case.spec)
        self._note(actual.size, float(np.abs(actual["xy"] - expected["xy"]).max()))
        if not np.array_equal(actual["confidence"], expected["confidence"]):
            return f"{case.spec.method}: confidences differ"
        if not close(actual["xy"], expected["xy"]):
            return f"{case.spec.method}: points differ by {np.abs(actual['xy'] - expected['xy']).max():.3g} px"
        return "" if arena.untouched() else "memory beside the points was written"


class _Averages(_Judge):
    counted, worst = "runs", "worst_difference"

    def __call__(self, case: AverageCase) -> str:
        arena, device = self._arena, self._device
        arena.start()
        maps, images = [arena.filled(values) for values in case.heatmaps], arena.filled(case.images)
        mean = arena.output((*case.heatmaps[0].shape[:2], *case.shape), case.images.dtype)
        mirrored = arena.output(case.images.shape, case.images.dtype)
        device.average(maps, case.spec, mean)
        device.mirror(images, mirrored)
        difference, wrong = off(case, device.read(mean), device.read(mirrored))
        self._note(len(maps), difference)
        return wrong or ("" if arena.untouched() else "memory beside the outputs was written")


class _Regions(_Judge):
    counted, worst = "regions", "worst_corner_px"

    def __call__(self, case: PointsCase) -> str:
        arena, device = self._arena, self._device
        arena.start()
        points, views = arena.filled(case.points), arena.filled(case.views)
        cut = arena.output((len(case.views), DISCS, len(case.crop.flips)), ROI)
        around = arena.output((len(case.views),), ROI)
        device.crops(points, views, case.crop, cut)
        device.boxes(points, views, case.box, around)
        side = (case.crop.size, case.crop.size)
        box_size = (case.box.height, case.box.width)
        pairs = (
            ("crops", device.read(cut), crops(case.points, case.views, case.crop), side),
            ("boxes", device.read(around), boxes(case.points, case.views, case.box), box_size),
        )
        for name, actual, expected, size in pairs:
            apart = float(np.abs(corners(actual, size) - corners(expected, size)).max())
            self._note(actual.size, apart)
            if not roi_close(actual, expected, size):
                return f"{name} differ by {apart:.3g} px at their corners"
        return "" if arena.untouched() else "memory beside the regions was written"
