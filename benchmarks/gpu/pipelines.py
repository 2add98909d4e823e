"""The pipeline on the GPU: against the host, graphs against launches, sizes, memory, threads and errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.gpu.inputs import BOTH, Study, phantom, picture, score
from spinescore.benchmarks.gpu.machine import device_in_use_bytes
from spinescore.benchmarks.gpu.networks import FULL_SIZE, Subject, subjects
from spinescore.benchmarks.gpu.record import Failed, Figures, Record
from spinescore.benchmarks.gpu.reference import open_host
from spinescore.benchmarks.gpu.rig import Rig, answers, open_rig
from spinescore.benchmarks.gpu.warpcases import NOISE, excess
from spinescore.benchmarks.harness.environment import memory_bytes
from spinescore.kernels.decode import CropSpec
from spinescore.kernels.decode import crops as reference_crops
from spinescore.kernels.warp import Source, WarpSpec, warp
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.scoring.grading import probabilities
from spinescore.runtime.scoring.networks import GRADER_TABLE
from spinescore.runtime.scoring.pipeline import Pipeline

__all__ = ["run"]

_REPLAYS, _QUICK_REPLAYS = 10_000, 4
_GROWTH_BYTES = 8 * 2**20  # of 10,000 replays: a leak of one small object each shows
_SIZES = ((3000, 2500, "uint16"), (900, 700, "uint8"), (4200, 3500, "int16"), (1201, 903, "uint16"))
_QUICK_SIZES = ((300, 250, "uint16"), (91, 73, "int16"))
_SEED = 1_000_003
_MEDIAN_SHIFT, _LARGEST_SHIFT_FP32 = 0.1, 0.5  # heatmap pixels
_FLIPS = 0.005  # of the corners


def run(record: Record, options: Any) -> None:
    """Run the part `pipelines`."""
    sizes = _QUICK_SIZES if options.quick else _SIZES
    largest_px = max(rows * columns for rows, columns, _ in sizes)
    for subject in subjects(options):
        size = subject.bundle.manifest.localizer.input
        pictures = [picture(rows, columns, size, number, dtype) for number, (rows, columns, dtype) in enumerate(sizes)]

        shared = _Shared(subject, max(largest_px, _most_px(options)))
        name = subject.name
        record.check(f"{name}: graph replay against stream launches", shared.run(_same_bits, pictures))
        record.check(f"{name}: sizes change between replays", shared.run(_sizes, pictures))
        if not subject.is_still:
            record.check(f"{name}: host device against GPU", shared.run(_parity, options, record))
        replays = _QUICK_REPLAYS if options.quick else _REPLAYS // (10 if name == FULL_SIZE else 1)
        until = record.within(0.35 * record.left_s)
        record.check(f"{name}: {replays} replays", shared.run(_replays, pictures, replays, until))
        if subject.is_still:
            record.check("several threads", shared.run(_two_threads))
            record.check("errors", shared.run(_refused_and_going_on, pictures[0]))
        shared.close()


class _Shared:
    """One rig for all checks of a subject, since opening engines takes time; a new one after an unexpected error."""

    def __init__(self, subject: Subject, largest_px: int) -> None:
        self._subject, self._largest_px = subject, largest_px
        self._held = ExitStack()
        self._rig: Rig | None = None

    def run(self, work: Callable[..., Figures], *arguments: Any) -> Callable[[], Figures]:
        def checked() -> Figures:
            try:
                if self._rig is None:
                    self._rig = self._held.enter_context(open_rig(self._subject, self._largest_px))
                self._rig.device.replaying = True
                return work(self._rig, *arguments)
            except Failed:
                raise
            except BaseException:
                self.close()
                raise

        return checked

    def close(self) -> None:
        self._rig = None
        self._held.close()


def _same_bits(rig: Rig, pictures: list[Study]) -> Figures:
    """Check that points, logits and crops of a replay equal those of steps queued one by one, byte for byte."""
    wrong = []
    for study in pictures:
        for given in (False, True):
            both_ways = []
            for replaying in (True, False):
                rig.device.replaying = replaying
                results = score(rig.device, rig.pipeline, study, given)
                both_ways.append(answers(results) + list(rig.pipeline.crops(BOTH).values()))
            apart = [
                float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
                for one, other in zip(*both_ways, strict=True)
                if one.tobytes() != other.tobytes()
            ]
            if apart:
                wrong.append(
                    f"{study.name}, given points {given}: {len(apart)} arrays differ, by up to {max(apart):.3g}"
                )
    figures = {"studies": 2 * len(pictures), "engine": rig.pipeline.framework, "precision": rig.pipeline.precision}
    if wrong:
        raise Failed("; ".join(wrong), figures)
    return figures


def _sizes(rig: Rig, pictures: list[Study]) -> Figures:
    """Check one graph, image after image: crops as by the float64 reference about the same points; the first again."""
    grader = rig.subject.bundle.manifest.grader
    size, crop = grader.input, grader.crop
    spec = WarpSpec(size.height, size.width, size.antialias, size.mean, size.std, GRADER_TABLE)
    worst, first = -np.inf, b""
    for number, study in enumerate([*pictures, pictures[0]]):
        results = score(rig.device, rig.pipeline, study, given=True)
        for role, cut in rig.pipeline.crops(BOTH).items():
            about = CropSpec(size.height, crop.unit, crop.extent, crop.anterior, rig.pipeline.flips(role))
            rois = reference_crops(results.points, study.given, about).reshape(-1)
            some = slice(number % 3, None, 3)
            expected = warp(study.sources, rois[some], spec)
            worst = max(worst, excess(cut[some], expected, spec, NOISE, cut.dtype == np.float16))
            first = first or cut.tobytes()
    figures = {"sizes": [study.name for study in pictures], "beyond_bound": worst}
    if worst > 0:
        raise Failed(f"crops leave the bound of {NOISE} of the range by {worst:.3g}", figures)
    if first != next(iter(rig.pipeline.crops(BOTH).values())).tobytes():
        raise Failed("the first image's crops are not the same the second time", figures)
    return figures


def _parity(rig: Rig, options: Any, record: Record) -> Figures:
    """Compare phantom studies on both devices: points as found, grades from the true points."""
    bundle = rig.subject.bundle
    size, head, until = bundle.manifest.localizer.input, bundle.manifest.grader.head, record.within(0.5 * record.left_s)
    host = open_host()
    on_host = Pipeline(bundle, host)
    pair = (rig.device, rig.pipeline), (host, on_host)
    shifts: list[NDArray[np.float64]] = []
    changed, corners, logits_apart = 0, 0, 0.0
    for number in range(1 if options.quick else 9):
        study = phantom(_SEED + number, size, 0.15 if options.quick else 1.0)
        one, other = (score(device, pipeline, study, False) for device, pipeline in pair)
        apart = one.points["xy"].astype(np.float64) - other.points["xy"]
        shifts.append(np.hypot(apart[..., 0], apart[..., 1]) / study.heatmap_px())
        one, other = (score(device, pipeline, study, True) for device, pipeline in pair)
        grades = [probabilities(results.logits, head).argmax(axis=-1) for results in (one, other)]
        changed, corners = changed + int((grades[0] != grades[1]).sum()), corners + grades[0].size
        for role, logits in one.logits.items():
            difference = np.abs(logits.astype(np.float64) - other.logits[role]).max()
            logits_apart = max(logits_apart, float(difference))
        if time.monotonic() > until:
            break
    precision, engine = rig.pipeline.precision, rig.pipeline.framework
    shift = np.concatenate([values.ravel() for values in shifts])
    figures = {
        "engine": engine, "precision": precision, "host": type(host).__name__, "host_precision": on_host.precision,
        "studies": len(shifts), "corners": corners, "median_shift_heatmap_px": float(np.median(shift)),
        "p99_shift_heatmap_px": float(np.percentile(shift, 99)), "largest_shift_heatmap_px": float(shift.max()),
        "grade_flips": changed, "largest_logit_difference": logits_apart,
    }  # fmt: skip
    if np.median(shift) > _MEDIAN_SHIFT or ("fp16" not in precision and shift.max() > _LARGEST_SHIFT_FP32):
        raise Failed(
            f"points move by {np.median(shift):.3g} heatmap pixels (median), {shift.max():.3g} at most", figures
        )
    if changed > max(_FLIPS * corners, 1):
        raise Failed(f"{changed} of {corners} grades change", figures)
    return figures


def _most_px(options: Any) -> int:
    return 2**20 if options.quick else 3600 * 3600


def _replays(rig: Rig, pictures: list[Study], count: int, until: float) -> Figures:
    """Check that every answer is the same, and that memory does not grow after the first tenth."""
    device, pipeline, study = rig.device, rig.pipeline, pictures[0]
    expected = answers(score(device, pipeline, study, True))
    warm = max(count // 10, 1)
    before, started, done, differ = _memory(), time.monotonic(), 0, 0
    for number in range(count):
        if number == warm:
            before = _memory()
        results = pipeline.score(BOTH, study.whole, study.given)
        same = all(one.tobytes() == other.tobytes() for one, other in zip(answers(results), expected, strict=True))
        done, differ = done + 1, differ + (not same)
        if time.monotonic() > until:
            break
    after, seconds = _memory(), time.monotonic() - started
    figures: Figures = {"replays": done, "different_answers": differ, "seconds": round(seconds, 2)}
    figures |= {name: after[name] - before[name] for name in after}
    if done < count:
        figures["cut"] = f"stopped after {done} of {count} replays: the time was over"
    if differ:
        raise Failed(f"{differ} of {done} answers differ from the first", figures)
    grown = [f"{name} {grown}" for name in after if (grown := after[name] - before[name]) > _GROWTH_BYTES]
    if grown:
        raise Failed(f"memory grew: {', '.join(grown)} bytes", figures)
    return figures


def _memory() -> dict[str, int]:
    """Return the bytes in use on the GPU and by this process on the host, as far as the system tells them."""
    used = {"gpu_growth_bytes": device_in_use_bytes(), "host_growth_bytes": memory_bytes()["resident_bytes"]}
    return {name: count for name, count in used.items() if count is not None}


def _two_threads(rig: Rig) -> Figures:
    """Check that two threads in the device at once are refused, and one after the other are not."""
    device = rig.device
    inside, go_on, problems = threading.Event(), threading.Event(), []

    def steps(views: slice) -> None:
        inside.set()
        go_on.wait(30)

    def work() -> None:
        try:
            device.capture(steps)
        except Exception as error:
            problems.append(str(error))

    other = threading.Thread(target=work)
    other.start()
    inside.wait(30)
    refused = ""
    try:
        device.synchronise()
    except DeviceError as error:
        refused = str(error)
    go_on.set()
    other.join()
    device.synchronise()
    if problems or "in use by another thread" not in refused:
        raise Failed(f"the second thread was answered {refused!r}; the first: {problems}")
    return {"refused": refused}


def _refused_and_going_on(rig: Rig, study: Study) -> Figures:
    """Check that errors name too many tables and missing memory, and that the device goes on."""
    device = rig.device
    expected = answers(score(device, rig.pipeline, study, True))
    table = np.linspace(0, 1, 256, dtype=np.float32)
    image = Source(np.zeros((2, 2), np.uint8), (table, table, table))
    messages = {
        "too_many_tables": _refusal(lambda: device.upload(0, image), "takes 2 tables"),
        "out_of_memory": _refusal(lambda: device.allocate((1 << 44,), np.uint8), "out of memory"),
    }
    again = answers(score(device, rig.pipeline, study, True))
    if any(one.tobytes() != other.tobytes() for one, other in zip(again, expected, strict=True)):
        raise Failed("after the errors the answers differ", messages)
    return messages


def _refusal(call: Callable[[], Any], expected: str) -> str:
    try:
        call()
    except DeviceError as error:
        if expected in str(error):
            return str(error)
        raise Failed(f"the message does not contain {expected!r}: {error}") from error
    raise Failed(f"nothing was refused; {expected!r} was expected")
