"""Times on the GPU: kernels, copies and networks.

Kernels and networks are timed by CUDA events around many runs in one graph, one after the other on the same data: it
lies in the second-level cache if it fits, and the gap between two nodes of a graph is part of the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.gpu.decodecases import CHANNELS
from spinescore.benchmarks.gpu.inputs import BOTH, Study, timed_study
from spinescore.benchmarks.gpu.machine import Driver
from spinescore.benchmarks.gpu.networks import Subject, subjects
from spinescore.benchmarks.gpu.record import Figures, Record, Skipped, percentiles
from spinescore.benchmarks.harness import timing
from spinescore.benchmarks.harness.timing import elapsed_ms
from spinescore.kernels.decode import DISCS, POINT, VIEW, BoxSpec, CropSpec, DecodeSpec, crops
from spinescore.kernels.warp import ROI, WarpSpec
from spinescore.runtime.devices.cuda import CudaDevice
from spinescore.runtime.errors import EngineError
from spinescore.runtime.manifest import HEAD_OUTPUTS, NetworkInput
from spinescore.runtime.scoring.networks import FLIPS, VIEWS, heatmap_size

__all__ = ["LOCALIZER_INPUT", "elapsed_us", "run", "study_kernels"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LOCALIZER_INPUT = NetworkInput(256, 192, 3, *_IMAGENET, antialias=4, levels=None, fit="stretch")
_CROPS = WarpSpec(224, 224, 2, *_IMAGENET, 1)
_LOCALIZER = WarpSpec(256, 192, 4, *_IMAGENET, 0)
_TARGETS_US = {"warp, 12 crops": 20.0, "warp, localizer's input": 30.0}  # on a data-centre GPU
_WARM_UP = 2  # rounds
_COPY_BYTES, _QUICK_COPY_BYTES = 2**28, 2**20


def run(record: Record, options: Any) -> None:
    """Run the part `timing`."""
    study = timed_study(options.quick, LOCALIZER_INPUT)
    peak = ((record.document.get("machine") or {}).get("gpu") or {}).get("bandwidth_gb_s")
    device = CudaDevice(largest_image_px=study.sources[0].pixels.size)
    try:
        record.check("memory bandwidth, by copies on the GPU", lambda: _bandwidth(device, options, peak))
        _kernels(record, device, study, options, peak)
        record.check("upload of both radiographs", lambda: _upload(device, study, options))
    finally:
        device.close()
    for subject in subjects(options):
        if not subject.is_still:
            record.check(f"{subject.name}: networks", lambda s=subject: _networks(s, options, record))  # type: ignore[misc]


def elapsed_us(device: CudaDevice, queue: Callable[[], None], times: int, replays: int) -> list[float]:
    """Return microseconds of one `queue`; `times` of them are in a graph that is replayed `replays` times."""

    def steps(views: slice) -> None:
        device.mark("begin")
        for _ in range(times):
            queue()
        device.mark("end")

    replay = device.capture(steps)
    times_us = []
    for _ in range(_WARM_UP + replays):
        replay(BOTH)
        marks = device.marks_ms()
        times_us.append((marks["end"] - marks["begin"]) * 1e3 / times)
    return times_us[_WARM_UP:]


def _counts(options: Any) -> tuple[int, int]:
    return (1, 1) if options.quick else (100, 30)


def _in_us(values_us: list[float]) -> Figures:
    return {f"{name}_us": us for name, us in timing.percentiles(values_us).items()} | {"graphs": len(values_us)}


def _bandwidth(device: CudaDevice, options: Any, peak: float | None) -> Figures:
    nbytes = _QUICK_COPY_BYTES if options.quick else _COPY_BYTES
    driver, handle = Driver(), device.stream_handle
    one, other = (device.allocate((nbytes,), np.uint8) for _ in range(2))
    times, replays = _counts(options)
    times_us = elapsed_us(
        device, lambda: driver.copy_on_device(one.address, other.address, nbytes, handle), max(times // 5, 1), replays
    )
    return _moved(_in_us(times_us), 2 * nbytes, peak)


def _moved(figures: Figures, nbytes: float, peak: float | None) -> Figures:
    """Add the bytes that must be read and written at least once, and their share of the memory's peak rate."""
    rate = nbytes / max(figures["p50_us"], 1e-6) / 1e3
    share = None if not peak else round(rate / peak, 4)
    return {**figures, "bytes": round(nbytes), "gb_s": round(rate, 1), "share_of_peak_bandwidth": share}


def study_kernels(device: CudaDevice, study: Study) -> dict[str, tuple[Callable[[], None], float]]:
    """Return each kernel's call, for a study with HRNet-W32 and ResNet152, and the bytes that it must move."""
    for slot, source in enumerate(study.sources):
        device.upload(slot, source)
    points = np.zeros((VIEWS, DISCS, 2), POINT)
    points["xy"], points["confidence"] = study.given["given_xy"], 1
    spec, decoding = CropSpec(224, "anterior-distance", 3.2, "left"), DecodeSpec("dark", "stride", 4, CHANNELS)
    rois = np.asarray(crops(points, study.views, spec), ROI)
    placed = {
        "crops": _placed(device, rois),
        "whole": _placed(device, study.whole),
        "views": _placed(device, study.views),
    }
    placed["points"], placed["boxes"] = _placed(device, points), device.allocate((VIEWS,), ROI)
    maps = np.random.default_rng(0).random((VIEWS, 24, 64, 48)).astype(np.float16)
    heatmaps = _placed(device, maps)
    out = device.allocate((VIEWS * DISCS, 3, 224, 224), np.float16)
    image = device.allocate((VIEWS, 3, 256, 192), np.float16)
    table = sum(len(source.tables[0]) * 4 for source in study.sources)
    pixel_bytes = study.sources[0].pixels.itemsize
    box = BoxSpec(256, 192, 1.25)
    small = VIEWS * DISCS * 2 * POINT.itemsize + VIEWS * VIEW.itemsize
    return {
        "warp, 12 crops": (
            lambda: device.warp(placed["crops"], _CROPS, out),
            out.nbytes + table + pixel_bytes * _footprint_px(rois, _CROPS, study),
        ),
        "warp, localizer's input": (
            lambda: device.warp(placed["whole"], _LOCALIZER, image),
            image.nbytes + table + pixel_bytes * _footprint_px(study.whole, _LOCALIZER, study),
        ),
        "decode, 24 points": (
            lambda: device.decode(heatmaps, placed["whole"], placed["views"], decoding, placed["points"]),
            heatmaps.nbytes / 2 + small,
        ),
        "boxes": (lambda: device.boxes(placed["points"], placed["views"], box, placed["boxes"]), small),
        "crops": (lambda: device.crops(placed["points"], placed["views"], spec, placed["crops"]), small + rois.nbytes),
    }  # fmt: skip


def _kernels(record: Record, device: CudaDevice, study: Study, options: Any, peak: float | None) -> None:
    for name, (queue, nbytes) in study_kernels(device, study).items():

        def work(queue: Callable[[], None] = queue, nbytes: float = nbytes, name: str = name) -> Figures:
            figures = _moved(_in_us(elapsed_us(device, queue, *_counts(options))), nbytes, peak)
            target = _TARGETS_US.get(name)
            return figures if target is None else {**figures, "target_us": target, "met": figures["p50_us"] <= target}

        record.check(f"kernel {name}", work)


def _placed(device: CudaDevice, values: NDArray[Any]) -> Any:
    buffer = device.allocate(values.shape, values.dtype)
    device.write(buffer, values)
    return buffer


def _footprint_px(rois: NDArray[np.void], spec: WarpSpec, study: Study) -> float:
    """Return the source pixels under the outputs, counted once per region, at most the whole image."""
    turns = rois.reshape(-1)["matrix"][:, :, :2].astype(np.float64)
    areas = np.abs(np.linalg.det(turns)) * spec.height * spec.width
    return float(np.minimum(areas, study.sources[0].pixels.size).sum())


def _upload(device: CudaDevice, study: Study, options: Any) -> Figures:
    """Time by the clock until the GPU has the pixels: the device's upload from pageable memory, and plain copies."""
    driver, nbytes = Driver(), study.pixel_bytes
    rounds = 3 if options.quick else 50
    buffer = device.allocate((nbytes,), np.uint8)
    pageable = np.concatenate([source.pixels.reshape(-1).view(np.uint8) for source in study.sources])

    def ours() -> None:
        for slot, source in enumerate(study.sources):
            device.upload(slot, source)

    def copied(host: NDArray[Any]) -> Callable[[], None]:
        def copy() -> None:
            with driver.current():
                driver.copy_to_device(buffer.address, host.ctypes.data, nbytes, device.stream_handle)

        return copy

    figures: Figures = {"bytes": nbytes, "device_upload": _by_clock(device, ours, rounds)}
    for name, host in (("one_copy_from_pinned", buffer.memory.host), ("one_copy_from_pageable", pageable)):
        with suppress(Skipped):
            figures[name] = _by_clock(device, copied(host), rounds)
    return figures


def _by_clock(device: CudaDevice, call: Callable[[], None], rounds: int) -> Figures:

    def whole() -> None:
        call()
        device.synchronise()

    return percentiles([elapsed_ms(whole) for _ in range(_WARM_UP + rounds)][_WARM_UP:])


def _networks(subject: Subject, options: Any, record: Record) -> Figures:
    """Time each network alone, on inputs of the study's batch; `study_ms` is the sum of its calls.

    If the study was timed before, its own kernels' time gives the share of the GPU's time that networks take.
    """
    localizer, grader = subject.bundle.manifest.localizer, subject.bundle.manifest.grader
    runs = Counter(localizer.run_inputs)
    each = VIEWS if localizer.shared else 1
    files_of = list(localizer.files.values())[: 1 if localizer.shared else None]
    plan = [(files, size, each, localizer.passes * count) for files in files_of for size, count in runs.items()]
    for role, files in grader.files.items():
        plan.append((files, grader.input, VIEWS * DISCS * len(FLIPS[HEAD_OUTPUTS[grader.head][role]]), 1))
    figures: Figures = {"networks": {}, "study_ms": 0.0}
    device = CudaDevice(largest_image_px=2**16, open_engine=subject.open_engine)
    try:
        for files, size, batch, calls in plan:
            path, precision = subject.bundle.network(files, device.precisions)
            (engine,) = device.engines([(path, precision)])
            inputs = device.allocate((batch, size.channels, size.height, size.width), engine.dtype)
            ends = (*engine.output_shape[:1], *(heatmap_size(size) if engine.output_shape[1:] else ()))
            outputs = device.allocate((batch, *ends), engine.dtype)
            device.write(inputs, np.random.default_rng(0).standard_normal(inputs.shape).astype(engine.dtype))
            times, replays = (1, 1) if options.quick else (10, 30)
            times_us = elapsed_us(device, lambda e=engine, i=inputs, o=outputs: device.run(e, i, o), times, replays)  # type: ignore[misc]
            timed = _in_us(times_us)
            facts = {"engine": engine.framework, "precision": engine.precision, "in_graph": engine.capturable}
            name = path.name if len(runs) == 1 else f"{path.name} {size.height}x{size.width}"
            figures["networks"][name] = {"batch": batch, "calls": calls, **facts, **timed}
            figures["study_ms"] += calls * timed["p50_us"] / 1e3
    except EngineError as error:
        raise Skipped(f"no engine runs these networks here: {error}") from error
    finally:
        device.close()
    before = record.figures_of(f"{subject.name}: whole study")
    if before is not None:
        whole = figures["study_ms"] + before["own_kernels_ms"]
        figures["networks_share_of_gpu_time"] = round(figures["study_ms"] / whole, 4)
    return figures
