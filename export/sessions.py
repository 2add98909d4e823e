"""ONNX Runtime as the exporter uses it: on the CPU, on models in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from spinescore.export.averaged import Images, ScaledImages
from spinescore.runtime.engines.onnxruntime import give_back
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.machine.processor import core_count

__all__ = ["batches_of", "open_session", "run_model", "run_session", "thread_count"]

_BATCH = 8


def thread_count() -> int:
    """The threads that networks run in: those of OMP_NUM_THREADS, else one for each core."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0) or core_count()


def open_session(model: onnx.ModelProto, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A CPU session of `model`, in all threads or so many; raises `CheckpointError` where ONNX Runtime refuses it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
    options.enable_mem_pattern = False  # a pattern takes all activations of a run as one block
    options.log_severity_level = 4  # errors arrive as exceptions
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model.onnx"
        give_back()
        path.write_bytes(model.SerializeToString())  # a session that reads a file needs half of the memory
        give_back()
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class of its own
            raise CheckpointError(f"ONNX Runtime does not accept the graph {model.graph.name}: {error}") from error
    give_back()
    return session


def batches_of(
    images: NDArray[np.floating] | Images, label: str = "", most: int = _BATCH
) -> Iterator[NDArray[np.floating]]:
    """`images` a few at a time, so that memory stays small; at several scales run by run.

    With a `label`, progress shows on a terminal.
    """
    if isinstance(images, ScaledImages):
        for part in images.runs():
            yield from batches_of(part, label, most)
        return
    starts = range(0, len(images), most)
    for start in tqdm(starts, desc=label, unit="batch", leave=False, disable=None if label else True):
        yield images[start : start + most]


def run_model(model: onnx.ModelProto, images: NDArray[np.floating] | Images, label: str = "") -> NDArray[np.float32]:
    """The only output of `model` for `images` (N, C, H, W), as float32 whatever precision the model's ends have.

    Of images at several scales the mean heatmaps of all runs.
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
    results = [session.run(None, {entry.name: batch.astype(kind)})[0] for batch in batches_of(images, label)]
    return np.concatenate(results).astype(np.float32)
