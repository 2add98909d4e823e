"""ONNX Runtime as the exporter uses it: on the CPU, on models in memory, with a run on each core.

Runs side by side in few threads cost less processor time than one run in all threads, which wait for each other at
every layer. An image's results are the same bits either way, and in batches of any size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from spinescore.export.graph import with_weights_apart
from spinescore.kernels.average import AverageSpec, average, mirror
from spinescore.runtime.engines.onnxruntime import give_back
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.machine.processor import core_count
from spinescore.runtime.manifest import Localizer, NetworkInput
from spinescore.runtime.scoring.networks import average_spec

__all__ = [
    "Change",
    "Images",
    "Runner",
    "ScaledImages",
    "map_batches",
    "open_session",
    "run_model",
    "run_session",
    "scaled_images",
    "thread_count",
    "workers",
]

_BATCH = 2  # images in one run; more do not make a run of one thread any faster, and take memory
_MOST_CALLERS = 8  # runs at the same time, each with its own activations

Result = TypeVar("Result")
Change = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # of grey pictures (N, H, W)


@dataclass(frozen=True, eq=False)
class ScaledImages:
    """The same N pictures at every scale, (N, C, H, W) each, the input's own size first.

    `len` and slices work as on an array of the N pictures.
    """

    scales: tuple[NDArray[np.float32], ...]
    spec: AverageSpec

    def __len__(self) -> int:
        return len(self.scales[0])

    def __getitem__(self, part: slice) -> ScaledImages:
        return replace(self, scales=tuple(images[part] for images in self.scales))

    def runs(self) -> Iterator[NDArray[np.float32]]:
        """Yield the network's inputs, run by run in the order of `spec`."""
        flips = len(self.spec.runs) // len(self.scales)
        for images in self.scales:
            yield images
            if flips > 1:
                yield np.ascontiguousarray(mirror(images))

    def average(self, outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the mean heatmaps of all runs' outputs, in float32 as the host device computes it."""
        height, width = outputs[0].shape[2:]
        return average(outputs, self.spec, (height, width), np.float32)


Images = NDArray[np.float32] | ScaledImages


def scaled_images(scales: Sequence[NDArray[np.float32]], localizer: Localizer) -> Images:
    """Return the inputs of all runs of the localizer: the images alone if it runs once."""
    images: Images = scales[0]
    return ScaledImages(tuple(scales), average_spec(localizer)) if localizer.averaging.runs > 1 else images


def thread_count() -> int:
    """Return the number of threads for networks: OMP_NUM_THREADS, or else one for each core."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0) or core_count()


@contextmanager
def workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield `count` threads. At the end, also after an error, work that has not begun is dropped."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _caller_count() -> int:
    return min(thread_count(), _MOST_CALLERS)


def open_session(
    model: onnx.ModelProto,
    weights_of: onnx.ModelProto | None = None,
    change: Callable[[onnx.TensorProto], onnx.TensorProto] | None = None,
    *,
    optimised: bool = True,
) -> onnxruntime.InferenceSession:
    """Return a CPU session of `model` that several threads may run at the same time.

    If `weights_of` is given, `model` has no initializers of its own and uses those of `weights_of`; `change` makes
    another tensor of each. If not `optimised`, the session opens sooner and in less memory, and runs more slowly.
    Raises `CheckpointError` if ONNX Runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count() // _caller_count()
    options.enable_mem_pattern = False  # a pattern takes all activations of a run as one block
    options.log_severity_level = 4  # errors arrive as exceptions
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    give_back()
    # ONNX Runtime copies a whole graph three times.
    light, weights = with_weights_apart(model, weights_of or model, change)
    try:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
        options.add_external_initializers(list(weights), values)
        session = onnxruntime.InferenceSession(light.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of its own
        raise CheckpointError(f"ONNX Runtime does not accept the graph {model.graph.name}: {error}") from error
    del options, values, weights
    give_back()
    return session


def map_batches(
    act: Callable[[NDArray[np.floating]], Result],
    images: NDArray[np.floating] | Images,
    label: str = "",
    most: int = _BATCH,
) -> list[Result]:
    """Return the results of `act` for all `images`, at most `most` at a time, in order; calls run side by side.

    Images at several scales are passed run by run. With a `label`, progress shows on a terminal.
    """
    batches = list(_batches(images, most))
    with ThreadPoolExecutor(_caller_count()) as pool:
        results = pool.map(act, batches)
        shown = tqdm(
            results, desc=label, total=len(batches), unit="batch", leave=False, disable=None if label else True
        )
        return list(shown)


def _batches(images: NDArray[np.floating] | Images, most: int) -> Iterator[NDArray[np.floating]]:
    if isinstance(images, ScaledImages):
        for part in images.runs():
            yield from _batches(part, most)
        return
    for start in range(0, len(images), most):
        yield images[start : start + most]


def run_model(model: onnx.ModelProto, images: NDArray[np.floating] | Images, label: str = "") -> NDArray[np.float32]:
    """Return the only output of `model` for `images` (N, C, H, W), as float32 for any precision of the model's ends.

    For images at several scales, the result is the mean heatmaps of all runs.
    """
    return run_session(open_session(model), images, label)


def run_session(
    session: onnxruntime.InferenceSession, images: NDArray[np.floating] | Images, label: str = ""
) -> NDArray[np.float32]:
    """Return the only output of an open session, as `run_model` does; the model can be freed before."""
    if isinstance(images, ScaledImages):
        return images.average([run_session(session, part, label) for part in images.runs()])
    entry = session.get_inputs()[0]
    kind = np.float16 if entry.type == "tensor(float16)" else np.float32
    results = map_batches(lambda batch: session.run(None, {entry.name: batch.astype(kind)})[0], images, label)
    return np.concatenate(results).astype(np.float32)


class Runner:
    """An FP32 graph that takes grey pictures; its session is opened once for any number of runs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = open_session(model)
        self._input = self._session.get_inputs()[0].name

    def __call__(
        self, grey: NDArray[np.float64], size: NetworkInput, change: Change | None = None, label: str = ""
    ) -> NDArray[np.float64]:
        """Return the raw output for `grey` (N, H, W) in 0..1, changed by `change` and normalised by `size`."""
        mean, std = (np.array(values).reshape(1, -1, 1, 1) for values in (size.mean, size.std))

        def run(batch: NDArray[np.floating]) -> NDArray[np.float32]:
            pictures = batch.astype(np.float64)
            pictures = pictures if change is None else change(pictures)
            images = ((pictures[:, None] - mean) / std).astype(np.float32)
            output: NDArray[np.float32] = self._session.run(None, {self._input: images})[0]
            return output

        return np.concatenate(map_batches(run, grey, label)).astype(np.float64)
