"""ONNX Runtime as the exporter uses it: on the CPU, on models in memory, with a run on each core.

Runs side by side in few threads cost less processor time than one run in all threads, which wait for each other at
every layer. An image's results are the same bits either way, and in batches of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from spinescore.export.averaged import Images, ScaledImages
from spinescore.export.graph import with_weights_apart
from spinescore.export.threads import thread_count
from spinescore.runtime.engines.onnxruntime import give_back
from spinescore.runtime.errors import CheckpointError

__all__ = ["map_batches", "open_session", "run_model", "run_session"]

_BATCH = 2  # images in one run; more do not make a run of one thread any faster, and take memory
_MOST_CALLERS = 8  # runs at the same time, each with its own activations

Result = TypeVar("Result")


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
