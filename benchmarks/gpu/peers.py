"""The same study by other means on the same machine: PyTorch eager and compiled, plain ONNX Runtime.

Each peer runs all steps, from pixels in pageable host memory to logits there. It is timed only if its answers are those
of the CPU in FP32: points within a quarter of a heatmap pixel (median), and at most one of 24 grades different.
`times_ours` is a peer's median over that of this package's whole study, whose engine `ours` names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.gpu.inputs import Study, score, timed_study
from spinescore.benchmarks.gpu.networks import FULL_SIZE, Subject, subjects
from spinescore.benchmarks.gpu.record import Failed, Figures, Record, Skipped, percentiles
from spinescore.benchmarks.gpu.reference import open_host
from spinescore.benchmarks.harness.timing import elapsed_ms
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.scoring.grading import probabilities
from spinescore.runtime.scoring.pipeline import Pipeline

__all__ = ["Answer", "agreement", "run"]

Answer = tuple[NDArray[np.void], NDArray[Any]]  # points (2, 6, 2), logits (12, outputs)

_POINTS_PX, _FLIPS = 0.25, 1
_ROUNDS = 200


def run(record: Record, options: Any) -> None:
    """Run the part `peers`. Compiled peers come last: they may need more than the remaining time."""
    full = next((subject for subject in subjects(options) if subject.name == FULL_SIZE), None)
    if full is None:
        record.add("peers", "skipped", {}, "the full-size bundle was not exported")
        return
    study = timed_study(options.quick, full.bundle.manifest.localizer.input)
    whole = record.figures_of(f"{FULL_SIZE}: whole study")
    until = record.end
    peers: list[tuple[str, Callable[[], Figures]]] = [
        ("ONNX Runtime CUDA, used plainly", lambda: _onnxruntime(full, study, record.within(0.25 * record.left_s))),
        ("PyTorch eager FP16", lambda: _pytorch(full, study, record.within(0.4 * record.left_s), "")),
        ("PyTorch compiled FP16", lambda: _pytorch(full, study, until, "default")),
        ("PyTorch compiled FP16 with CUDA graphs", lambda: _pytorch(full, study, until, "reduce-overhead")),
    ]
    for name, work in peers:

        def compared(work: Callable[[], Figures] = work) -> Figures:
            figures = work()
            if whole is None:
                return figures
            return {
                **figures,
                "times_ours": round(figures["p50_ms"] / whole["graph_p50_ms"], 3),
                "ours": whole["engine"],
            }

        record.check(name, compared)


def agreement(full: Subject, study: Study, answer: Callable[[bool], Answer]) -> Figures:
    """Compare the answers, with points found and given, with those of the CPU in FP32. Raises `Failed`."""
    host = open_host()
    pipeline = Pipeline(full.bundle, host)
    head = full.bundle.manifest.grader.head
    expected = [score(host, pipeline, study, given) for given in (False, True)]
    answers = [answer(given) for given in (False, True)]
    apart = answers[0][0]["xy"].astype(np.float64) - expected[0].points["xy"]
    shift = np.hypot(apart[..., 0], apart[..., 1]) / study.heatmap_px()
    grades = [
        probabilities({"corners": logits}, head).argmax(-1) for logits in (answers[1][1], expected[1].logits["corners"])
    ]
    flips = int((grades[0] != grades[1]).sum())
    figures = {"median_shift_heatmap_px": float(np.median(shift)), "grade_flips": flips, "corners": grades[0].size}
    if not np.median(shift) <= _POINTS_PX or flips > _FLIPS:
        raise Failed(f"its answers differ: {figures}; it is not timed", figures)
    return figures


def _timed(call: Callable[[], object], until: float) -> Figures:
    times_ms: list[float] = []
    while len(times_ms) < _ROUNDS + 5 and (time.monotonic() <= until or len(times_ms) < 11):
        times_ms.append(elapsed_ms(call))
    return percentiles(times_ms[5:])


def _pytorch(full: Subject, study: Study, until: float, mode: str) -> Figures:
    """Time PyTorch; `mode` is that of torch.compile for the two networks, empty for eager."""
    import torch

    if not torch.cuda.is_available():
        raise Skipped(f"PyTorch {torch.__version__} sees no GPU")
    from spinescore.benchmarks.gpu.torchpeer import TorchPeer

    torch.backends.cudnn.benchmark = True
    peer = TorchPeer(full.bundle)
    started = time.monotonic()
    if mode:
        peer.localizer, peer.grader = (torch.compile(model, mode=mode) for model in (peer.localizer, peer.grader))
    figures = agreement(full, study, lambda given: peer.score(study, given))
    first_s = round(time.monotonic() - started, 2)
    timed = _timed(lambda: peer.score(study), until)
    networks = _networks_alone(torch, peer, full, until)
    return {**figures, **timed, "first_runs_s": first_s, "networks_ms": networks, "torch": torch.__version__}


def _networks_alone(torch: Any, peer: Any, full: Subject, until: float) -> float:
    """Return the median time of both networks by CUDA events, over up to 50 rounds, in milliseconds."""
    localizer, grader = full.bundle.manifest.localizer.input, full.bundle.manifest.grader.input
    shapes = (
        (2, localizer.channels, localizer.height, localizer.width),
        (12, grader.channels, grader.height, grader.width),
    )
    first, second = (torch.randn(shape, device="cuda", dtype=torch.float16) for shape in shapes)
    times_ms = []
    with torch.inference_mode():
        for number in range(55):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            peer.localizer(first)
            peer.grader(second)
            end.record()
            torch.cuda.synchronize()
            if number >= 5:
                times_ms.append(begin.elapsed_time(end))
            if time.monotonic() > until and times_ms:
                break
    return round(float(np.median(times_ms)), 4)


class _PlainEngine:
    """An ONNX Runtime session as most programs use it: arrays in, arrays out, on the CUDA provider."""

    capturable, rows = False, 1

    def __init__(self, path: Any, precision: str) -> None:
        import onnxruntime

        from spinescore.runtime.engines.cudalibraries import load_cuda_libraries

        cuda = "CUDAExecutionProvider"
        if cuda not in onnxruntime.get_available_providers():
            raise Skipped(f"this ONNX Runtime {onnxruntime.__version__} has no CUDA provider")
        onnxruntime.set_default_logger_severity(4)
        load_cuda_libraries()
        self._session = onnxruntime.InferenceSession(str(path), providers=[cuda, "CPUExecutionProvider"])
        if cuda not in self._session.get_providers():
            raise Skipped("ONNX Runtime could not start its CUDA provider; its CUDA libraries are missing")
        self.file, self.name, self.precision = path, path.name, precision
        self.framework = f"onnxruntime {onnxruntime.__version__}"
        self._ends = self._session.get_inputs()[0], self._session.get_outputs()[0]
        self.dtype = np.dtype(np.float16 if "16" in self._ends[0].type else np.float32)
        self.input_shape, self.output_shape = (tuple(end.shape[1:]) for end in self._ends)

    def run(self, inputs: NDArray[Any], outputs: NDArray[Any]) -> None:
        outputs[...] = self._session.run(None, {self._ends[0].name: inputs})[0]

    def close(self) -> None:
        """Do nothing: the session ends with its last reference."""


class _PlainHost(HostDevice):
    """The CPU's kernels (OpenCV) with plain sessions on the GPU, in FP16."""

    precisions: tuple[str, ...] = ("fp16", "fp32")

    def engines(self, networks: Any, before: Any = None, rows: Any = None) -> Any:
        return [_PlainEngine(*network) for network in networks]


def _onnxruntime(full: Subject, study: Study, until: float) -> Figures:
    try:
        device = _PlainHost(1)  # one view after the other
    except DeviceError as error:  # an older OpenCV
        raise Skipped(str(error)) from error
    pipeline = Pipeline(full.bundle, device)

    def answer(given: bool) -> Answer:
        results = score(device, pipeline, study, given)
        return results.points, results.logits["corners"]

    figures = agreement(full, study, answer)
    timed = _timed(lambda: score(device, pipeline, study, False), until)
    return {**figures, **timed, "engine": pipeline.framework}
